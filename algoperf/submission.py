"""Find, read and check a submission: one Python file in the optimizer form or in the full form.

`locate` and `inspect` read the file without running it, in the process that starts the trials;
`load` runs it, in the process of the trial.
"""

import ast
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import inspect as introspection
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import reference_algorithms
from algoperf import siblings
from algoperf.backends import FRAMEWORKS
from algoperf.spec import UserError
from algoperf.workload import choose

OPTIMIZER_FUNCTIONS = {"jax": "jax_optimizer", "pytorch": "torch_optimizer"}
LIBRARY_NAMES = ("batch_size", "grad_clip", "label_smoothing", "dropout_rate")
_COMMON = (
    "workload",
    "current_param_container",
    "current_params_types",
    "model_state",
    "hyperparameters",
    "loss_type",
    "optimizer_state",
    "eval_results",
    "global_step",
    "rng",
)
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "jax_optimizer": ("params", "hyperparameters", "info"),
    "torch_optimizer": ("params", "hyperparameters", "info"),
    "eval_params": ("params", "optimizer_state", "hyperparameters", "info"),
    "learning_rate": ("step", "hyperparameters", "info"),
    "init_optimizer_state": ("workload", "model_params", "model_state", "hyperparameters", "rng"),
    "update_params": (*_COMMON, "batch", "train_state"),
    "prepare_for_eval": _COMMON,
    "data_selection": (
        *("workload", "input_queue", "optimizer_state", "current_param_container", "model_state"),
        *("hyperparameters", "global_step", "rng"),
    ),
    "get_batch_size": ("workload_name",),
}
FULL_FORM = ("init_optimizer_state", "update_params")


@dataclasses.dataclass(frozen=True)
class Outline:
    """What a submission file says without being run. `search_space` only where it is a literal."""

    name: str
    path: Path
    is_full_form: bool
    frameworks: tuple[str, ...]
    search_space: Any = None


@dataclasses.dataclass(frozen=True)
class Submission:
    """A loaded submission. `functions` take any of the keywords in `ARGUMENTS` and pass on those
    they name.
    """

    outline: Outline
    module: ModuleType
    functions: Mapping[str, "Function"]
    source_files: Mapping[str, Path]


@dataclasses.dataclass(frozen=True)
class Function:
    """A submission's function with the names of the arguments it takes."""

    call: Callable[..., Any]
    takes: frozenset[str]

    def __call__(self, **arguments: Any) -> Any:
        """Call it with those of the arguments that it names."""
        return self.call(**{name: arguments[name] for name in self.takes if name in arguments})


def locate(given: str) -> tuple[Path, str]:
    """Return (file, how it was found): a path, or a bare name that is no file here, a reference
    algorithm's.
    """
    path = Path(given)
    if path.is_dir() and (path / "submission.py").is_file():
        path = path / "submission.py"
    if path.is_file():
        if path.suffix != ".py":
            raise UserError(
                f"submission {given}: not a Python file; expected a file that ends in .py"
            )
        return path.resolve(), f"file {path}"
    bare = given.removesuffix(".py")
    if path.name != given or path.suffix not in ("", ".py"):
        raise UserError(
            f"submission {given}: no such file; give a Python file or a reference algorithm's name"
        )
    if bare not in reference_algorithms.names() and Path(f"{bare}.py").is_file():
        raise UserError(f"unknown submission {given!r}; did you mean the file {bare}.py?")
    choose("submission", bare, reference_algorithms.names())
    return reference_algorithms.path(bare), f"reference algorithm {bare}"


def inspect(path: Path) -> Outline:
    """Read a file's form, frameworks and literal search space; raise UserError where it does not
    parse.
    """
    tree = _parse(path)
    defined = _top_level_names(tree)
    served = [framework for framework, name in OPTIMIZER_FUNCTIONS.items() if name in defined]
    full_form = all(name in defined for name in FULL_FORM)
    if not served and not full_form:
        partly = [name for name in FULL_FORM if name in defined]
        missing = [name for name in FULL_FORM if name not in defined]
        wanted = (
            " and ".join(missing)
            if partly
            else "jax_optimizer or torch_optimizer, or " + " and ".join(FULL_FORM)
        )
        raise UserError(f"submission {path}: missing function {wanted}")
    if served and not full_form and "DEFAULTS" not in defined:
        raise UserError(f"submission {path}: missing DEFAULTS, a dict with one good point")
    name = path.parent.name if path.name == "submission.py" else path.stem
    frameworks = _imported_frameworks(tree) if full_form else served
    return Outline(
        name,
        path,
        full_form,
        tuple(frameworks),
        _literal(tree, "SEARCH_SPACE"),
    )


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise UserError(f"submission {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"submission {path}:{line}: {getattr(error, 'msg', error)}") from error


def choose_framework(outline: Outline, given: str | None) -> str:
    """The framework of a run: the one given, if it is served, else jax where that is served."""
    if given is None:
        return outline.frameworks[0]
    choose("framework", given, list(FRAMEWORKS))
    if given not in outline.frameworks:
        raise UserError(
            f"submission {outline.path} does not serve {given}; it serves: "
            f"{', '.join(outline.frameworks)}"
        )
    return given


def load(outline: Outline, framework: str) -> Submission:
    """Run the file and check its functions for the framework. Modules beside it can be imported."""
    beside = siblings.Beside(outline.path.parent)
    before = set(sys.modules)
    sys.meta_path.insert(0, beside)  # it stays there, for imports inside functions
    try:
        spec = importlib.util.spec_from_file_location(f"_submission_{outline.name}", outline.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [
            frame for frame in frames if Path(frame.filename).is_relative_to(outline.path.parent)
        ]
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(outline.path)
        text = str(error).partition("\n")[0]
        raise UserError(f"submission {where}: {type(error).__name__}: {text}") from error
    names = FULL_FORM if outline.is_full_form else (OPTIMIZER_FUNCTIONS[framework],)
    optional = tuple(
        name for name in ARGUMENTS if name not in (*FULL_FORM, *OPTIMIZER_FUNCTIONS.values())
    )
    functions = {
        name: _check(outline.path, name, getattr(module, name, None))
        for name in (*names, *optional)
        if name in names or hasattr(module, name)
    }
    if not outline.is_full_form and not isinstance(getattr(module, "DEFAULTS", None), Mapping):
        raise UserError(f"submission {outline.path}: DEFAULTS is not a dict")
    files = source_files(outline.path) | _loaded_files(outline.path, set(sys.modules) - before)
    return Submission(outline, module, functions, files)


def function_of(call: Callable[..., Any]) -> Function:
    """A function of ours as a `Function`."""
    return Function(call, frozenset(introspection.signature(call).parameters))


def source_hash(path: Path) -> str:
    """SHA-256 over a submission's files, the first 16 hex digits; nothing of it is run."""
    digest = hashlib.sha256()
    for name, file in sorted(source_files(path).items()):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def source_files(path: Path) -> dict[str, Path]:
    """The submission's file, its search space, and the modules beside it that it imports, anywhere
    in its code.

    Keys are paths relative to its folder. Of an imported package all files belong to it.
    """
    found: dict[str, Path] = {}
    waiting = [path, path.with_name("tuning_search_space.json")]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(path.parent).as_posix()
        if name in found or not file.is_file():
            continue
        found[name] = file
        for imported in _imports_of(file) - siblings.RESERVED:
            package = path.with_name(imported)
            waiting += [path.with_name(f"{imported}.py"), *sorted(package.rglob("*.py"))]
    return found


def _imports_of(file: Path) -> set[str]:
    try:
        return _imported(_parse(file)) if file.suffix == ".py" else set()
    except UserError:  # if it matters, the import will say so
        return set()


def _check(path: Path, name: str, function: Any) -> Function:
    if not callable(function):
        raise UserError(f"submission {path}: {name} is not a function")
    allowed = ARGUMENTS[name]
    takes = set()
    for parameter in introspection.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return Function(function, frozenset(allowed))
        known = parameter.name in allowed and parameter.kind is not parameter.POSITIONAL_ONLY
        if (
            not known
            and parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_POSITIONAL
        ):
            raise UserError(
                f"submission {path}: {name} wants argument {parameter.name!r}; it "
                f"can take: {', '.join(allowed)}"
            )
        if known:
            takes.add(parameter.name)
    return Function(function, frozenset(takes))


def _loaded_files(path: Path, loaded: set[str]) -> dict[str, Path]:
    """Files beside the submission that became modules; also those whose names only running it
    tells.
    """
    files = {}
    for name in loaded:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and Path(file).suffix == ".py" and Path(file).is_relative_to(path.parent):
            relative = Path(file).relative_to(path.parent)
            top = name.partition(".")[0]
            # Not what merely lives below the folder, such as a virtual environment.
            if len(relative.parts) == 1 or (
                relative.parts[0] == top and top not in siblings.RESERVED
            ):
                files[relative.as_posix()] = Path(file)
    return files


def _top_level_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        else:
            names.update(child.id for child in ast.walk(node) if isinstance(child, ast.Name))
    return names


def _imported(tree: ast.Module) -> set[str]:
    """The first parts of all names that are imported, inside functions as well."""
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


def _imported_frameworks(tree: ast.Module) -> list[str]:
    roots = _imported(tree)
    imported = [framework for framework, packages in FRAMEWORKS.items() if roots & set(packages)]
    return imported or list(FRAMEWORKS)


def _literal(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            try:
                return ast.literal_eval(node.value)
            except (ValueError, TypeError):
                return None
    return None

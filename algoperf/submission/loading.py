"""Find, read and check a submission: one Python file in the optimizer form or in the full form.

`locate` and `inspect` read the file without running it, in the process that starts the trials.
`load` runs it, in the process of the trial.
"""

import dataclasses
import functools
import importlib.machinery
import importlib.util
import inspect as introspection
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import reference_algorithms
from algoperf import pytorch_utils
from algoperf.backends import FRAMEWORKS
from algoperf.errors import UserError, choose
from algoperf.machine import own_code
from algoperf.submission import (
    older,
    requirements,
    search_space,
    siblings,
    stand_ins,
    submission_source,
)
from algoperf.submission.blame import cause_of, last_frame
from algoperf.submission.older import Contract

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
    """The facts that a submission's file shows without being run.

    Attributes:
        name: The submission's name.
        path: Its main file.
        is_full_form: Whether it is written in the full form, else in the optimizer form.
        frameworks: The frameworks that it supports.
        search_space: The value of SEARCH_SPACE in the file, if that is a literal, else None.
        has_search_space: Whether the file has a SEARCH_SPACE at all.
    """

    name: str
    path: Path
    is_full_form: bool
    frameworks: tuple[str, ...]
    search_space: Any = None
    has_search_space: bool = False

    @property
    def self_tunes(self) -> bool:
        """Whether the submission tunes itself.

        It does if it is in the full form and there is no search space, neither in its file nor
        beside it.
        """
        space = search_space.file_of(self.path)
        return self.is_full_form and not self.has_search_space and space is None


@dataclasses.dataclass(frozen=True)
class Submission:
    """A submission whose file has been run.

    Attributes:
        outline: The facts from its file.
        module: The module that running the file gave.
        functions: Its functions by name. Each accepts all keywords that `ARGUMENTS` lists for it,
            and passes on those that it names.
        source_files: All files of the submission by their path relative to its folder.
        contract: The generation of the published contract that it is written for.
        logs_scalars: Whether its training scalars are logged. They are not where the code indexes a
            scalar, which has no axis.
    """

    outline: Outline
    module: ModuleType
    functions: Mapping[str, "Function"]
    source_files: Mapping[str, Path]
    contract: Contract
    logs_scalars: bool = True


@dataclasses.dataclass(frozen=True)
class Function:
    """A submission's function, together with the names of the arguments that it takes.

    Attributes:
        call: The function itself.
        takes: The names of its arguments.
    """

    call: Callable[..., Any]
    takes: frozenset[str]

    def __call__(self, **arguments: Any) -> Any:
        """Call the function with those of the given arguments that it takes."""
        return self.call(**{name: arguments[name] for name in self.takes if name in arguments})


def locate(given: str) -> tuple[Path, str]:
    """Return the file of a submission, and a text that says how it was found.

    Args:
        given: The path of a Python file or of a folder with a `submission.py`, or the name of a
            reference algorithm. A file of that path comes before a name.

    Returns:
        The file as an absolute path, and 'file <path>' or 'reference algorithm <name>'.

    Raises:
        UserError: There is no such file and no such reference algorithm.
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
    if path.is_dir() and bare not in reference_algorithms.names():
        raise UserError(f"submission {given}: a folder without a submission.py")
    if path.name != given or path.suffix not in ("", ".py"):
        raise UserError(
            f"submission {given}: no such file; give a Python file or a reference algorithm's name"
        )
    if bare not in reference_algorithms.names() and Path(f"{bare}.py").is_file():
        raise UserError(f"unknown submission {given!r}; did you mean the file {bare}.py?")
    choose("submission", bare, reference_algorithms.names())
    return reference_algorithms.path(bare), f"reference algorithm {bare}"


def inspect_all(option: str, given: Sequence[str]) -> list[Outline]:
    """Return the outlines of several submissions, whose runs lie in folders of their names.

    Args:
        option: The option that names the submissions, for the message.
        given: What `locate` takes, for each.

    Raises:
        UserError: There is none, one is not found or not whole, or two have the same name.
    """
    if not given:
        raise UserError(f"{option} names nothing; give names, files or folders")
    by_name: dict[str, Outline] = {}
    for text in given:
        outline = inspect(locate(text)[0])
        other = by_name.setdefault(outline.name, outline)
        if other.path == outline.path and other is not outline:
            raise UserError(f"{option}: {outline.name} is named twice ({outline.path})")
        if other is not outline:
            raise UserError(
                f"{option}: two submissions are named {outline.name}, {other.path} and "
                f"{outline.path}; rename one"
            )
    return list(by_name.values())


def reference(outline: Outline) -> str:
    """Return the text by which `locate` finds a submission, from this folder.

    It is the name of a reference algorithm, unless a file of that name comes before it; else the
    submission's path.
    """
    try:
        located, _ = locate(outline.name)
    except UserError:
        return str(outline.path)
    return outline.name if located == outline.path else str(outline.path)


def inspect(path: Path) -> Outline:
    """Return the outline of a submission's file, without running it.

    Raises:
        UserError: The file does not parse, or lacks a function or value that its form must have.
    """
    tree = submission_source.parse(path)
    defined = submission_source.top_level_names(tree)
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
    frameworks = submission_source.imported_frameworks(path) if full_form else served
    return Outline(
        _name(path),
        path,
        full_form,
        tuple(frameworks),
        submission_source.literal(tree, "SEARCH_SPACE"),
        has_search_space="SEARCH_SPACE" in defined,
    )


def _name(path: Path) -> str:
    """Return the submission's name.

    It is the file's name, or for a file `submission.py` that of its folder. If that folder is named
    for a framework, it is the name of the folder above.
    """
    if path.name != "submission.py":
        return path.stem
    return (path.parent.parent if path.parent.name in FRAMEWORKS else path.parent).name


def choose_framework(outline: Outline, given: str | None) -> str:
    """Return the framework of a run.

    Args:
        outline: The submission's outline.
        given: The framework that the user asked for; None takes the first that the submission
            supports, which is jax where it supports both.

    Raises:
        UserError: There is no such framework, or the submission does not support it.
    """
    if given is None:
        return outline.frameworks[0]
    choose("framework", given, list(FRAMEWORKS))
    if given not in outline.frameworks:
        raise UserError(
            f"submission {outline.path} does not serve {given}; it serves: "
            f"{', '.join(outline.frameworks)}"
        )
    return given


def notes(outline: Outline, framework: str) -> list[str]:
    """Return what a user should know about how a submission is run, one text for each fact.

    These are for instance an older contract, a function that is ignored, and packages that its
    requirements ask for and that are not installed.

    Args:
        outline: The submission's outline.
        framework: The framework of the run.
    """
    lines = []
    contract = _contract(outline, framework)
    if outline.is_full_form:
        if contract.older:
            lines.append(
                "it is run by the contract of version 0.5 (for its imports or pmap), adapted"
            )
        if "get_eval_batch_size" in submission_source.top_level_names(
            submission_source.parse(outline.path)
        ):
            lines.append("its get_eval_batch_size is ignored: evaluation is the benchmark's own")
        line = _useless_logging_line(outline, contract)
        if line is not None:
            lines.append(
                f"its training scalars are not logged: line {line} indexes one, which has no axis"
            )
    space = search_space.repeated_text(search_space.file_of(outline.path))
    lines += filter(None, [requirements.unmet_text(outline.path), space])
    return [f"submission {outline.name}: {text}" for text in lines]


def is_own(outline: Outline, file: Path) -> bool:
    """Return whether a file belongs to the submission.

    It does if it is in or below the submission's folder. Files of this library and of installed
    packages do not, since that folder may be the root of a clone that contains them.
    """
    is_installed = own_code.is_ours(file) or "site-packages" in file.parts
    return file.is_relative_to(outline.path.parent) and not is_installed


def _contract(outline: Outline, framework: str) -> Contract:
    if not outline.is_full_form:
        return Contract()
    return submission_source.contract_of(outline.path, framework)


def _useless_logging_line(outline: Outline, contract: Contract) -> int | None:
    if not outline.is_full_form or contract.device_axis:
        return None
    return submission_source.indexes_a_logged_scalar(outline.path)


def load(outline: Outline, framework: str) -> Submission:
    """Run a submission's file and check its functions.

    From then on the modules that belong to the submission can be imported in this process (see
    `siblings`).

    Args:
        outline: The submission's outline.
        framework: The framework of the trial.

    Raises:
        UserError: The file raises an error, or one of its functions takes unknown arguments. The
            message names the file and the line.
    """
    contract = _contract(outline, framework)
    uses_removed = outline.is_full_form and submission_source.uses_removed_names(outline.path)
    prepare = older.preparation(contract, framework, uses_removed)
    imported = sorted(submission_source.imported_names(outline.path))
    files = submission_source.source_files(outline.path)
    folders = sorted({file.parent for file in files.values()} - {outline.path.parent})
    package = f"_submission_{outline.name}"
    beside = siblings.Beside(outline.path, imported, prepare, folders, package)
    if framework == "pytorch" and any(name.startswith("torch.distributed") for name in imported):
        pytorch_utils.start_group_of_one()
    before = set(sys.modules)
    stand_ins.install()
    sys.meta_path.insert(0, beside)  # It stays there, since functions may import later.
    try:
        module = _run_main_file(outline, package, beside.prepare)
    except (Exception, SystemExit) as error:
        last = last_frame(error, functools.partial(is_own, outline))
        where = str(outline.path) if last is None else f"{last.filename}:{last.lineno}"
        unmet = requirements.unmet_text(outline.path) if isinstance(error, ImportError) else ""
        parts = filter(None, (cause_of(error), unmet))
        raise UserError(f"submission {where}: {'; '.join(parts)}") from error
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
    files |= _loaded_files(outline.path, set(sys.modules) - before)
    logs = _useless_logging_line(outline, contract) is None
    return Submission(outline, module, functions, files, contract, logs)


def _run_main_file(outline: Outline, package: str, prepare: siblings.Prepare) -> ModuleType:
    """Run the main file as a module of a package of its own, so that it can import relatively."""
    above = importlib.machinery.ModuleSpec(package, None, is_package=True)
    above.submodule_search_locations = [str(outline.path.parent)]
    sys.modules[package] = importlib.util.module_from_spec(above)
    name = f"{package}.{outline.path.stem}"
    loader = siblings.Loader(name, str(outline.path), prepare, {})
    spec = importlib.util.spec_from_file_location(name, outline.path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def function_of(call: Callable[..., Any]) -> Function:
    """Return a function of this library as a `Function`."""
    return Function(call, frozenset(introspection.signature(call).parameters))


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
    """Return the imported files of the submission, even if only running it shows their names."""
    files = {}
    for name in loaded:
        module = sys.modules.get(name)
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if isinstance(loader, siblings.Loader) and loader.path:
            file = Path(loader.path)
            files[submission_source.key(path.parent, file)] = file
    return files

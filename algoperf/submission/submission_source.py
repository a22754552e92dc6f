"""What a submission's source says without being run: what it defines, what it imports, and which
files belong to it.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from algoperf.backends import FRAMEWORKS
from algoperf.errors import UserError
from algoperf.submission import requirements, search_space, siblings
from algoperf.submission.older import Contract
from algoperf.submission.older.names import GONE, PACKAGE
from algoperf.submission.siblings import Imports


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file; UserError naming the line where it does not parse."""
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise UserError(f"submission {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"submission {path}:{line}: {getattr(error, 'msg', error)}") from error


def top_level_names(tree: ast.Module) -> set[str]:
    """The names that a module defines or mentions at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        else:
            names.update(child.id for child in ast.walk(node) if isinstance(child, ast.Name))
    return names


def literal(tree: ast.Module, name: str) -> Any:
    """The value of a top-level `name = ...` where it is a literal, else None."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            try:
                return ast.literal_eval(node.value)
            except (ValueError, TypeError):
                return None
    return None


def imported_frameworks(path: Path) -> list[str]:
    """The frameworks that a file imports, or, where it imports none, those of the files that belong
    to it; all where they import none either.
    """
    for names in (_imports_of(path).absolute, imported_names(path)):
        roots = _roots(names)
        imported = [name for name, packages in FRAMEWORKS.items() if roots & set(packages)]
        if "pytorch" in imported and not roots & {"jax", "flax"}:
            return ["pytorch"]  # optax alone gives PyTorch's published ones their schedules
        if imported:
            return imported
    return list(FRAMEWORKS)


def contract_of(path: Path, framework: str) -> Contract:
    """The generation of a submission's contract, seen from its imports and from `pmap`.

    The older package's name, anywhere in the submission's files, means the older contract; so does
    `pmap` in its main file, as submissions were between the two.
    """
    older = PACKAGE in _roots(imported_names(path)) or _mentions_pmap(path)
    device_axis = framework == "jax" and older and any(map(_mentions_pmap, _python_files(path)))
    return Contract(older, device_axis)


def uses_removed_names(path: Path) -> bool:
    """Whether a submission's files mention a name that JAX or NumPy has no more."""
    return any(_mentions_removed(file) for file in _python_files(path))


def indexes_a_logged_scalar(path: Path) -> int | None:
    """The line where a training scalar is indexed as it is logged, as `loss[0]`, else None.

    Right under `pmap`, where it has an axis of devices; elsewhere it raises.
    """
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "append_scalar_metrics":
            for child in ast.walk(node):
                if (
                    isinstance(child, ast.Subscript)
                    and isinstance(child.value, ast.Name)
                    and isinstance(child.slice, ast.Constant)
                    and child.slice.value == 0
                ):
                    return child.lineno
    return None


def source_hash(path: Path) -> str:
    """SHA-256 over a submission's files, the first 16 hex digits; nothing of it is run."""
    digest = hashlib.sha256()
    for name, file in sorted(source_files(path).items()):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def source_files(path: Path) -> dict[str, Path]:
    """The submission's file, its search space and requirements, and the modules that it imports
    from its own folder, anywhere in its code, however it names them (see `siblings`).

    Keys are paths relative to its folder; a file above the folder is keyed by its import's name. Of
    an imported package all files belong to it.
    """
    beside = siblings.Beside(path.parent)
    files: dict[str, Path] = {}
    waiting = [(name, path.with_name(name)) for name in (path.name, requirements.FILE_NAME)]
    space = search_space.file_of(path)
    waiting += [] if space is None else [(search_space.FILE_NAME, space)]
    while waiting:
        name, file = waiting.pop()
        if name in files or not file.is_file():
            continue
        files[name] = file
        waiting += [
            (key(path.parent, module), module)
            for location in beside.places(_imports_of(file), file)
            for module in _modules(location)
        ]
    return files


def imported_names(path: Path) -> set[str]:
    """The absolute names that the submission's files import."""
    return {name for file in _python_files(path) for name in _imports_of(file).absolute}


def _python_files(path: Path) -> Iterator[Path]:
    return (file for file in source_files(path).values() if file.suffix == ".py")


def _roots(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _modules(location: Path) -> Sequence[Path]:
    return [location] if location.suffix == ".py" else sorted(location.rglob("*.py"))


def key(folder: Path, file: Path) -> str:
    """How a run names one of the files of the submission in `folder`."""
    if file.is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    shared = next(parent for parent in folder.parents if file.is_relative_to(parent))
    return f"outside/{file.relative_to(shared).as_posix()}"


def _imports_of(file: Path) -> Imports:
    if file.suffix != ".py":
        return Imports()
    try:
        return _imports(file, file.stat().st_mtime_ns)
    except (UserError, OSError):  # if it matters, the import will say so
        return Imports()


@functools.lru_cache(maxsize=256)
def _imports(file: Path, _changed_ns: int) -> Imports:
    """What a file imports, inside functions as well."""
    absolute: set[str] = set()
    relative: set[tuple[int, str]] = set()
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            absolute.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module] if node.module else []
            modules += [".".join([*modules[:1], alias.name]) for alias in node.names]
            if node.level:
                relative.update((node.level, module) for module in modules)
            else:
                absolute.update(modules)
    return Imports(frozenset(absolute), frozenset(relative))


def _mentions_pmap(file: Path) -> bool:
    return any(getattr(node, "attr", getattr(node, "id", None)) == "pmap" for node in _nodes(file))


def _mentions_removed(file: Path) -> bool:
    """Attributes, names that an import takes from a module, and keywords."""
    return any(
        getattr(node, "attr", None) in GONE
        or (isinstance(node, ast.alias) and node.name in GONE)
        or (isinstance(node, ast.keyword) and node.arg in GONE)
        for node in _nodes(file)
    )


def _nodes(file: Path) -> Iterator[ast.AST]:
    """The syntax tree's nodes; none where it does not parse."""
    try:
        yield from ast.walk(parse(file))
    except UserError:
        return

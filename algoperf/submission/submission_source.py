"""Read a submission's source without running it.

The functions tell what it defines, what it imports, and which files belong to it.
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
    """Return the syntax tree of a Python file.

    Raises:
        UserError: The file cannot be read or does not parse; the message names the line.
    """
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise UserError(f"submission {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"submission {path}:{line}: {getattr(error, 'msg', error)}") from error


def top_level_names(tree: ast.Module) -> set[str]:
    """Return the names that a module defines or mentions at its top level."""
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
    """Return the value of a top-level assignment `name = ...`, or None if it is not a literal."""
    value = _assigned(tree, name)
    try:
        return None if value is None else ast.literal_eval(value)
    except (ValueError, TypeError):
        return None


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """Return what a name is assigned to at the top level, with or without an annotation."""
    for node in tree.body:
        targets: Sequence[ast.expr] = ()
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = (node.target,)
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            return node.value
    return None


def imported_frameworks(path: Path) -> list[str]:
    """Return the frameworks that a full-form submission supports, judged by its imports.

    They are those that the main file imports. If it imports none, they are those that the other
    files import; if these import none either, they are all. A file that imports PyTorch together
    with optax but neither jax nor flax is PyTorch's: published submissions take their schedules
    from optax.
    """
    for names in (_imports_of(path).absolute, imported_names(path)):
        roots = _roots(names)
        imported = [name for name, packages in FRAMEWORKS.items() if roots & set(packages)]
        if "pytorch" in imported and not roots & {"jax", "flax"}:
            return ["pytorch"]  # Published PyTorch submissions take their schedules from optax.
        if imported:
            return imported
    return list(FRAMEWORKS)


def contract_of(path: Path, framework: str) -> Contract:
    """Return the generation of the published contract that a submission is written for.

    The older package's name in any of its files means the older contract. So does `pmap` in its
    main file, as submissions had it between the two contracts.

    Args:
        path: The submission's main file.
        framework: The framework of the run.
    """
    older = PACKAGE in _roots(imported_names(path)) or _mentions_pmap(path)
    device_axis = framework == "jax" and older and any(map(_mentions_pmap, _python_files(path)))
    return Contract(older, device_axis)


def uses_removed_names(path: Path) -> bool:
    """Return whether the submission's files mention a name that JAX or NumPy has removed."""
    return any(_mentions_removed(file) for file in _python_files(path))


def indexes_a_logged_scalar(path: Path) -> int | None:
    """Return the line where the main file indexes a training scalar as it logs it, as `loss[0]`.

    Under `pmap` this is right, since the scalar has an axis of devices; elsewhere it raises an
    error.

    Returns:
        The number of the line, or None.
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
    """Return a hash of a submission's source.

    It is the first 16 hex digits of the SHA-256 over the names and bytes of all its files. None of
    them is run.
    """
    digest = hashlib.sha256()
    for name, file in sorted(source_files(path).items()):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def source_files(path: Path) -> dict[str, Path]:
    """Return all files that belong to a submission.

    These are its main file, its search space and requirements, and the modules of its own folder
    that it imports anywhere in its code, by whichever name (see `siblings`). Of an imported package
    all files belong to it.

    Args:
        path: The submission's main file.

    Returns:
        The files by their key: the path relative to the submission's folder, or, for a file outside
        that folder, what `key` returns.
    """
    beside = siblings.Beside(path)
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
    """Return the absolute names that the submission's files import."""
    return {name for file in _python_files(path) for name in _imports_of(file).absolute}


def _python_files(path: Path) -> Iterator[Path]:
    return (file for file in source_files(path).values() if file.suffix == ".py")


def _roots(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _modules(location: Path) -> Sequence[Path]:
    return [location] if location.suffix == ".py" else sorted(location.rglob("*.py"))


def key(folder: Path, file: Path) -> str:
    """Return the name under which a run keeps one of the submission's files.

    Args:
        folder: The submission's folder.
        file: The file.

    Returns:
        The path relative to `folder`; for a file that is not below it, 'outside/' and the path
        relative to the nearest folder above both.
    """
    if file.is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    shared = next(parent for parent in folder.parents if file.is_relative_to(parent))
    return f"outside/{file.relative_to(shared).as_posix()}"


def _imports_of(file: Path) -> Imports:
    if file.suffix != ".py":
        return Imports()
    try:
        return _imports(file, file.stat().st_mtime_ns)
    except (UserError, OSError):  # If it matters, running the submission reports it.
        return Imports()


@functools.lru_cache(maxsize=256)
def _imports(file: Path, _changed_ns: int) -> Imports:
    """Return the modules that a file imports, including the imports inside functions."""
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
    """Return whether a file has a removed name as an attribute, in an import or as a keyword."""
    return any(
        getattr(node, "attr", None) in GONE
        or (isinstance(node, ast.alias) and node.name in GONE)
        or (isinstance(node, ast.keyword) and node.arg in GONE)
        for node in _nodes(file)
    )


def _nodes(file: Path) -> Iterator[ast.AST]:
    """Yield the nodes of a file's syntax tree; none where it does not parse."""
    try:
        yield from ast.walk(parse(file))
    except UserError:
        return

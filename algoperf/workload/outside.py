"""Workloads outside the tree: a folder given by its path, or an installed package's entry point.

Such a folder is a package as those below `workloads` are: its `__init__.py` defines `WORKLOAD` with
`package=__name__`, and beside it are `data.py` and `model_jax.py` or `model_torch.py`, or both. A
folder given by its path is loaded under a module name of its own, made of the path and the source:
two folders of one name, and two versions of one folder, do not get in each other's way.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import own_code
from algoperf.workload.definition import Outside, WorkloadDefinition

GROUP = "algoperf.workloads"  # of entry points
MODELS = {"jax": "model_jax.py", "pytorch": "model_torch.py"}
PREFIX = "algoperf_workload_"


def load(folder: Path) -> WorkloadDefinition:
    """Return the workload of a folder; of its modules only `__init__` is run, and once.

    Raises:
        UserError: There is no such folder, or it defines no workload; the message names the file,
            and the line where one is to blame.
    """
    if not folder.is_dir():
        is_file = "is a file, expected a folder with an __init__.py that defines WORKLOAD"
        raise UserError(f"workload {folder}: {is_file if folder.exists() else 'no such folder'}")
    folder = folder.resolve()
    main = folder / "__init__.py"
    if not main.is_file():
        raise UserError(f"workload {folder}: no __init__.py in it, which would define WORKLOAD")
    source_hash = hash_of(folder)
    where = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    name = f"{PREFIX}{where}_{source_hash}"
    with _blaming(folder, name):
        module = sys.modules.get(name) or _run(name, main)
    definition = _defined(module, main)
    return dataclasses.replace(definition, outside=Outside(str(folder), folder, source_hash))


def installed_names() -> list[str]:
    """Return the names of the entry points of `GROUP`, in alphabetical order; none is loaded."""
    return sorted({entry.name for entry in metadata.entry_points(group=GROUP)})


def load_installed(name: str) -> WorkloadDefinition:
    """Return the workload of one of `installed_names()`.

    Raises:
        UserError: What the entry point names cannot be imported, or is no workload of its name.
    """
    entry = next(each for each in metadata.entry_points(group=GROUP) if each.name == name)
    what = f"workload {name} (entry point {entry.value})"
    try:
        loaded = entry.load()
    except Exception as error:
        raise UserError(f"{what} cannot be loaded: {_cause(error)}") from error
    if isinstance(loaded, ModuleType):
        loaded = getattr(loaded, "WORKLOAD", None)
    if not isinstance(loaded, WorkloadDefinition):
        raise UserError(f"{what} is no WorkloadDefinition, nor a module with WORKLOAD")
    if loaded.name != name:
        raise UserError(f"{what} has the name {loaded.name!r}; give both the same")
    module = importlib.import_module(loaded.package)
    if module.__file__ is None:
        raise UserError(f"{what}: package {loaded.package!r} has no __init__.py")
    folder = Path(module.__file__).parent
    return dataclasses.replace(loaded, outside=Outside(name, folder, hash_of(folder)))


def hash_of(folder: Path) -> str:
    """Return SHA-256 over the names and bytes of a folder's Python files, 16 hex digits of it."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def check_unchanged(definition: WorkloadDefinition, source_hash: str | None) -> None:
    """Raise UserError where the source is another one than what a run was begun with."""
    if definition.outside is not None and definition.outside.source_hash != source_hash:
        raise UserError(
            f"workload {definition.outside.folder}: its files were changed after the run was "
            "started; start it again"
        )


def has_model(definition: WorkloadDefinition, framework: str) -> bool:
    """Return whether a workload has a model in that framework; those in the tree have."""
    if definition.outside is None:
        return True
    return (definition.outside.folder / MODELS[framework]).is_file()


def check_model(definition: WorkloadDefinition, framework: str) -> None:
    """Raise UserError where a workload outside the tree has no model in that framework."""
    if not has_model(definition, framework):
        assert definition.outside is not None
        folder = definition.outside.folder
        served = [name for name in MODELS if has_model(definition, name)]
        has = f"it has a model in {served[0]}" if served else "it has no model at all"
        raise UserError(
            f"workload {folder}: no {MODELS[framework]}, which a run in {framework} needs; {has}"
        )


@contextlib.contextmanager
def blaming(definition: WorkloadDefinition) -> Iterator[None]:
    """Raise what a workload outside the tree raises in its own files as a UserError of one line.

    Errors that none of its files has a part in go on as they are; so do those of other workloads.
    """
    if definition.outside is None:
        yield
    else:
        with _blaming(definition.outside.folder, definition.package):
            yield


@contextlib.contextmanager
def _blaming(folder: Path, package: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = _blame(error, folder, package)
        if text is None:
            raise
        raise UserError(f"workload {text}") from error


def _blame(error: Exception, folder: Path, package: str) -> str | None:
    """What went wrong in which of the folder's files and where; None if in none of them."""
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_relative_to(folder):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if Path(each.filename).is_relative_to(folder)]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(folder)
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        parent, _, module = error.name.rpartition(".")
        if parent == package:
            return f"{where}: no {module}.py in it"
        if error.name.partition(".")[0] == folder.name:
            return f"{where}: {error.msg}; import its own files relatively: from . import ..."
    # What is called with arguments that it does not take never gets a frame of its own.
    last = Path(frames[-1].filename).resolve() if frames else None
    is_call = isinstance(error, TypeError) and last is not None and own_code.is_ours(last)
    return f"{where}: {_cause(error)}" if own or is_call else None


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])[:300]


def _run(name: str, main: Path) -> ModuleType:
    """Import the package in whose folder `main` is, under a name."""
    spec = importlib.util.spec_from_file_location(
        name, main, submodule_search_locations=[str(main.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [each for each in sys.modules if f"{each}.".startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


def _defined(module: ModuleType, main: Path) -> WorkloadDefinition:
    """The definition of a module, if it is one that can be used."""
    definition: Any = getattr(module, "WORKLOAD", None)
    if definition is None:
        raise UserError(f"workload {main}: it defines no WORKLOAD")
    if not isinstance(definition, WorkloadDefinition):
        kind = type(definition).__name__
        raise UserError(f"workload {main}: WORKLOAD is a {kind}, expected a WorkloadDefinition")
    if definition.package != module.__name__:
        raise UserError(
            f"workload {main}: WORKLOAD has the package {definition.package!r}; write "
            "package=__name__"
        )
    return definition


def check_name(definition: WorkloadDefinition, taken: Collection[str]) -> None:
    """Raise UserError where a workload's name can be none, or is that of one in the tree."""
    assert definition.outside is not None
    where = f"workload {definition.outside.folder / '__init__.py'}: its name {definition.name!r}"
    if not isinstance(definition.name, str) or not definition.name.isidentifier():
        raise UserError(f"{where} is none: expected letters, digits and '_', no digit first")
    if definition.name in taken:
        raise UserError(f"{where} is that of a workload of the library; choose another")

"""Let a submission import its own modules, although its folder is not on Python's path.

A published submission imports its own files in three ways: as a module beside it (`import helper`,
`import optimizers.shampoo`), relatively (`from . import helper`), or by the path that it had in
the repository it came from (`from submissions.self_tuning.mine.helper import ...`).

A module beside it may have a name that the library itself imports in this process, such as
`scoring` or `statistics`. The submission's own files then get the submission's module, and all
others the usual one: each of its files runs with an `__import__` of its own (`Beside.prepare`).

The last way is resolved by location. What counts is the part of the name after the submission's
own folder, or after a folder above it of the same name. Where the folder was renamed, it is the
end of the name that is a file below the folder.

A file that is imported by several of these names is one module, which has the first one's name.
Published submissions mix the ways, and compare classes that the same file gave them.
"""

import builtins
import dataclasses
import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from algoperf.backends import FRAMEWORKS
from algoperf.machine import own_code

# These names mean the same to a submission as to us, also where a module beside it has one: it may
# be made of files that are named for the frameworks, and import the frameworks themselves.
KEPT = frozenset(
    {
        *("__future__", "__main__", "numpy", *sys.builtin_module_names),
        *(package for packages in FRAMEWORKS.values() for package in packages),
    }
)
# These we may import at any time after the submission. A module beside it can have such a name, but
# under that name nobody else sees it.
RESERVED = (
    sys.stdlib_module_names
    | KEPT
    | {
        *("algoperf", "reference_algorithms", "scoring", "workloads"),
        *("datasets", "psutil", "scipy", "sklearn", "tensorboard", "tokenizers"),
    }
)
# Folders of these names are taken for clones of this library, or of AlgoPerf, that it may lie in.
CLONED = frozenset({"algoperf", "reference_algorithms"})
Prepare = Callable[[ModuleType], None]


@dataclasses.dataclass(frozen=True)
class Imports:
    """The modules that a file may import.

    For `from a import b` both `a` and `a.b` are listed, since `b` may be a module.

    Attributes:
        absolute: The names of absolute imports.
        relative: The level (the number of leading dots) and the name of relative imports.
    """

    absolute: frozenset[str] = frozenset()
    relative: frozenset[tuple[int, str]] = frozenset()


class Beside:
    """A finder for `sys.meta_path` that finds the modules of one submission.

    A folder without `__init__` is used only if no package of its name is installed, and before a
    folder of that name elsewhere. A module with one of the names RESERVED is not found here, but
    by the import statements of the submission's own files (`importlib.import_module` finds the
    usual one).

    Args:
        main: The submission's main file.
        imported: The absolute names that the submission's files import.
        prepare: Called with each module of the submission before it runs.
        folders: The folders of its other files. A name is looked for there if it is neither in
            the main file's folder nor installed.
        package: The package as whose modules the submission's files can be imported.
    """

    def __init__(
        self,
        main: Path,
        imported: Sequence[str] = (),
        prepare: Prepare = lambda module: None,
        folders: Sequence[Path] = (),
        package: str = "",
    ) -> None:
        self._folder = main.parent
        self._folders = folders
        self._prepare = prepare
        self._package = package
        self._hidden = _hidden_modules(main)
        self._located: dict[str, Path] = {}
        self._prefixes: set[str] = set()
        self._loaded: dict[str, ModuleType] = {}
        for name in imported:
            self._locate(name)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the specification of a module of the submission, or None for any other module.

        The arguments are those of `importlib.abc.MetaPathFinder.find_spec`.
        """
        location = self._located.get(name)
        if location is not None:
            return self._spec(name, location)
        if path is None and name not in RESERVED and (spec := self._top_level(name)) is not None:
            return self._own(spec)
        if name in self._prefixes and not _has_package(name, path):
            return _folder_spec(name, [])
        if path is not None and any(self._is_own(entry) for entry in path):
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            return None if spec is None else self._own(spec)
        return None

    def prepare(self, module: ModuleType) -> None:
        """Prepare a module of the submission, which has not run yet."""
        self._prepare(module)
        if self._hidden:
            usual = module.__dict__.get("__builtins__", vars(builtins))
            own_import = self._importing(usual["__import__"])
            module.__dict__["__builtins__"] = {**usual, "__import__": own_import}

    def _importing(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        """Return an `__import__` that finds the hidden modules, and the others as usual."""

        def own_import(
            name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
        ) -> Any:
            if level or not self._is_hidden(name):
                return usual(name, globals, locals, fromlist, level)
            importlib.import_module(f"{self._package}.{name}")
            if fromlist:  # These may be modules, too.
                return usual(f"{self._package}.{name}", globals, locals, fromlist, 0)
            return sys.modules[f"{self._package}.{name.partition('.')[0]}"]

        return own_import

    def _is_hidden(self, name: str) -> bool:
        """Return whether a dotted name is a hidden module, or in a hidden package."""
        top, dot, _ = name.partition(".")
        location = self._hidden.get(top)
        return location is not None and (not dot or location.is_dir())

    def places(self, imports: Imports, file: Path) -> Iterator[Path]:
        """Yield the submission's own files and folders that one of its files imports.

        Args:
            imports: The modules that the file imports.
            file: The file.
        """
        for name in imports.absolute:
            top = name.partition(".")[0]
            located = self._by_location(name)
            if located is not None:
                yield located
            elif top not in RESERVED:
                yield from filter(None, [_module_at(self._folder / top)])
            elif self._is_hidden(name):
                yield self._hidden[top]
        for level, name in imports.relative:
            base = file.parents[level - 1]
            if base.is_relative_to(self._folder):
                parts = name.split(".")
                ends = (base.joinpath(*parts[:end]) for end in range(len(parts), 0, -1))
                yield from filter(None, [next(filter(None, map(_module_at, ends)), None)])

    def _locate(self, name: str) -> None:
        """Record the location of a module that is imported by its path in the old repository."""
        location = self._by_location(name)
        if location is None:
            return
        self._located[name] = location
        parts = name.split(".")
        self._prefixes.update(".".join(parts[:end]) for end in range(1, len(parts)))

    def _by_location(self, name: str) -> Path | None:
        """Return the file or folder that a dotted name means by its location, or None."""
        top, *rest = parts = name.split(".")
        if not rest or top in RESERVED - {"reference_algorithms"}:
            return None
        if _module_at(self._folder / top) is not None or _is_installed(top):
            return None  # An ordinary import finds it by its top-level name.
        ends = [parts[index:] for index in range(1, len(parts))]
        after = (
            above.joinpath(*end)
            for above in (self._folder, *self._folder.parents)
            for before, end in zip(parts, ends, strict=False)
            if before == above.name
        )
        below = (self._folder.joinpath(*end) for end in ends)
        return next(filter(None, map(_module_at, (*after, *below))), None)

    def _top_level(self, name: str) -> importlib.machinery.ModuleSpec | None:
        """Find a top-level module of the submission.

        A module beside the main file comes before an installed one. A folder there without
        `__init__`, and a module in the folder of another file, are used only if no package of that
        name is installed.
        """
        find = importlib.machinery.PathFinder.find_spec
        beside = find(name, [str(self._folder)])
        if beside is not None and beside.origin is not None:
            return beside
        if _is_installed(name):
            return None
        spec = beside or find(name, [str(folder) for folder in self._folders])
        if spec is None or spec.origin is not None:
            return spec
        return _folder_spec(name, list(spec.submodule_search_locations or []))

    def _is_own(self, entry: str) -> bool:
        folder = Path(entry)
        return folder.is_relative_to(self._folder) or any(
            folder.is_relative_to(located.parent) for located in self._located.values()
        )

    def _spec(self, name: str, location: Path) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, [str(location.parent)])
        if spec is None or spec.origin is None:
            return _folder_spec(name, [str(location)])
        return self._own(spec)

    def _own(self, spec: importlib.machinery.ModuleSpec) -> importlib.machinery.ModuleSpec:
        if isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            name, path = spec.loader.name, spec.loader.path
            spec.loader = Loader(name, path, self.prepare, self._loaded)
        return spec


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module of a submission, and calls `prepare` with it before it runs.

    Args:
        name: The module's name.
        path: Its file.
        prepare: Called with the module before it runs.
        loaded: The submission's modules that have run, by file.
    """

    def __init__(
        self, name: str, path: str, prepare: Prepare, loaded: dict[str, ModuleType]
    ) -> None:
        super().__init__(name, path)
        self._prepare = prepare
        self._loaded = loaded

    def exec_module(self, module: Any) -> None:
        """Prepare the module and run it; if its file has run by another name, use that module."""
        if self.path in self._loaded:
            sys.modules[module.__name__] = self._loaded[self.path]  # The import returns this one.
            return
        self._prepare(module)
        super().exec_module(module)
        self._loaded.setdefault(self.path, module)


def _hidden_modules(main: Path) -> dict[str, Path]:
    """Return the modules beside a main file that have RESERVED names, by these names.

    They are files, and folders with `__init__`. The main file itself is none, nor are the packages
    of this library, or of a clone of AlgoPerf, in whose root a submission may lie.
    """
    hidden = {}
    for location in sorted(main.parent.iterdir()) if main.parent.is_dir() else ():
        name = location.name.removesuffix(".py")
        if name not in RESERVED - KEPT or location == main:
            continue
        is_package = (location / "__init__.py").is_file()
        is_clone = name in CLONED or location == own_code.PACKAGE.parent / name
        if is_package and not is_clone:
            hidden[name] = location  # As in Python, a package comes before a file.
        elif location.suffix == ".py" and location.is_file():
            hidden.setdefault(name, location)
    return hidden


def _is_installed(top: str) -> bool:
    """Return whether a package of that name is installed.

    `reference_algorithms`, which is this library's own, counts as not installed.
    """
    if top == "reference_algorithms":
        return False
    spec = importlib.machinery.PathFinder.find_spec(top)
    return spec is not None and spec.origin is not None


def _has_package(name: str, path: Sequence[str] | None) -> bool:
    """Return whether one of the folders in `path` has a package of that name.

    Only a package can hold other modules.
    """
    spec = importlib.machinery.PathFinder.find_spec(name, path) if path else None
    return spec is not None and spec.submodule_search_locations is not None


def _folder_spec(name: str, places: list[str]) -> importlib.machinery.ModuleSpec:
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = places
    return spec


def _module_at(location: Path) -> Path | None:
    """Return the folder or the file `<location>.py` that an import would find there, or None.

    Like an import, it prefers a package, then the file, then a folder without `__init__`.
    """
    file = location.with_name(f"{location.name}.py")
    if not (location / "__init__.py").is_file() and file.is_file():
        return file
    return location if location.is_dir() else None

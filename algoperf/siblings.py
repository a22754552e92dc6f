"""Modules that lie beside a submission file, importable by it while its folder is on no path."""

import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from algoperf.backends import FRAMEWORKS

# Names that a module beside a submission cannot have: we may import them after it was loaded.
RESERVED = sys.stdlib_module_names | {
    *("algoperf", "reference_algorithms", "scoring", "workloads", "__main__"),
    *(package for packages in FRAMEWORKS.values() for package in packages),
    *("datasets", "numpy", "psutil", "scipy", "sklearn", "tensorboard", "tokenizers"),
}


class Beside:
    """Finds top-level modules in the submission's folder, but for names that would break what runs
    it.

    The standard library, our own packages and those that we import late keep their names; a folder
    without `__init__` gives way to an installed package, and comes before a folder elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where the module is, if it is in the folder and its name is not reserved."""
        if path is not None or name in RESERVED:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, [self._folder], target)
        if found is None or found.origin is not None:
            return found
        elsewhere = importlib.machinery.PathFinder.find_spec(name)
        if elsewhere is not None and elsewhere.origin is not None:
            return None
        folder = importlib.machinery.ModuleSpec(name, None, is_package=True)
        folder.submodule_search_locations = [str(Path(self._folder, name))]
        return folder

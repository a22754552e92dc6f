"""Locate this library's own code, and start another Python process that can import it."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def is_ours(file: Path) -> bool:
    """Return whether a file is part of the package `algoperf`."""
    return file.is_relative_to(PACKAGE)


def program(module: str, arguments: str = "") -> list[str]:
    """Return the command of a process that calls a module's `main` and exits with its return value.

    The process finds the library at the same place as this one did. That place is last on its path,
    after the environment's own packages, and the folder in which it is started is not on it.

    Args:
        module: The dotted name of a module of this library.
        arguments: The arguments of `main` as Python source.
    """
    code = (
        f"import sys; sys.path += [path for path in {[str(PACKAGE.parent)]!r} "
        f"if path not in sys.path]; import {module} as module; sys.exit(module.main({arguments}))"
    )
    return [sys.executable, "-P", "-c", code]

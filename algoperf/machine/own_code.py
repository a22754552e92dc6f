"""Where this library's own code is, and how another Python process is started that finds it."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def is_ours(file: Path) -> bool:
    """Whether a file is part of the package `algoperf`."""
    return file.is_relative_to(PACKAGE)


def program(module: str, arguments: str = "") -> list[str]:
    """Return the command of a process that calls a module's `main` and exits with what it returns.

    The process finds the library where this one did: last on its path, behind the environment's
    own packages, and not in the folder that it is started in.

    Args:
        module: The dotted name of a module of ours.
        arguments: What `main` is called with, as Python's source.
    """
    code = (
        f"import sys; sys.path += [path for path in {[str(PACKAGE.parent)]!r} "
        f"if path not in sys.path]; import {module} as module; sys.exit(module.main({arguments}))"
    )
    return [sys.executable, "-P", "-c", code]

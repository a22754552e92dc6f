"""Locate this library's own code, and start another Python process that can import it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def is_ours(file: Path) -> bool:
    """Return whether a file is part of the package `algoperf`."""
    return file.is_relative_to(PACKAGE)


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Let Python processes that are started in the block import the library, wherever it is.

    The server of `multiprocessing` does not take over the path of the process that starts it before
    Python 3.12.8 (github.com/python/cpython/issues/117378), and says nothing of modules that it
    cannot preload.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (before, str(PACKAGE.parent))))
    try:
        yield
    finally:
        restore_path(before)


def restore_path(before: str | None) -> None:
    """Set PYTHONPATH to what it was, None for not set."""
    if before is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = before


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

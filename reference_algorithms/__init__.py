"""The reference algorithms: one file each, in the optimizer form, with its search space."""

import ast
import pathlib

from algoperf.spec import UserError

_FOLDER = pathlib.Path(__file__).parent
_HELPERS = ("__init__", "schedules")


def names() -> list[str]:
    """The algorithms that this installation has."""
    return sorted(file.stem for file in _FOLDER.glob("*.py") if file.stem not in _HELPERS)


def path(name: str) -> pathlib.Path:
    """Return the file of the algorithm of that name; raise UserError where there is none."""
    if name not in names():
        allowed = ", ".join(names())
        raise UserError(f"unknown reference algorithm {name!r} (one of: {allowed})")
    return _FOLDER / f"{name}.py"


def summary(name: str) -> str:
    """Return the first line of the algorithm's docstring; its file is parsed, not run."""
    docstring = ast.get_docstring(ast.parse(path(name).read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]

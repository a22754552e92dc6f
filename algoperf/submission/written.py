"""Write a submission that is given as a module or as functions to a file, as from a notebook.

A trial runs in a process of its own and loads its submission from a file, which the run folder
keeps. So functions are written to a file together with what they use: imports, other functions
and classes, and plain values.
"""

import ast
import builtins
import dis
import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from algoperf.errors import UserError
from algoperf.run_folder import writing
from algoperf.submission.loading import ARGUMENTS

CONSTANTS = ("DEFAULTS", "SEARCH_SPACE")
Given = str | Path | ModuleType | Sequence[Callable[..., Any]] | Mapping[str, Any]


def path_of(given: Given, folder: Path, name: str = "notebook") -> str:
    """Return the path or name, for `loading.locate`, of a submission that is given in any form.

    Args:
        given: A path or a reference algorithm's name; a module; functions that have the names of
            the contract; or a mapping from the contract's names to functions, and to the values of
            DEFAULTS and SEARCH_SPACE.
        folder: Where a file is written for functions. The file is kept, since a run that is
            continued later reads it again.
        name: The submission's name where functions are given.

    Raises:
        UserError: It is none of these, or a function uses something that cannot be written to a
            file.
    """
    if isinstance(given, str | Path):
        return str(given)
    if isinstance(given, ModuleType):
        if getattr(given, "__file__", None) is None:
            raise UserError(
                f"submission {given.__name__}: a module without a file; give its functions"
            )
        return str(given.__file__)
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise UserError(f"submission name {name!r}: expected letters, digits and '_'")
    text = source_of(_by_name(given))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = folder / digest / f"{name}.py"
    if not path.exists():
        writing.make_folder("out", path.parent)
        with writing.asked("out", path):
            path.write_text(text, "utf-8")
    return str(path)


def _by_name(given: Any) -> dict[str, Any]:
    allowed = (*ARGUMENTS, *CONSTANTS)
    members = (given,) if callable(given) else given
    if isinstance(members, Sequence) and all(callable(each) for each in members):
        members = {getattr(each, "__name__", repr(each)): each for each in members}
    if not isinstance(members, Mapping) or not members:
        raise UserError(
            f"a submission is given as {type(given).__name__}; expected a path, a name, a module, "
            "functions, or a mapping from the contract's names to functions"
        )
    for name in members:
        if name not in allowed:
            raise UserError(f"a submission has no {name!r}; it has: {', '.join(allowed)}")
    return dict(members)


def source_of(members: Mapping[str, Any]) -> str:
    """Return the source of a module that has these members and everything that they use.

    In the optimizer form, DEFAULTS is added as an empty dict where it is missing.

    Args:
        members: Functions and plain values by the name that they have in the module.

    Raises:
        UserError: A function's source cannot be found, or it uses a value that is not a plain one.
    """
    writer = _Writer()
    for name, value in members.items():
        writer.add(name, value)
    if any(name.endswith("_optimizer") for name in members) and "DEFAULTS" not in members:
        writer.add("DEFAULTS", {})
    return writer.text()


class _Writer:
    """Collects imports, plain values, and functions in the order in which they can be defined."""

    def __init__(self) -> None:
        self._imports: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._definitions: dict[str, str] = {}
        self._taken: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """Add a value to the module under this name, with everything that it uses."""
        if name in self._taken:
            if self._taken[name] is not value:
                raise UserError(f"a submission's functions use two different {name!r}")
            return
        self._taken[name] = value
        if isinstance(value, ModuleType):
            self._imports[name] = f"import {value.__name__} as {name}"
        elif isinstance(value, FunctionType | type) and _is_written_here(value):
            self._define(name, value)
        elif isinstance(value, FunctionType | type) or callable(value):
            module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
            if module is None or "." in own or not own:
                raise _no_file(name, value)
            self._imports[name] = f"from {module} import {own} as {name}"
        else:
            self._values[name] = f"{name} = {_plain(name, value)}"

    def _define(self, name: str, value: Any) -> None:
        try:
            source = textwrap.dedent(inspect.getsource(value))
            tree = ast.parse(source)
        except (OSError, TypeError, SyntaxError) as error:
            raise UserError(f"submission: the source of {name} is not at hand ({error})") from error
        if not isinstance(tree.body[0], ast.FunctionDef | ast.ClassDef):
            raise UserError(f"submission: {name} is no function with a def of its own")
        for used, other in _uses(value, tree):
            self.add(used, other)
        self._definitions[name] = source
        if value.__name__ != name:
            self._definitions[name] += f"\n\n{name} = {value.__name__}\n"

    def text(self) -> str:
        """Return the module's source."""
        blocks = ["\n".join(self._imports.values()), "\n".join(self._values.values())]
        blocks += [source.strip("\n") for source in self._definitions.values()]
        return "\n\n\n".join(filter(None, blocks)) + "\n"


def _is_written_here(value: Any) -> bool:
    """Return whether a function or class is the user's own: from a notebook, a script or a file.

    Installed ones are imported instead of written.
    """
    try:
        file = inspect.getfile(value)
    except TypeError:
        return bool(value.__module__ == "__main__")
    return "site-packages" not in Path(file).parts and not file.startswith(inspect.__file__[:-10])


def _uses(value: Any, tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the global names that a function or class uses, with their values."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    scope: Mapping[str, Any] = {}
    if isinstance(value, FunctionType):
        cells = inspect.getclosurevars(value).nonlocals
        scope = {**value.__globals__, **cells}
        outside = {each for code in _codes(value.__code__) for each in _globals(code)}
        header = ast.Module([*tree.body[0].decorator_list, tree.body[0].args], [])  # type: ignore[attr-defined]
        names = (
            outside
            | {*cells}
            | {node.id for node in ast.walk(header) if isinstance(node, ast.Name)}
        )
    else:
        module = inspect.getmodule(value)
        scope = {} if module is None else vars(module)
    for name in sorted(names - {value.__name__}):
        if name in scope:
            yield name, scope[name]
        elif not hasattr(builtins, name) and isinstance(value, FunctionType):
            raise UserError(f"submission: {value.__name__} uses {name}, which is not defined")


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _globals(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)


def _plain(name: str, value: Any) -> str:
    text = repr(value)
    try:
        is_same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        is_same = False
    if not is_same:
        raise _no_file(name, value)
    return text


def _no_file(name: str, value: Any) -> UserError:
    return UserError(
        f"submission: {name} is a {type(value).__name__}, which cannot be written to a file; use "
        "numbers, texts, lists and dicts, or give the submission as a file"
    )

"""Copies of a submission's file: to start from one, or with another point as its DEFAULTS."""

import ast
import shutil
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import reference_algorithms
from algoperf.errors import UserError, choose
from algoperf.run_folder import writing
from algoperf.submission import search_space, submission_source

DEFAULTS = "DEFAULTS"


def copy_algorithm(name: str, target: Path | None) -> list[Path]:
    """Copy a reference algorithm's file, and a search space beside it, to start from.

    Args:
        name: The name of the reference algorithm.
        target: A new Python file, or a folder for it; None for `my_<name>.py` in the working
            directory. An algorithm's own name would be taken for the algorithm.

    Returns:
        The files that were written.

    Raises:
        UserError: There is no such algorithm, or a file would be overwritten or cannot be written.
    """
    source = reference_algorithms.path(
        choose("submission", name.removesuffix(".py"), reference_algorithms.names())
    )
    target = Path() if target is None else target
    if target.is_dir():
        target = target / f"my_{source.stem}.py"
    pairs = [(source, target)]
    space = search_space.file_of(source)
    if space is not None:
        pairs.append((space, target.with_name(search_space.FILE_NAME)))
    for _, copy in pairs:
        check_new("--copy", copy, suffix=copy.suffix if copy is not target else ".py")
    for original, copy in pairs:
        shutil.copyfile(original, copy)
    return [copy for _, copy in pairs]


def check_new(option: str, target: Path, suffix: str = ".py") -> None:
    """Check that a file can be written that does not exist yet.

    Args:
        option: The option that named it, for the message.
        target: The file.
        suffix: What its name must end with.

    Raises:
        UserError: It exists, has another suffix, or its folder cannot be written.
    """
    if target.suffix != suffix:
        raise UserError(f"{option} {target}: expected a file that ends in {suffix}")
    if target.exists() or target.is_symlink():
        raise UserError(f"{option} {target}: exists and is not overwritten; give another name")
    writing.check_file(option, target)


def check_copies_alone(option: str, source: Path, target: Path) -> None:
    """Check that a copy of a submission's file can be loaded where it will be.

    Raises:
        UserError: The submission imports modules of its folder, and the copy is for another one.
    """
    is_ours = source.parent == reference_algorithms.path("nadamw").parent
    if is_ours or target.parent.resolve() == source.parent.resolve():
        return
    names = submission_source.source_files(source)
    beside = sorted(name for name, file in names.items() if name.endswith(".py") and file != source)
    if beside:
        raise UserError(
            f"{option} {target}: the submission imports {', '.join(beside)} from its folder; name "
            f"a file in {source.parent}"
        )


def write_with_defaults(source: Path, target: Path, point: Mapping[str, Any]) -> None:
    """Write a copy of a submission's file that has a point as its DEFAULTS.

    Args:
        source: The submission's file.
        target: The new file.
        point: The hyperparameters by name; plain values.

    Raises:
        UserError: The file cannot be written.
    """
    with source.open("rb") as file:
        encoding, _ = tokenize.detect_encoding(file.readline)
    text = with_defaults(source.read_bytes().decode(encoding), point)
    try:
        with target.open("x", encoding=encoding, newline="") as file_:
            file_.write(text)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}; give another file") from error


def with_defaults(text: str, point: Mapping[str, Any]) -> str:
    """Return a submission's source with a point as its DEFAULTS.

    The value of a plain assignment at the top level is replaced where it stands. Where there is
    none, or where the module mentions DEFAULTS outside its functions once more and so might change
    it, an assignment is added at the end, which counts last.

    Args:
        text: The source, which parses.
        point: The hyperparameters by name; plain values.
    """
    literal = "{\n" + "".join(f'    "{name}": {value!r},\n' for name, value in point.items()) + "}"
    literal = literal if point else "{}"
    body = ast.parse(text).body
    plain = [node for node in body if _is_plain(node)]
    mentions = [node for node in body if not isinstance(node, _DEFINITIONS) and _mentions(node)]
    if plain:
        value = plain[-1].value  # type: ignore[attr-defined]
        lines = text.encode().splitlines(keepends=True)
        before = b"".join(lines[: value.lineno - 1]) + lines[value.lineno - 1][: value.col_offset]
        after = lines[value.end_lineno - 1][value.end_col_offset :]
        after += b"".join(lines[value.end_lineno :])
        text = (before + literal.encode() + after).decode()
    if not plain or len(mentions) > 1:
        text = f"{text.rstrip()}\n\n{DEFAULTS} = {literal}\n"
    return text


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _is_plain(node: ast.stmt) -> bool:
    """Return whether a statement assigns to DEFAULTS, and to nothing else."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    else:
        return False
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == DEFAULTS


def _mentions(node: ast.stmt) -> bool:
    return any(isinstance(each, ast.Name) and each.id == DEFAULTS for each in ast.walk(node))

"""Append to the files of a run folder so that they stay whole, and report a folder that fails.

A folder fails where the disk is full, or where it is read-only or was removed.
"""

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from algoperf.errors import UserError
from algoperf.run_folder import crash_points

UNWRITABLE = 74  # The exit code of a process whose run folder cannot be written.


class UnwritableError(Exception):
    """A run folder cannot be written any more; the files that are in it are whole."""


@contextlib.contextmanager
def into(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block into an UnwritableError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UnwritableError(
            f"{folder} cannot be written ({error.strerror or error}); what was written before is "
            "intact, and the same command goes on with it"
        ) from error


def check_folder(option: str, folder: Path) -> None:
    """Check, before any work is done for it, that a folder can be written or made.

    Nothing is made yet.

    Args:
        option: The option that names the folder, for the message.
        folder: The folder.

    Raises:
        UserError: It is a file, lies below one, or may not be written.
    """
    _check_parent(option, folder, folder, "folder")


def make_folder(option: str, folder: Path) -> None:
    """Make a folder, if it is not there, that can be written.

    Raises:
        UserError: As for `check_folder`.
    """
    check_folder(option, folder)
    with asked(option, folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_file(option: str, file: Path) -> None:
    """Check, before any work is done for it, that a file can be written into a folder.

    Args:
        option: The option that names the file, for the message.
        file: The file, which may be there already.

    Raises:
        UserError: It is a folder, its folder is missing, or may not be written.
    """
    if os.path.isdir(file):  # noqa: PTH112 - unlike Path's, it raises for no name at all
        raise UserError(f"{option} {file}: a folder; give a file")
    _check_parent(option, file, file.parent, "file")
    if not file.parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {file.parent}")
    if file.exists() and not os.access(file, os.W_OK):
        raise UserError(f"{option} {file}: it may not be written; give another file")


def _check_parent(option: str, given: Path, folder: Path, wanted: str) -> None:
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        which = "a file" if nearest == given else f"{nearest} is a file"
        which += ", not a folder"
        raise UserError(f"{option} {given}: {which}; give another {wanted}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{option} {given}: {nearest} may not be written; give another {wanted}")


@contextlib.contextmanager
def asked(option: str, path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a UserError, since the user can choose another path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        where = "" if error.filename in (None, str(path)) else f" ({error.filename})"
        raise UserError(f"{option} {path}: {reason}{where}; give another") from error


def append_rows(
    path: Path, columns: tuple[str, ...] | list[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Append rows to a CSV file and flush them to the disk.

    A last line that a crash cut short is removed first; a new file gets a header.

    Args:
        path: The file.
        columns: The names of all columns, in their order.
        rows: Values by column; a column without a value is left empty.
    """
    _cut_torn_line(path)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
        crash_points.reach("row written")
        flush(file)
    crash_points.reach("row kept")


def flush(file: TextIO) -> None:
    """Flush to the disk what was written to a file."""
    file.flush()
    os.fsync(file.fileno())


def ends_a_line(path: Path, size: int) -> bool:
    """Return whether a file has at least `size` bytes and the last of these ends a line."""
    try:
        with path.open("rb") as file:
            file.seek(size - 1)
            return file.read(1) == b"\n"
    except OSError:
        return False


def _cut_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)

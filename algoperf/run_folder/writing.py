"""Files of a run folder that stay whole, and folders that take no more: a full disk, a read-only or
vanished folder.
"""

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from algoperf.run_folder import crash_points

UNWRITABLE = 74  # exit code where the run folder cannot be written


class UnwritableError(Exception):
    """A run folder does not take what is to be written; what it holds is whole."""


@contextlib.contextmanager
def into(folder: Path) -> Iterator[None]:
    """Raise UnwritableError where the block raises OSError."""
    try:
        yield
    except OSError as error:
        raise UnwritableError(
            f"{folder} cannot be written ({error.strerror or error}); what was written before is "
            "intact, and the same command goes on with it"
        ) from error


def append_rows(
    path: Path, columns: tuple[str, ...] | list[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Append rows to a CSV file, whole, to the disk; a last line that a crash tore is cut off."""
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
    """Bring to the disk what was written to a file."""
    file.flush()
    os.fsync(file.fileno())


def ends_a_line(path: Path, size: int) -> bool:
    """Whether the file has so many bytes, the last of which ends a line."""
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

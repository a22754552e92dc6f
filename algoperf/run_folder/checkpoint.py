"""The checkpoints of a trial: each file is whole or absent, and the newest two are kept.

A checkpoint is one safetensors file: arrays by name, and a JSON document in its metadata. It is
written to a temporary file beside it, flushed to the disk and renamed. Its name holds its step
and a checksum of its bytes, so that a damaged file is recognised and the older one is used.
Nothing is unpickled.
"""

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.run_folder import crash_points

FOLDER = "checkpoints"
KEPT = 2
CHUNK_BYTES = 1 << 20
NAME = re.compile(r"step_(\d+)_([0-9a-f]{8})\.safetensors")
PROCESSES = "processes"  # In a checkpoint's document: how many wrote a part of it.
PARTIAL = ".writing.safetensors"
Arrays = Mapping[str, np.ndarray]


class Stored(Arrays):
    """The arrays of a file, each read whenever it is asked for: all may be half of the memory.

    Args:
        path: The file.
        names: The names of the arrays.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, dict.fromkeys(names)

    def __getitem__(self, name: str) -> np.ndarray:
        from safetensors import safe_open

        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, "numpy") as file:
            array: np.ndarray = file.get_tensor(name)
            return array

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, which is not read."""
        from safetensors import safe_open

        with safe_open(self._path, "numpy") as file:
            return tuple(file.get_slice(name).get_shape())

    def rows(self, name: str, axis: int, start: int, stop: int) -> np.ndarray:
        """Return the part of an array that lies in a range along an axis; no more is read."""
        from safetensors import safe_open

        with safe_open(self._path, "numpy") as file:
            part: np.ndarray = file.get_slice(name)[(*[slice(None)] * axis, slice(start, stop))]
            return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Checkpoints:
    """The checkpoints of the trial in a run folder, by one of the processes that train it together.

    Each process has a folder of its own, for the state that it alone has. A checkpoint of rank 0 is
    usable if all others that trained then have one of the same step.

    Args:
        folder: The run folder.
        rank: The number of the process,
        count: and how many there are. A checkpoint that was written by another number says so
            itself, under `PROCESSES` in its document.

    Attributes:
        damaged: The names of the files that `read` skipped, because they are damaged.
    """

    def __init__(self, folder: Path, rank: int = 0, count: int = 1) -> None:
        self._folder = _folder_of(folder, rank)
        self._run_folder, self._rank, self._count = folder, rank, count
        self.damaged: list[str] = []

    def write(
        self, step: int, arrays: Arrays, document: Mapping[str, Any], *, alone: bool = False
    ) -> int:
        """Write a checkpoint, then delete all but the newest two.

        Args:
            step: The step after which the state was taken.
            arrays: The arrays of the state by name.
            document: What is kept beside them; it must be JSON.
            alone: Whether all others are deleted, those of the same step as well.

        Returns:
            The size of the file in bytes.

        Raises:
            OSError: The disk does not take the file. Older checkpoints are left as they were.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            if not NAME.fullmatch(path.name):
                path.unlink()  # It is half a checkpoint, which a killed process left.
        partial = self._folder / PARTIAL
        # np.ascontiguousarray would turn an array without axes into one with a single axis.
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        try:
            try:
                save_file(whole, partial, metadata={"document": json.dumps(document)})
            except SafetensorError as error:
                raise _as_os_error(error) from error
            crash_points.reach("checkpoint written")
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            path = self._folder / f"step_{step:09d}_{_checksum(partial)}.safetensors"
            size = partial.stat().st_size
            crash_points.reach("checkpoint renamed")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)  # It is still there only if something failed.
        _flush_folder(self._folder)
        others = (each for each in self._newest_first() if each != path)
        for old in list(others)[0 if alone else KEPT - 1 :]:
            old.unlink()
        if self._rank == 0:
            self._remove_parts()
        crash_points.reach("checkpoint kept")
        return size

    def _remove_parts(self) -> None:
        """Remove the parts of processes that train no more, of checkpoints that are no more."""
        kept = {_step(path) for path in self._newest_first()}
        for other in self._all_others():
            if other._rank < self._count:
                continue
            for path in other._newest_first():
                if _step(path) not in kept:
                    path.unlink()
            with contextlib.suppress(OSError):  # There are others in it.
                other._folder.rmdir()

    def _all_others(self) -> "list[Checkpoints]":
        """Return those of all other processes that have saved the trial, however many did."""
        prefix = f"{FOLDER}_rank_"
        ranks = (path.name.removeprefix(prefix) for path in self._run_folder.glob(f"{prefix}*"))
        return [Checkpoints(self._run_folder, int(rank)) for rank in ranks if rank.isdecimal()]

    def read(
        self, *, with_arrays: bool = True, step: int | None = None, with_others: bool = True
    ) -> Iterator[tuple[Arrays, dict[str, Any]]]:
        """Yield the arrays and the document of each undamaged checkpoint, the newest first.

        The names of damaged ones are added to `damaged`. An array is read from the file whenever
        it is asked for, as long as the file is there. Those of which another process has no part
        are left out.

        Args:
            with_arrays: Whether the arrays are there as well.
            step: The only step whose checkpoints are wanted; None for all.
            with_others: Whether rank 0 looks for the parts of the others.
        """
        from safetensors import SafetensorError, safe_open

        for path in self._newest_first():
            if step is not None and _step(path) != step:
                continue
            try:
                if not _is_whole(path):
                    raise ValueError("its checksum does not fit")
                with safe_open(path, "numpy") as file:
                    document = json.loads(file.metadata()["document"])
                    arrays = Stored(path, file.keys() if with_arrays else ())
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                self.damaged.append(path.name)
                continue
            if with_others and not self._have_parts(_step(path), document):
                continue
            yield arrays, document

    def _have_parts(self, step: int, document: Mapping[str, Any]) -> bool:
        """Return whether all other processes have a part of a checkpoint of rank 0."""
        others = range(1, self.processes(document)) if self._rank == 0 else ()
        return all(
            any(
                moment(theirs) == moment(document)
                for _, theirs in Checkpoints(self._run_folder, rank).read(
                    with_arrays=False, step=step
                )
            )
            for rank in others
        )

    def processes(self, document: Mapping[str, Any]) -> int:
        """Return how many processes have a part of the checkpoint that has this document."""
        count = document.get(PROCESSES)
        return count if isinstance(count, int) and count > 0 else self._count

    def newest_document(self) -> dict[str, Any] | None:
        """Return the document of the newest file alone, without a look at whether it is damaged."""
        from safetensors import SafetensorError, safe_open

        for path in self._newest_first():
            try:
                with safe_open(path, "numpy") as file:
                    document: dict[str, Any] = json.loads(file.metadata()["document"])
                    return document
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                return None
        return None

    def newest_size(self) -> tuple[str, int] | None:
        """Return the name of the newest file, and how many bytes of the disk it takes."""
        for path in self._newest_first():
            with contextlib.suppress(OSError):
                status = path.stat()
                # A file may have holes, of which nothing is written.
                return path.name, min(status.st_size, 512 * status.st_blocks)
        return None

    def clear(self) -> None:
        """Remove all checkpoints and their folders."""
        for other in self._all_others() if self._rank == 0 else ():
            other.clear()
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                path.unlink()
            self._folder.rmdir()

    def _newest_first(self) -> Iterator[Path]:
        names = filter(lambda path: NAME.fullmatch(path.name), self._folder.glob("*"))
        return iter(sorted(names, reverse=True))


def _folder_of(folder: Path, rank: int) -> Path:
    return folder / (FOLDER if rank == 0 else f"{FOLDER}_rank_{rank}")


def moment(document: Mapping[str, Any]) -> str:
    """Return what the parts of a checkpoint share, and no two checkpoints: the measured times. What
    each process counts itself, of its rows, is left out.
    """
    position = document.get("position")
    if isinstance(position, Mapping):
        position = {name: value for name, value in position.items() if name != "queue"}
    return json.dumps(position)


def _step(path: Path) -> int:
    return int(NAME.fullmatch(path.name)[1])  # type: ignore[index]


def _is_whole(path: Path) -> bool:
    return NAME.fullmatch(path.name)[2] == _checksum(path)  # type: ignore[index]


def _as_os_error(error: Exception) -> Exception:
    """Return the OSError that a safetensors error quotes in its text ('... (os error 28)').

    An error that quotes none is returned as it is.
    """
    match = re.search(r"\(os error (\d+)\)", str(error))
    return error if match is None else OSError(int(match[1]), os.strerror(int(match[1])))


def _checksum(path: Path) -> str:
    """Return the CRC-32 of a file as 8 hex digits.

    It detects damage; it is no protection against deliberate changes.
    """
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def _flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The checkpoints of a trial: files that are whole or not there, the newest two kept.

A checkpoint is one safetensors file: arrays by name, and a JSON document beside them. It is written
to a neighbour, flushed to the disk and renamed; its name has its step and a checksum of its bytes,
so a damaged one is seen and the older one taken. Nothing is unpickled.
"""

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.run_folder import crash_points

FOLDER = "checkpoints"
KEPT = 2
CHUNK_BYTES = 1 << 20
NAME = re.compile(r"step_(\d+)_([0-9a-f]{8})\.safetensors")
PARTIAL = ".writing.safetensors"
Arrays = dict[str, np.ndarray]


class Checkpoints:
    """Those of the trial in `folder`; `damaged` names files that were passed over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self.damaged: list[str] = []

    def write(self, step: int, arrays: Arrays, document: Mapping[str, Any]) -> int:
        """Write one; return its size in bytes. Raises OSError where the disk does not take it."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            if not NAME.fullmatch(path.name):
                path.unlink()  # half a checkpoint, which a kill left
        partial = self._folder / PARTIAL
        # Not ascontiguousarray, which gives an array without axes one.
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
            partial.unlink(missing_ok=True)  # what a failure left
        _flush_folder(self._folder)
        for old in list(self._newest_first())[KEPT:]:
            old.unlink()
        crash_points.reach("checkpoint kept")
        return size

    def read(self) -> Iterator[tuple[Arrays, dict[str, Any]]]:
        """The (arrays, document) of each that is whole, the newest first."""
        from safetensors import SafetensorError, safe_open

        for path in self._newest_first():
            try:
                if NAME.fullmatch(path.name)[2] != _checksum(path):  # type: ignore[index]
                    raise ValueError("its checksum does not fit")
                with safe_open(path, "numpy") as file:
                    document = json.loads(file.metadata()["document"])
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                self.damaged.append(path.name)
                continue
            yield arrays, document

    def clear(self) -> None:
        """Remove them all."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                path.unlink()
            self._folder.rmdir()

    def _newest_first(self) -> Iterator[Path]:
        names = filter(lambda path: NAME.fullmatch(path.name), self._folder.glob("*"))
        return iter(sorted(names, reverse=True))


def _as_os_error(error: Exception) -> Exception:
    """What the system said, where safetensors only quotes it ('... (os error 28)')."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return error if match is None else OSError(int(match[1]), os.strerror(int(match[1])))


def _checksum(path: Path) -> str:
    """CRC-32 of a file, 8 hex digits: for damage, not for malice."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

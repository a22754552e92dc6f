"""The files of fastMRI's single-coil track: a volume in each, in HDF5 (Zbontar et al. 2018).

A file has the fully sampled 'kspace', complex64 (slices, height, width), the image that is to be
reconstructed, 'reconstruction_esc', float32 (slices, rows, columns), and the attribute 'max', the
largest value of that image. The folder has subfolders for training and validation under one of the
names in `FOLDERS`. The test files that are published have no images to compare with, so the first
half of the validation volumes, by name, is for validation and the others are the test split, as in
AlgoPerf.
"""

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf.errors import UserError

FOLDERS = {
    "train": ("singlecoil_train", "knee_singlecoil_train", "train"),
    "validation": ("singlecoil_val", "knee_singlecoil_val", "val", "validation"),
}
KSPACE, TARGET, LARGEST = "kspace", "reconstruction_esc", "max"
# What h5py raises for files that are damaged, or that hold something else under these names.
UNREADABLE = (OSError, KeyError, IndexError, ValueError, TypeError, RuntimeError)
Slice = tuple[NDArray[np.complex64], NDArray[np.float32], float]


@dataclasses.dataclass(frozen=True)
class Volume:
    """A file that was looked at: its number of slices, and the largest value of its images."""

    path: Path
    slices: int
    largest: float


class Files:
    """The slices of some volumes, one after another; each is read when it is asked for.

    Nothing is kept open, and any thread may read.

    Args:
        volumes: The volumes, in their order.
    """

    def __init__(self, volumes: Sequence[Volume]) -> None:
        self._volumes = tuple(volumes)
        self._ends = np.cumsum([volume.slices for volume in volumes])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._volumes else 0

    @property
    def fingerprint(self) -> str:
        """Of the files' names, sizes and numbers of slices; files may be moved."""
        listed = [
            f"{each.path.name}:{each.path.stat().st_size}:{each.slices}" for each in self._volumes
        ]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def read(self, index: int) -> Slice:
        """Return all columns of a slice's k-space, its image, and its volume's largest value.

        Raises:
            OSError: The file is damaged, or holds what is no finite number; the message names it
                and the slice.
        """
        number = int(np.searchsorted(self._ends, index, side="right"))
        volume = self._volumes[number]
        own = index - int(self._ends[number]) + volume.slices
        try:
            with _h5py().File(volume.path, "r") as file:
                kspace_HW, target_HW = file[KSPACE][own], file[TARGET][own]
            for name, values in ((KSPACE, kspace_HW), (TARGET, target_HW)):
                if not np.isfinite(values).all():
                    raise ValueError(f"{name!r} is not finite")
        except UNREADABLE as error:
            raise OSError(
                f"{volume.path}, slice {own}: damaged ({_first_line(error)}); download it again"
            ) from error
        return kspace_HW, target_HW, volume.largest


def find(
    folder: Path, size: int, skip_bad_rows: bool = False
) -> tuple[dict[str, Files], dict[str, Any]]:
    """Return the slices of every split, and notes. Of a file only shapes and the attribute are
    looked at, but with `skip_bad_rows` each is read once.

    Args:
        folder: What has the subfolders of `FOLDERS`.
        size: Rows and columns that images are cropped to.
        skip_bad_rows: Whether files that cannot be used are left out; the notes count them, by
            split and reason, as 'bad_rows'.

    Raises:
        UserError: A subfolder is missing or has too few files, a file cannot be used, or h5py is
            not installed. The message says what is expected.
    """
    _h5py()
    splits, bad = {}, {}
    for split, names in FOLDERS.items():
        below = next((folder / name for name in names if (folder / name).is_dir()), None)
        if below is None:
            raise UserError(
                f"{folder}: no folder of {split} volumes; expected one of: {', '.join(names)} "
                "(fastMRI's knee_singlecoil_train and knee_singlecoil_val)"
            )
        volumes, bad[split] = _look_at(below, size, skip_bad_rows)
        least = 1 if split == "train" else 2
        if len(volumes) < least:
            raise UserError(
                f"{below}: {len(volumes)} usable volumes (*.h5), expected at least {least}"
            )
        splits[split] = volumes
    half = (len(splits["validation"]) + 1) // 2
    held_out = {
        "validation": splits["validation"][:half],
        "test": splits["validation"][half:],
    }
    files = {split: Files(each) for split, each in ({**splits, **held_out}).items()}
    counts = {split: len(each) for split, each in ({**splits, **held_out}).items()}
    notes = {"volumes": counts, "bad_rows": {split: each for split, each in bad.items() if each}}
    return files, notes


def _look_at(
    folder: Path, size: int, skip_bad_rows: bool
) -> tuple[list[Volume], Mapping[str, int]]:
    """The volumes of a folder, sorted by name, and how many are left out by reason."""
    volumes: list[Volume] = []
    bad: dict[str, int] = {}
    for path in sorted(folder.glob("*.h5")):
        volume, reason, detail = _volume(path, size)
        if volume is not None and skip_bad_rows and not _is_whole(volume):
            volume, reason = None, "damaged"
        if volume is not None:
            volumes.append(volume)
        elif skip_bad_rows:
            bad[reason] = bad.get(reason, 0) + 1
        else:
            raise UserError(f"{path}: {reason}{detail}")
    return volumes, bad


def _is_whole(volume: Volume) -> bool:
    """Whether all of its slices can be read."""
    files = Files([volume])
    try:
        for index in range(len(files)):
            files.read(index)
    except OSError:
        return False
    return True


def _volume(path: Path, size: int) -> tuple[Volume | None, str, str]:
    """A file's volume, or None with the reason why it cannot be used, and this file's detail."""
    try:
        with _h5py().File(path, "r") as file:
            kspace, target = _shape(file, KSPACE, "iufc"), _shape(file, TARGET, "iuf")
            names, largest = list(file), file.attrs.get(LARGEST)
            if largest is None and target is not None:
                largest = file[TARGET][()].max()
    except UNREADABLE as error:
        detail = f" ({_first_line(error)}); download it again"
        return None, "not a readable HDF5 file", detail
    if kspace is not None and len(kspace) == 4:
        detail = f": {kspace[1]} coils; the workload is that of the single-coil track, whose files "
        return None, "k-space of several coils", f"{detail}are in knee_singlecoil_*"
    if kspace is None or len(kspace) != 3:
        return None, f"no {KSPACE!r} of slices", f"; it has: {', '.join(names) or 'nothing'}"
    if target is None or len(target) != 3:
        detail = f" to learn from, as in test files; it has: {', '.join(names)}"
        return None, f"no image {TARGET!r}", detail
    if target[0] != kspace[0] or kspace[0] == 0:
        return None, "other numbers of slices", f": {kspace[0]} of k-space, {target[0]} images"
    if min(*kspace[1:], *target[1:]) < size:
        detail = f": k-space {kspace[1:]}, image {target[1:]}, cropped to {size} x {size}"
        return None, "images too small", detail
    is_number = np.ndim(largest) == 0 and np.asarray(largest).dtype.kind in "iuf"
    if not is_number or not 0 < largest < np.inf:
        detail = f": it is {_first_words(largest)}, expected the largest value of the images"
        return None, f"{LARGEST!r} is no finite number above 0", detail
    return Volume(path, kspace[0], float(largest)), "", ""


def _shape(file: Any, name: str, kinds: str) -> tuple[int, ...] | None:
    """That of an array of these kinds of numbers; None where there is none of that name."""
    values = file.get(name)
    if not isinstance(values, _h5py().Dataset) or values.dtype.kind not in kinds:
        return None
    shape: tuple[int, ...] = values.shape
    return shape


def _first_words(value: object) -> str:
    return str(value).splitlines()[0][:80] if str(value).strip() else repr(value)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise UserError(
            "fastMRI's files need the package h5py; install it with: pip install 'algoperf[mri]'"
        ) from error

"""The rows of the fastmri workload: built-in phantoms, or the files of the single-coil track.

Each row is the image of undersampled k-space and that of all of it (`workloads.parts.kspace`).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algoperf.data.formats import fastmri
from algoperf.data.rows import DecodedRows
from algoperf.workload import SPLITS, Data
from workloads.fastmri import generator
from workloads.parts import kspace
from workloads.parts.kspace import Sampling

Read = Callable[[int], tuple[Any, Any, float]]  # a slice's k-space, target, volume's largest value


def load(
    source: str,
    size: int,
    accelerations: tuple[float, ...] = (4,),
    centre_fractions: tuple[float, ...] = (0.08,),
    seed: int = 0,
    skip_bad_rows: bool = False,
) -> Data:
    """Return undersampled and full images.

    Args:
        source: 'builtin' or a folder with fastMRI's files (see `algoperf.data.formats.fastmri`).
        size: Rows and columns of the cropped images.
        accelerations: See `workloads.parts.kspace.Sampling`.
        centre_fractions: Likewise.
        seed: The seed of the built-in slices.
        skip_bad_rows: Whether files that cannot be used are left out and counted.

    Returns:
        For each split, 'inputs' and 'targets', float32 (rows, size, size), normalised by the
        'mean' and 'std' of the inputs, and the 'volume_max'. The columns that are kept are the same
        in all rows of a width, but in training are drawn for each row from the run's seed.

    Raises:
        UserError: The files cannot be used, or the settings of the masks contradict each other.
    """
    sampling = Sampling(tuple(accelerations), tuple(centre_fractions))
    if source == "builtin":
        return Data({split: _built_in(split, seed, size, sampling) for split in SPLITS})
    splits, notes = fastmri.find(Path(source), size, skip_bad_rows)
    rows = {split: _from_files(files, size, sampling) for split, files in splits.items()}
    return Data(rows, notes=notes)


def _built_in(split: str, seed: int, size: int, sampling: Sampling) -> DecodedRows:
    slices = generator.generate(split, seed)

    def read(index: int) -> tuple[Any, Any, float]:
        target_SS = kspace.cropped(slices.target_NSS[index], size)
        return slices.kspace_NHW[index], target_SS, slices.volume_max_N[index]

    digest = hashlib.sha256(slices.kspace_NHW.tobytes()).hexdigest()
    return _rows(len(slices.kspace_NHW), read, digest, size, sampling, is_slow=False)


def _from_files(files: fastmri.Files, size: int, sampling: Sampling) -> DecodedRows:
    return _rows(len(files), files.read, files.fingerprint, size, sampling, is_slow=True)


def _rows(
    count: int, read: Read, source: str, size: int, sampling: Sampling, is_slow: bool
) -> DecodedRows:
    def decode(index: int) -> dict[str, Any]:
        kspace_HW, target_HW, volume_max = read(index)
        kept_W = sampling.mask(kspace_HW.shape[1], kspace.fixed_generator())
        return kspace.row(kspace_HW, kspace.cropped(target_HW, size), volume_max, kept_W)

    fields = kspace.fields(size)
    return DecodedRows(count, fields, decode, f"{source} {sampling}", is_slow=is_slow)

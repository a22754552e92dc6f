"""The rows of the fastmri workload: built-in phantoms, or the files of the single-coil track.

Each row is the image of undersampled k-space and that of all of it (`workloads.parts.kspace`).
"""

import hashlib
from pathlib import Path
from typing import Any

from algoperf.data.formats import fastmri
from algoperf.data.rows import DecodedRows
from algoperf.workload import SPLITS, Data
from workloads.fastmri import generator
from workloads.parts import kspace
from workloads.parts.kspace import DrawnMasks, Sampling


def load(
    source: str,
    size: int,
    accelerations: tuple[float, ...] = (4,),
    centre_fractions: tuple[float, ...] = (0.08,),
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return undersampled and full images.

    Args:
        source: 'builtin' or a folder with fastMRI's files (see `algoperf.data.formats.fastmri`).
        size: Rows and columns of the cropped images.
        accelerations: See `workloads.parts.kspace.Sampling`.
        centre_fractions: Likewise.
        seed: The seed of the built-in slices.
        skip_bad_rows: Whether files that cannot be used are left out and counted.
        validation_seed: As of `generator.generate`.

    Returns:
        For each split, 'inputs' and 'targets', float32 (rows, size, size), normalised by the
        'mean' and 'std' of the inputs, and the 'volume_max'. The columns that are kept are the same
        in all rows of a width, but in training are drawn for each row from the run's seed.

    Raises:
        UserError: The files cannot be used, or the settings of the masks contradict each other.
    """
    sampling = Sampling(tuple(accelerations), tuple(centre_fractions))
    notes: dict[str, Any] = {}
    if source == "builtin":
        rows = {}
        for split in SPLITS:
            slices = generator.generate(split, seed, validation_seed)
            rows[split] = _built_in(slices, size, sampling)
    else:
        splits, notes = fastmri.find(Path(source), size, skip_bad_rows)
        rows = {
            split: kspace.rows(
                len(files), files.read, files.fingerprint, size, sampling, is_slow=True
            )
            for split, files in splits.items()
        }
    return Data(rows, notes=notes, augmentation=DrawnMasks(sampling))


def _built_in(slices: generator.Slices, size: int, sampling: Sampling) -> DecodedRows:
    def read(index: int) -> kspace.Slice:
        volume_max = float(slices.volume_max_N[index])
        return slices.kspace_NHW[index], slices.target_NSS[index], volume_max

    digest = hashlib.sha256(slices.kspace_NHW.tobytes()).hexdigest()
    return kspace.rows(len(slices.kspace_NHW), read, digest, size, sampling, is_slow=False)

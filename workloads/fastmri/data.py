"""The rows of the fastmri workload: built-in phantoms, or the files of the single-coil track.

Each row is the image of undersampled k-space and that of all of it (`workloads.parts.kspace`).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.formats import fastmri
from algoperf.data.rows import DecodedRows
from algoperf.workload import SPLITS, Data, Drawn, Field, Rows
from algoperf.workload.rows import source_row
from workloads.fastmri import generator
from workloads.parts import kspace
from workloads.parts.kspace import Sampling

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class DrawnMasks:
    """In training, each row's columns are drawn from the run's seed, anew in each epoch.

    Attributes:
        sampling: How they are drawn.
    """

    sampling: Sampling

    def fields(self, rows: Rows) -> Mapping[str, Field]:
        """As without it."""
        return rows.fields

    def __call__(self, rows: Rows, drawn: Drawn) -> dict[str, np.ndarray]:
        """Return the own rows of a batch."""
        own = range(*drawn.own.indices(len(drawn.rows)))
        undersampled = [
            _undersampled(
                source_row(rows, int(drawn.rows[position])),
                self.sampling,
                drawn.row_generator(position),
            )
            for position in own
        ]
        return {
            name: np.stack([row[name] for row in undersampled]).astype(dtype, copy=False)
            for name, (_, dtype) in rows.fields.items()
        }


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
    notes: dict[str, Any] = {}
    if source == "builtin":
        rows = {split: _built_in(split, seed, size, sampling) for split in SPLITS}
    else:
        splits, notes = fastmri.find(Path(source), size, skip_bad_rows)
        rows = {split: _from_files(files, size, sampling) for split, files in splits.items()}
    return Data(rows, notes=notes, augmentation=DrawnMasks(sampling))


def _built_in(split: str, seed: int, size: int, sampling: Sampling) -> DecodedRows:
    slices = generator.generate(split, seed)

    def read(index: int) -> Row:
        return _source(
            slices.kspace_NHW[index], slices.target_NSS[index], slices.volume_max_N[index], size
        )

    digest = hashlib.sha256(slices.kspace_NHW.tobytes()).hexdigest()
    return _rows(len(slices.kspace_NHW), read, digest, size, sampling, is_slow=False)


def _from_files(files: fastmri.Files, size: int, sampling: Sampling) -> DecodedRows:
    def read(index: int) -> Row:
        return _source(*files.read(index), size)

    return _rows(len(files), read, files.fingerprint, size, sampling, is_slow=True)


def _source(kspace_HW: Any, target_HW: Any, volume_max: float, size: int) -> Row:
    """A slice before columns are left out."""
    target_SS = kspace.cropped(target_HW, size)
    return {"kspace": kspace_HW, "targets": target_SS, "volume_max": volume_max}


def _rows(
    count: int,
    read: Callable[[int], Row],
    source: str,
    size: int,
    sampling: Sampling,
    is_slow: bool,
) -> DecodedRows:
    def decode(index: int) -> Row:
        return _undersampled(read(index), sampling, kspace.fixed_generator())

    fields, source = kspace.fields(size), f"{source} {sampling}"
    return DecodedRows(count, fields, decode, source, is_slow=is_slow, open_row=read)


def _undersampled(slice_: Row, sampling: Sampling, generator: np.random.Generator) -> Row:
    kept_W = sampling.mask(slice_["kspace"].shape[1], generator)
    return kspace.row(slice_["kspace"], slice_["targets"], slice_["volume_max"], kept_W)

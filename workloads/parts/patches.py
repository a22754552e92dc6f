"""The positions of an image's patches, which no parameter holds, in neither framework.

Shapes: T patches, D width.
"""

import functools

import numpy as np

TEMPERATURE = 10_000.0


@functools.cache
def sine_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Return the positions of a grid of patches, float32 (T, D), row by row.

    A quarter of the width each holds sines and cosines of the column, and sines and cosines of the
    row, at wavelengths from 2 pi to 10,000 times that (as Chen et al. 2021, MoCo v3, and Beyer et
    al. 2022 have it).

    Args:
        rows: The number of rows of patches.
        columns: The number of columns.
        width: The width D, a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions of width {width}, expected a multiple of 4")
    frequencies = TEMPERATURE ** -(np.arange(width // 4) / max(width // 4 - 1, 1))
    row_T, column_T = (each.reshape(-1, 1) for each in np.mgrid[:rows, :columns])
    angles = [column_T * frequencies, row_T * frequencies]
    parts = [function(angle) for angle in angles for function in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)

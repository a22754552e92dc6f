"""Vectors of positions that are not learned, for either framework."""

import math

import numpy as np
from numpy.typing import NDArray


def sine_positions(positions: int, width: int) -> NDArray[np.float32]:
    """Return vectors of positions, float32 (positions, width): sines, then cosines, of wavelengths
    from 2 pi to 10,000 times that (Vaswani et al. 2017).
    """
    count = width // 2
    frequencies = np.exp(-np.arange(count) * math.log(1e4) / (count - 1))
    angles = np.arange(positions)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)

"""Rotary positions (Su et al. 2021, arXiv:2104.09864), for both frameworks."""

import numpy as np
from numpy.typing import NDArray

BASE = 500_000.0  # as of the language model of AlgoPerf; the paper's is 10,000


def tables(positions: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the cosines and sines that queries and keys are rotated by, (positions, width / 2).

    Values 2 i and 2 i + 1 of a head are rotated by the angle position x `BASE` ** (-2 i / width),
    computed in float64.

    Args:
        positions: How many positions there are.
        width: That of a head, an even number.
    """
    frequencies = BASE ** (-np.arange(0, width, 2) / width)
    angles = np.arange(positions)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

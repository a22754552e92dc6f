"""Sortish sampling: rows of about the same length together, so that batches hold less padding."""

import numpy as np


def group(
    lengths_N: np.ndarray, size: int, noise: float, generator: np.random.Generator
) -> list[np.ndarray]:
    """Rows in batches of `size` (which divides their number), by length give or take `noise`.

    Each length gets a uniform number from [0, noise) added, the rows are sorted by the sums (the
    longest first) and cut, and the batches come in random order: no batch is always the same, and
    training does not go from long rows to short ones. Indices into `lengths_N`.
    """
    keys_N = lengths_N + noise * generator.random(len(lengths_N))
    order_N = np.argsort(-keys_N, kind="stable")
    batches = order_N.reshape(-1, size)
    return list(batches[generator.permutation(len(batches))])


def cut_length(lengths_N: np.ndarray, multiple: int, most: int) -> int:
    """The length to which rows of these lengths are cut: the longest, up to a multiple."""
    longest = max(int(lengths_N.max()), 1)
    return min(-(-longest // multiple) * multiple, most)

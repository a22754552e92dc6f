"""The order in which a split's rows come: another one each epoch, a function of seed and epoch."""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# A permutation of so many rows takes half a gibibyte; of more it is computed as it is needed.
LARGEST_PERMUTATION = 2**26
BLOCK = 2**16  # rows of it that are computed at once: much faster than as many for each batch
ROUNDS = 6  # four make a Feistel network look random (Luby and Rackoff 1988)


class Order:
    """The rows of a split, epoch after epoch, each once an epoch.

    Up to `LARGEST_PERMUTATION` rows, the order of an epoch is NumPy's permutation; beyond it is
    `permuted`, which needs no memory.

    Args:
        count: The number of rows.
        seed: What the orders are drawn from, with the number of the epoch.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._seed = seed
        self.go_to(0, 0)

    @property
    def at(self) -> tuple[int, int]:
        """(epoch, rows of it taken so far)."""
        return self._epoch, self._offset

    def go_to(self, epoch: int, offset: int) -> None:
        """Go on from there."""
        self._epoch, self._offset = epoch, offset
        sequence = np.random.SeedSequence([self._seed, epoch])
        self._permutation: np.ndarray | None = None
        if self.count <= LARGEST_PERMUTATION:
            generator = np.random.Generator(np.random.Philox(sequence))
            self._permutation = generator.permutation(self.count)
        else:
            self._block_start = -1  # none is computed yet
            self._keys = sequence.generate_state(ROUNDS, np.uint64).astype(np.uint64)

    def take(self, most: int) -> np.ndarray:
        """The next rows, at least one and at most so many, and none of two epochs."""
        if self._offset == self.count:
            self.go_to(self._epoch + 1, 0)
        start = self._offset
        if self._permutation is not None:
            rows = self._permutation[start : start + most]
        else:
            at = start % BLOCK
            rows = self._block(start - at)[at : at + most]
        self._offset += len(rows)
        return rows

    def _block(self, start: int) -> np.ndarray:
        if self._block_start != start:
            indices = np.arange(start, min(start + BLOCK, self.count))
            self._block_rows = permuted(indices, self.count, self._keys)
            self._block_start = start
        return self._block_rows

    def give_back(self, count: int) -> None:
        """Go back by so many rows, at most those of one epoch."""
        if count > self._offset:
            self.go_to(self._epoch - 1, self.count + self._offset - count)
        elif count:
            self._offset -= count

    def take_all(self, count: int) -> np.ndarray:
        """So many next rows, of as many epochs as it takes."""
        rows = self.take(count)
        if len(rows) == count:
            return rows
        parts = [rows]
        while missing := count - sum(map(len, parts)):
            parts.append(self.take(missing))
        return np.concatenate(parts)


def permuted(indices_N: np.ndarray, count: int, keys: Words) -> np.ndarray:
    """Where a permutation of range(count) sends these indices, in no memory but theirs.

    A Feistel network (Luby and Rackoff 1988) permutes the least power of 2 that is not below
    `count`; an index that it sends beyond is sent on until it is below (cycle walking: Black and
    Rogaway, "Ciphers with Arbitrary Finite Domains", 2002), twice on average at the most.

    Args:
        indices_N: Different or equal indices below `count`.
        count: How many are permuted.
        keys: An even number of 64-bit numbers, one for each round; other keys give another
            permutation.
    """
    bits = (count - 1).bit_length()
    values_N = _feistel(indices_N.astype(np.uint64), bits, keys)
    while (beyond := np.flatnonzero(values_N >= count)).size:
        values_N[beyond] = _feistel(values_N[beyond], bits, keys)
    return values_N.astype(np.int64)


def _feistel(values_N: Words, bits: int, keys: Words) -> Words:
    """A permutation of the numbers of so many bits; the halves may differ by a bit."""
    shift = np.uint64(bits // 2)
    right_mask = np.uint64(2 ** (bits // 2) - 1)
    left_mask = np.uint64(2 ** (bits - bits // 2) - 1)
    left_N, right_N = values_N >> shift, values_N & right_mask
    for key in keys:
        left_N, right_N = right_N, left_N ^ (spread_bits(right_N + key) & left_mask)
        left_mask, right_mask = right_mask, left_mask  # after an even number as at first
    return (left_N << shift) | right_N


def spread_bits(values: Words) -> Words:
    """Every bit spread over all 64 (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

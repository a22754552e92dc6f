"""The order in which a split's rows come: another one each epoch, a function of seed and epoch."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# A permutation of so many rows takes half a gibibyte; of more it is computed as it is needed.
LARGEST_PERMUTATION = 2**26
BLOCK = 2**16  # rows of it that are computed at once: much faster than as many for each batch
RUNS, WINDOW = 0xB0, 0xB1  # set the random streams of `BlockEpoch` apart
ROUNDS = 6  # four make a Feistel network look random (Luby and Rackoff 1988)


class Order:
    """The rows of a split, epoch after epoch, each once an epoch.

    Up to `LARGEST_PERMUTATION` rows an epoch is a `PermutedEpoch`; of more it is a
    `ComputedEpoch`, which needs no memory, and of rows that are read in blocks a `BlockEpoch`.

    Args:
        count: The number of rows.
        seed: What the orders are drawn from, with the number of the epoch.
        blocks: The blocks that the rows are read in; None where any is read as fast as another.
    """

    def __init__(self, count: int, seed: int, blocks: "Blocks | None" = None) -> None:
        self.count = count
        self._seed = seed
        self._blocks = blocks
        self.go_to(0, 0)

    @property
    def at(self) -> tuple[int, int]:
        """(epoch, rows of it taken so far)."""
        return self._number, self._offset

    def go_to(self, epoch: int, offset: int) -> None:
        """Go on from there; a negative offset is a place in an epoch before.

        Raises:
            ValueError: That is before the first row of all.
        """
        if offset < 0:
            epoch, offset = divmod(epoch * self.count + offset, self.count)
        if epoch < 0:
            raise ValueError("the order has no rows before its beginning")
        self._number, self._offset = epoch, offset
        seed = [self._seed, epoch]
        if self._blocks is not None:
            self._epoch: Epoch = BlockEpoch(self._blocks, seed)
        elif self.count <= LARGEST_PERMUTATION:
            self._epoch = PermutedEpoch(self.count, seed)
        else:
            self._epoch = ComputedEpoch(self.count, seed)

    def take(self, most: int) -> np.ndarray:
        """The next rows, at least one and at most so many, and none of two epochs."""
        if self._offset == self.count:
            self.go_to(self._number + 1, 0)
        rows = self._epoch.take(self._offset, most)
        self._offset += len(rows)
        return rows

    def give_back(self, count: int) -> None:
        """Go back by so many rows, of as many epochs as it takes.

        Raises:
            ValueError: So many were never taken.
        """
        if count > self._offset:
            self.go_to(self._number, self._offset - count)
        else:
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


class Epoch(Protocol):
    """The order of one epoch."""

    def take(self, start: int, most: int) -> np.ndarray:
        """The rows from the one at `start` on: at least one, and at most so many."""


class PermutedEpoch:
    """The order of one epoch as NumPy permutes it, in memory.

    Args:
        count: The number of rows.
        seed: What the order is drawn from.
    """

    def __init__(self, count: int, seed: Sequence[int]) -> None:
        self._rows = _generator(seed).permutation(count)

    def take(self, start: int, most: int) -> np.ndarray:
        """The rows from the one at `start` on, as many as there are up to `most`."""
        return self._rows[start : start + most]


class ComputedEpoch:
    """The order of one epoch as `permuted` computes it, a block of rows at a time.

    Args:
        count: The number of rows.
        seed: What the order is drawn from.
    """

    def __init__(self, count: int, seed: Sequence[int]) -> None:
        self._count = count
        state = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)
        self._keys = state.astype(np.uint64)
        self._start = -1  # of the block that was computed; there is none yet

    def take(self, start: int, most: int) -> np.ndarray:
        """The rows from the one at `start` on: at least one, at most so many, of one block."""
        at = start % BLOCK
        if self._start != start - at:
            self._start = start - at
            indices = np.arange(self._start, min(self._start + BLOCK, self._count))
            self._rows = permuted(indices, self._count, self._keys)
        return self._rows[at : at + most]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The blocks that rows are read in, each at once.

    Attributes:
        sizes: The rows of each block, in the order of the rows.
        runs: The number of the first block of each run, ascending from 0. The blocks of a run are
            read one after another, as those of a compressed file, which has to be read from its
            beginning.
        window_rows: About how many rows are mixed with each other, and so held at a time.
    """

    sizes: NDArray[np.int64]
    runs: NDArray[np.int64]
    window_rows: int

    @functools.cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each block."""
        starts: NDArray[np.int64] = np.cumsum(self.sizes) - self.sizes
        return starts

    def block_of(self, rows: np.ndarray) -> np.ndarray:
        """The block of each of these rows."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def with_rows(self, rows: np.ndarray) -> "Blocks":
        """Return the blocks of a choice of rows, one at least; about as many blocks are mixed.

        Args:
            rows: The rows, ascending.
        """
        counts = np.bincount(self.block_of(rows), minlength=len(self.sizes))
        kept = np.flatnonzero(counts)
        run_of_block = np.searchsorted(self.runs, kept, side="right")
        runs = np.flatnonzero(np.diff(run_of_block, prepend=0))
        window_rows = max(1, self.window_rows * len(rows) // int(self.sizes.sum()))
        return Blocks(counts[kept], runs, window_rows)


class BlockEpoch:
    """The order of one epoch of rows that are read in blocks: a shuffle in bounded memory.

    The runs of blocks are shuffled; the sequence of blocks is cut into windows of about
    `Blocks.window_rows`, and the rows of a window are shuffled. So the rows of a window lie in a
    few blocks, and the order can be taken up at any row.

    Args:
        blocks: The blocks.
        seed: What the order is drawn from.
    """

    def __init__(self, blocks: Blocks, seed: Sequence[int]) -> None:
        self._blocks, self._seed = blocks, seed
        ends = np.append(blocks.runs[1:], len(blocks.sizes))
        shuffled = _generator([*seed, RUNS]).permutation(len(ends))
        self._sequence = np.concatenate(
            [np.arange(blocks.runs[run], ends[run]) for run in shuffled.tolist()]
        )
        sizes = blocks.sizes[self._sequence]
        before = np.cumsum(sizes) - sizes
        window = before // blocks.window_rows
        self._first_block = np.flatnonzero(np.diff(window, prepend=-1))  # of each window
        self._first_row = before[self._first_block]
        self._window = -1  # none is drawn yet

    def take(self, start: int, most: int) -> np.ndarray:
        """The rows from the one at `start` on: at least one, at most so many, of one window."""
        window = int(np.searchsorted(self._first_row, start, side="right")) - 1
        if window != self._window:
            self._rows, self._window = self._draw(window), window
        at = start - int(self._first_row[window])
        return self._rows[at : at + most]

    def _draw(self, window: int) -> np.ndarray:
        bounds = np.append(self._first_block, len(self._sequence))[window : window + 2]
        blocks = self._sequence[slice(*bounds)]
        starts, sizes = self._blocks.starts[blocks], self._blocks.sizes[blocks]
        ranges = [
            np.arange(start, start + size)
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
        ]
        return _generator([*self._seed, WINDOW, window]).permutation(np.concatenate(ranges))


def _generator(seed: Sequence[int]) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


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

"""Order and padding of batches: shuffled for ever in training, every row exactly once in
evaluation.

Rows are arrays in memory and a batch is one gather (6 us for 64 token rows), so there is no
prefetching thread that would compete with the training step for the two cores of a small machine.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from algoperf.data import sortish

SORTISH = 0x50  # sets the random stream of `TrainingQueue.sortish` apart from that of the order

Arrays = Mapping[str, np.ndarray]


def row_count(arrays: Arrays) -> int:
    """The number of rows of a split."""
    return len(arrays["targets"])


class Buckets:
    """Rows of text by length, so that a batch is cut to what its rows need.

    `lengths` are (source, target) pairs in tokens, ascending; a row belongs to the first pair that
    holds both of its sides, and to the last where none does. `real_share` is the share of a batch's
    positions that are not padding, over the batches cut so far.
    """

    def __init__(self, arrays: Arrays, lengths: Sequence[tuple[int, int]], pad_id: int) -> None:
        sources_N, targets_N = (_lengths(arrays[key], pad_id) for key in ("inputs", "targets"))
        fits = [(sources_N <= source) & (targets_N <= target) for source, target in lengths]
        fits[-1] = np.ones_like(fits[-1])
        self.of_row = np.argmax(np.stack(fits), axis=0)
        self._lengths = lengths
        self.sides_N = {"inputs": sources_N, "targets": targets_N}
        self._tokens_N = sources_N + targets_N
        self._real = self._all = 0

    def cut(
        self, batch: Arrays, rows: np.ndarray, lengths: tuple[int, int] | None = None
    ) -> dict[str, np.ndarray]:
        """A batch of these rows, its tokens cut to (source, target) lengths that hold them all: by
        default those of their bucket, which is the same for all.
        """
        source, target = lengths or self._lengths[self.of_row[rows[0]]]
        cut = {
            key: array[:, : source if key == "inputs" else target] if array.ndim > 1 else array
            for key, array in batch.items()
        }
        self._real += int(self._tokens_N[rows].sum())
        self._all += cut["inputs"].size + cut["targets"].size
        return cut

    @property
    def counts(self) -> list[int]:
        """[real tokens, positions] of the batches cut so far."""
        return [self._real, self._all]

    @counts.setter
    def counts(self, values: Sequence[int]) -> None:
        self._real, self._all = values

    @property
    def real_share(self) -> float:
        """Real tokens over positions, 1 before the first batch."""
        return self._real / self._all if self._all else 1.0


def _lengths(tokens_NT: np.ndarray, pad_id: int) -> np.ndarray:
    """The length of each row without its padding on the right."""
    positions_T = np.arange(1, tokens_NT.shape[1] + 1)
    lengths_N: np.ndarray = np.where(tokens_NT != pad_id, positions_T, 0).max(axis=1, initial=0)
    return lengths_N


def make_buckets(arrays: Arrays, lengths: Sequence[tuple[int, int]], pad_id: int) -> Buckets | None:
    """The buckets of a split; None where the scale has none."""
    return Buckets(arrays, lengths, pad_id) if lengths else None


class TrainingQueue:
    """Endless batches from a split, reshuffled every epoch; every row once an epoch, whatever the
    batch size.

    A batch may straddle two epochs, so all have the same size. The order of epoch `e` is a function
    of (seed, e) alone. With `buckets` a batch holds rows of one bucket, in that order, and a row
    waits until its bucket has a batch together. `place` moves a batch to the device. `wait_s` adds
    up the time spent in `next`.
    """

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        seed: int,
        place: Callable[[Arrays], Any] = dict,
        now: Callable[[], float] = time.perf_counter,
        buckets: Buckets | None = None,
    ) -> None:
        self.buckets = buckets
        self._waiting: dict[int, list[int]] = {}
        self._ahead: list[np.ndarray] = []  # the rows of the batches that `sortish` chose already
        self._arrays = arrays
        self._batch_size = batch_size
        self._seed = seed
        self._place = place
        self._now = now
        self._epoch = 0
        self._order = self._permutation(0)
        self._offset = 0
        self.wait_s = 0.0

    def _permutation(self, epoch: int) -> np.ndarray:
        generator = np.random.Generator(
            np.random.Philox(np.random.SeedSequence([self._seed, epoch]))
        )
        return generator.permutation(row_count(self._arrays))

    def _take(self, most: int) -> np.ndarray:
        """The next rows of the order, at most so many, and none of two epochs."""
        if self._offset == len(self._order):
            self._epoch += 1
            self._order = self._permutation(self._epoch)
            self._offset = 0
        taken = self._order[self._offset : self._offset + most]
        self._offset += len(taken)
        return taken

    def _next_rows(self, batches: int = 1) -> np.ndarray:
        parts = []
        missing = batches * self._batch_size
        while missing:
            parts.append(self._take(missing))
            missing -= len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _next_of_bucket(self, buckets: Buckets) -> dict[str, np.ndarray]:
        while True:
            row = int(self._take(1)[0])
            bucket = int(buckets.of_row[row])
            rows = self._waiting.setdefault(bucket, [])
            rows.append(row)
            if len(rows) == self._batch_size:
                taken = np.array(self._waiting.pop(bucket))
                batch = {key: array[taken] for key, array in self._arrays.items()}
                return buckets.cut(batch, taken)

    def sortish(self, window: int = 16, noise: float = 1.0, multiple: int = 8) -> Any:
        """The next batch of rows of about the same length, cut to the longest of them.

        The rows of `window` batches are drawn in the order of the epoch, and grouped by the length
        of their inputs, give or take `noise` tokens (`algoperf.data.sortish`; up to 1 mixes rows of
        equal length alone). A batch is cut to a multiple of `multiple` tokens: JAX compiles the
        step once for each pair of lengths. Every row comes once an epoch, as ever. Where the
        workload does not cut its rows this is `next(self)`.
        """
        if self.buckets is None:
            return next(self)
        started_at_s = self._now()
        sides_N = self.buckets.sides_N
        if not self._ahead:
            drawn_at = [self._seed, self._epoch, self._offset, SORTISH]
            rows_N = self._next_rows(window)
            generator = np.random.default_rng(np.random.SeedSequence(drawn_at))
            size, lengths_N = self._batch_size, sides_N["inputs"][rows_N]
            chosen = sortish.group(lengths_N, size, noise, generator)
            self._ahead = [rows_N[indices] for indices in chosen]
        rows = self._ahead.pop(0)
        source, target = (
            sortish.cut_length(sides_N[key][rows], multiple, self._arrays[key].shape[1])
            for key in ("inputs", "targets")
        )
        arrays = {key: array[rows] for key, array in self._arrays.items()}
        batch = self._place(self.buckets.cut(arrays, rows, (source, target)))
        self.wait_s += self._now() - started_at_s
        return batch

    def position(self) -> dict[str, Any]:
        """Where the queue is, as plain values: the same position gives the same batches."""
        waiting = {str(bucket): rows for bucket, rows in self._waiting.items()}
        counts = None if self.buckets is None else self.buckets.counts
        return {
            "epoch": self._epoch,
            "offset": self._offset,
            "waiting": waiting,
            "ahead": [rows.tolist() for rows in self._ahead],
            "bucket_counts": counts,
            "wait_s": self.wait_s,
        }

    @property
    def batches_drawn(self) -> int:
        """How many batches were taken so far, by this process and those before it."""
        waiting = sum(len(rows) for rows in self._waiting.values())
        waiting += sum(len(rows) for rows in self._ahead)
        rows = self._epoch * len(self._order) + self._offset - waiting
        return rows // self._batch_size

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Take up a position of an earlier queue over the same rows with the same seed."""
        self._epoch, self._offset = position["epoch"], position["offset"]
        self._order = self._permutation(self._epoch)
        self._waiting = {int(bucket): list(rows) for bucket, rows in position["waiting"].items()}
        self._ahead = [np.array(rows) for rows in position.get("ahead", [])]
        if self.buckets is not None:
            self.buckets.counts = position["bucket_counts"]
        self.wait_s = position["wait_s"]

    def __iter__(self) -> "TrainingQueue":
        return self

    def __next__(self) -> Any:
        started_at_s = self._now()
        if self.buckets is None:
            rows = self._next_rows()
            arrays = {key: array[rows] for key, array in self._arrays.items()}
        else:
            arrays = self._next_of_bucket(self.buckets)
        batch = self._place(arrays)
        self.wait_s += self._now() - started_at_s
        return batch


def once(
    arrays: Arrays, batch_size: int, buckets: Buckets | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Every row exactly once: in order, or with `buckets` bucket by bucket, each batch cut to its
    bucket. The last batch (of each bucket) is filled up with copies of its first row, whose
    'weights' are 0; real rows have weight 1, times the split's own 'weights' where it has them.
    """
    every = np.arange(row_count(arrays))
    parts = [every]
    if buckets is not None:
        parts = [every[buckets.of_row == bucket] for bucket in np.unique(buckets.of_row)]
    for bucket_rows in parts:
        for start in range(0, len(bucket_rows), batch_size):
            rows = bucket_rows[start : start + batch_size]
            chunk = {key: array[rows] for key, array in arrays.items()}
            chunk.setdefault("weights", np.ones(len(rows), np.float32))
            padded = {key: _fill(array, batch_size) for key, array in chunk.items()}
            padded["weights"][len(rows) :] = 0
            yield padded if buckets is None else buckets.cut(padded, rows)


def _fill(array: np.ndarray, batch_size: int) -> np.ndarray:
    missing = batch_size - len(array)
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) if missing else array

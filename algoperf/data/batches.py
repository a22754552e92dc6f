"""Order and padding of batches: shuffled for ever in training, every row exactly once in
evaluation.

Rows are arrays in memory and a batch is one gather (6 us for 64 token rows), so there is no
prefetching thread that would compete with the training step for the two cores of a small machine.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


def row_count(arrays: Arrays) -> int:
    """The number of rows of a split."""
    return len(arrays["targets"])


class TrainingQueue:
    """Endless batches from a split, reshuffled every epoch; every row once an epoch, whatever the
    batch size.

    A batch may straddle two epochs, so all have the same size. The order of epoch `e` is a function
    of (seed, e) alone. `place` moves a batch to the device. `wait_s` adds up the time spent in
    `next`.
    """

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        seed: int,
        place: Callable[[Arrays], Any] = dict,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
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

    def _next_rows(self) -> np.ndarray:
        parts = []
        missing = self._batch_size
        while missing:
            if self._offset == len(self._order):
                self._epoch += 1
                self._order = self._permutation(self._epoch)
                self._offset = 0
            taken = self._order[self._offset : self._offset + missing]
            parts.append(taken)
            self._offset += len(taken)
            missing -= len(taken)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __iter__(self) -> "TrainingQueue":
        return self

    def __next__(self) -> Any:
        started_at_s = self._now()
        rows = self._next_rows()
        batch = self._place({key: array[rows] for key, array in self._arrays.items()})
        self.wait_s += self._now() - started_at_s
        return batch


def once(arrays: Arrays, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every row exactly once, in order. The last batch is filled up with copies of its first row,
    whose 'weights' are 0; real rows have weight 1, times the split's own 'weights' where it has
    them.
    """
    rows = row_count(arrays)
    for start in range(0, rows, batch_size):
        chunk = {key: array[start : start + batch_size] for key, array in arrays.items()}
        real = row_count(chunk)
        chunk.setdefault("weights", np.ones(real, np.float32))
        padded = {key: _fill(array, batch_size) for key, array in chunk.items()}
        padded["weights"][real:] = 0
        yield padded


def _fill(array: np.ndarray, batch_size: int) -> np.ndarray:
    missing = batch_size - len(array)
    return (
        np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) if missing else array.copy()
    )

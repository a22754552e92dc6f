"""Whether what a submission trains on are rows of the training split: it may choose among them and
repeat them, but not change them or bring others.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from algoperf import workload
from algoperf.data.batches import TrainingQueue
from algoperf.data.tokenizers import PAD_ID
from algoperf.workload import ArrayRows, Arrays
from algoperf.workload.rows import as_rows

KEYS = ("inputs", "targets")
CHUNK_ROWS = 4096
OTHER_ROWS = "data_selection returned other rows than the training split's"
FEW_DRAWN = "fewer than half of the steps drew a batch from the input queue"
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Rows:
    """Rows that may be trained on, each known by 64 bits: all of the split where its arrays are in
    memory and trained on as they are, else those that `add` was given.

    Args:
        rows: The rows of the split.
        queue: The queue that hands them out, where it may change them.
        keys: What of a row makes it that row: what a model is called with, and its targets.
    """

    def __init__(
        self,
        rows: workload.Rows | Arrays,
        queue: TrainingQueue | None = None,
        keys: Collection[str] = KEYS,
    ) -> None:
        rows = as_rows(rows)
        self._keys = tuple(dict.fromkeys(keys))
        fields = rows.fields if queue is None else queue.fields
        self._shapes = {key: fields[key].shape for key in self._keys}
        self._types = {key: fields[key].dtype for key in self._keys}
        rng = np.random.default_rng(0)
        self._factors = {
            key: rng.integers(0, 2**64, int(np.prod(shape)), np.uint64) | np.uint64(1)
            for key, shape in self._shapes.items()
        }
        self._lock = threading.Lock()
        self._added: list[np.ndarray] = []
        self._known_N = np.empty(0, np.uint64)
        changes = queue is not None and queue.changes_rows
        self.has_all = isinstance(rows, ArrayRows) and not changes
        if isinstance(rows, ArrayRows) and not changes:
            self._known_N = self._digests({key: rows[key] for key in self._keys})

    def add(self, batch: Arrays) -> None:
        """Know these rows, too; any thread may say so."""
        digests = self._digests(batch)
        with self._lock:
            self._added.append(digests)

    def _known(self) -> np.ndarray:
        with self._lock:
            if self._added:
                self._known_N = np.unique(np.concatenate([self._known_N, *self._added]))
                self._added.clear()
            return self._known_N

    def _digests(self, arrays: Arrays) -> np.ndarray:
        """A sum of each row's words with odd factors, modulo 2^64."""
        count = len(arrays[self._keys[0]])
        digests_N = np.zeros(count, np.uint64)
        for key in self._keys:
            words_ND = np.ascontiguousarray(arrays[key]).reshape(count, -1)
            words_ND = words_ND.view(_WORDS[words_ND.dtype.itemsize])
            for start in range(0, count, CHUNK_ROWS):
                part = slice(start, start + CHUNK_ROWS)
                digests_N[part] += words_ND[part].astype(np.uint64) @ self._factors[key]
        return digests_N

    def hold(self, batch: Any) -> bool:
        """Whether every row of a batch of NumPy arrays is one of these; token rows may be cut, and
        there may be a leading axis of devices.
        """
        if not isinstance(batch, Mapping) or any(key not in batch for key in self._keys):
            return False
        arrays = {key: self._whole(key, np.asarray(batch[key])) for key in self._keys}
        shapes = {key: array.shape[1:] for key, array in arrays.items()}
        counts = {len(array) for array in arrays.values()}
        if shapes != self._shapes or len(counts) != 1:
            return False
        return bool(np.isin(self._digests(arrays), self._known()).all())

    def _whole(self, key: str, array: np.ndarray) -> np.ndarray:
        """The array with its rows as long as the split's, of the split's type."""
        shape = self._shapes[key]
        if array.ndim == len(shape) + 2:
            array = array.reshape(-1, *array.shape[2:])
        if len(shape) == 1 and array.ndim == 2 and array.shape[1] < shape[0]:
            missing = shape[0] - array.shape[1]
            array = np.pad(array, ((0, 0), (0, missing)), constant_values=PAD_ID)
        return array.astype(self._types[key], copy=False)


class Selection:
    """What a submission's own `data_selection` is seen to do, as flags of the result.

    `last()` gives what it returned last, None before: a batch, several in a list, or the queue that
    it was given. `fetch` makes NumPy arrays of a batch. Where the split is not in memory, the rows
    that the queue has handed out are those that may be trained on; what a process before this one
    was handed is not known, so after that no row is called another than the split's.
    """

    def __init__(
        self,
        rows: Rows,
        queue: TrainingQueue,
        fetch: Callable[[Any], Any],
        last: Callable[[], tuple[int, Any]],
    ) -> None:
        self._rows, self._queue = rows, queue
        self._fetch, self._last = fetch, last
        if not rows.has_all:
            queue.watch(rows.add)

    def findings(self) -> list[str]:
        """The flags, after some steps."""
        steps, batch = self._last()
        if batch is None:
            return []
        flags = [] if 2 * self._queue.batches_drawn >= steps else [FEW_DRAWN]
        if batch is self._queue:  # update_params draws from it
            return flags
        if self._queue.is_resumed and not self._rows.has_all:
            return flags
        several = isinstance(batch, list | tuple) and len(batch) > 0
        try:
            fetched = [self._fetch(each) for each in (batch if several else [batch])]
        except RuntimeError:  # given to a compiled step as its own, and gone
            return flags
        return flags if all(map(self._rows.hold, fetched)) else [*flags, OTHER_ROWS]

"""Order and padding of batches: shuffled for ever in training, every row exactly once in
evaluation.

Where rows are arrays in memory, a batch is one gather (6 us for 64 token rows), so there is no
prefetching thread that would compete with the training step for the two cores of a small machine.
Rows that are slow to take are taken ahead by threads (`algoperf.data.prefetch`), in the same order.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from algoperf.data import prefetch, sortish
from algoperf.data.order import Order
from algoperf.errors import UserError
from algoperf.workload import Arrays, Augmentation, Drawn, Field, Rows
from algoperf.workload.rows import IS_ROW, Packing, as_rows, in_memory, lengths_of, packing_of

SORTISH = 0x50  # sets the random stream of `TrainingQueue.sortish` apart from that of the order
ALONE = (0, 1)  # the shard of a process that trains or evaluates on all rows of a batch

Batch = dict[str, np.ndarray]


def row_count(rows: Rows | Arrays) -> int:
    """The number of rows of a split."""
    return len(as_rows(rows))


def _shard(batch_size: int, shard: tuple[int, int]) -> slice:
    """Which rows of a batch of all ranks are those of one rank.

    Args:
        batch_size: Rows of the batch, all ranks together.
        shard: (rank, number of ranks).

    Raises:
        UserError: The batch does not divide by the number of ranks.
    """
    rank, ranks = shard
    if not 0 <= rank < ranks:
        raise UserError(f"rank {rank} is not one of {ranks} ranks, which are counted from 0")
    if batch_size % ranks:
        raise UserError(
            f"a batch of {batch_size} does not divide over {ranks} devices; choose a multiple with "
            "--batch-size"
        )
    share = batch_size // ranks
    return slice(rank * share, (rank + 1) * share)


class Buckets:
    """Rows by length, so that a batch is cut to what its rows need.

    `lengths` are (source, target) pairs in tokens (or samples), ascending; a row belongs to the
    first pair that holds both of its sides, and to the last where none does. `real_share` is the
    share of a batch's positions that are not padding, over the batches cut so far. Rows that do not
    know their lengths (`algoperf.workload.rows.lengths_of`) are tokens in memory.
    """

    CUT = ("inputs", "targets", "weights")

    def __init__(
        self, rows: Rows | Arrays, lengths: Sequence[tuple[int, int]], pad_id: int
    ) -> None:
        known = lengths_of(as_rows(rows))
        if known is None:
            arrays = in_memory(rows, "cutting batches to their rows' lengths")
            known = {key: _lengths(arrays[key], pad_id) for key in ("inputs", "targets")}
        sources_N, targets_N = known["inputs"], known["targets"]
        fits = [(sources_N <= source) & (targets_N <= target) for source, target in lengths]
        fits[-1] = np.ones_like(fits[-1])
        self.of_row = np.argmax(np.stack(fits), axis=0)
        self._lengths = lengths
        self.sides_N = {"inputs": sources_N, "targets": targets_N}
        self._tokens_N = sources_N + targets_N
        self._real = self._all = 0

    def cut(
        self,
        batch: Arrays,
        rows: np.ndarray,
        lengths: tuple[int, int] | None = None,
        ranks: int = 1,
    ) -> Batch:
        """Return a batch, its tokens cut to lengths that hold them all.

        Args:
            batch: The rows, or one rank's equal share of them.
            rows: Which rows the batch of all ranks has.
            lengths: (source, target) lengths; by default those of the rows' bucket, which is the
                same for all.
            ranks: How many ranks share the batch.
        """
        source, target = lengths or self._lengths[self.of_row[rows[0]]]
        cut = {
            key: array[:, : source if key == "inputs" else target]
            if key in self.CUT and array.ndim > 1
            else array
            for key, array in batch.items()
        }
        self._real += int(self._tokens_N[rows].sum())
        self._all += (cut["inputs"].size + cut["targets"].size) * ranks
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


def make_buckets(
    rows: Rows | Arrays, lengths: Sequence[tuple[int, int]], pad_id: int
) -> Buckets | None:
    """The buckets of a split; None where the scale has none."""
    return Buckets(rows, lengths, pad_id) if lengths else None


def _taken(
    rows: Rows, augmentation: Augmentation | None, packing: Packing | None, drawn: Drawn
) -> Batch:
    """The own rows of a batch, changed or packed where they are."""
    if packing is not None:
        return packing(drawn.rows, len(drawn.rows))
    if augmentation is None:
        return rows.take(drawn.rows[drawn.own])
    return augmentation(rows, drawn)


Waiting = dict[int, list[tuple[int, int]]]  # by bucket, (row, epoch that it was drawn in)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a queue stands: its order's (epoch, offset), and the rows that wait for others of their
    bucket.
    """

    at: tuple[int, int]
    waiting: Waiting


class TrainingQueue:
    """Endless batches from a split, reshuffled every epoch; every row once an epoch, whatever the
    batch size.

    A batch may straddle two epochs, so all have the same size. The order of epoch `e` is a function
    of (seed, e) alone (`algoperf.data.order`). With `buckets` a batch holds rows of one bucket, in
    that order, and a row waits until its bucket has a batch together. Rows that are packed
    (`algoperf.workload.rows.Packing`) come in that order, as many as a batch has room for. `wait_s`
    adds up the time spent in `next`; where rows are taken ahead, that is what the training had to
    wait for them.

    Args:
        rows: The split's rows, of any kind, or a mapping of arrays.
        batch_size: Rows of a batch, all ranks together.
        seed: What the orders are drawn from.
        place: Moves a batch to the device.
        now: The clock that `wait_s` is read from, in seconds.
        buckets: The rows by length, where batches are cut to their rows.
        shard: (rank, number of ranks): each rank gets its part of every batch, and the parts, in
            the order of the ranks, are the batch that one process alone would get.
        depth: How many batches are taken ahead where the rows are slow to take; None: as many as
            memory allows (`prefetch.depth_for`).
        augmentation: What changes the rows at random as they are taken; a function of the seed, the
            epoch and the row, so that what is changed does not depend on threads or interruptions.
        is_packed: Whether rows that can be packed are; else each has room for the largest, and
            batches can be divided.

    Raises:
        UserError: There are no rows, or the batch size does not divide by the number of ranks.
    """

    def __init__(
        self,
        rows: Rows | Arrays,
        batch_size: int,
        seed: int,
        place: Callable[[Arrays], Any] = dict,
        now: Callable[[], float] = time.perf_counter,
        buckets: Buckets | None = None,
        shard: tuple[int, int] = ALONE,
        depth: int | None = None,
        augmentation: Augmentation | None = None,
        is_packed: bool = True,
    ) -> None:
        self.buckets = buckets
        self._waiting: Waiting = {}
        self._ahead: list[np.ndarray] = []  # the rows of the batches that `sortish` chose already
        self._rows = as_rows(rows)
        if len(self._rows) == 0:
            raise UserError("a split without rows cannot be trained on")
        self._batch_size = batch_size
        self._seed = seed
        self._place = place
        self._now = now
        self._own = _shard(batch_size, shard)
        self._ranks = shard[1]
        self._order = Order(len(self._rows), seed, getattr(self._rows, "blocks", None))
        self._augmentation = augmentation
        whole = is_packed and shard == ALONE
        self._packing = packing_of(self._rows) if whole else None
        # Of the rows alone: threads must not hold the queue, which nobody would let go of.
        self._take: prefetch.Take[Drawn] = functools.partial(
            _taken, self._rows, augmentation, self._packing
        )
        self._depth = depth
        self._prefetch: prefetch.Prefetch[Drawn] | None = None
        # The batches that are taken ahead, and where the queue stood after each was drawn.
        self._asked: list[tuple[Drawn, _Place]] = []
        self._place_now = self._here()
        self._batches_drawn = 0
        self.is_resumed = False
        self.wait_s = 0.0

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row as it is trained on."""
        if self._packing is not None:
            return self._packing.fields
        rows = self._rows
        return rows.fields if self._augmentation is None else self._augmentation.fields(rows)

    @property
    def changes_rows(self) -> bool:
        """Whether rows are changed at random as they are taken."""
        return self._augmentation is not None

    def _here(self) -> _Place:
        waiting = {bucket: list(rows) for bucket, rows in self._waiting.items()}
        return _Place(self._order.at, waiting)

    def _draw(self) -> Drawn:
        """The next batch in the order, or of the bucket that first has one together."""
        if self.buckets is not None:
            return self._draw_of_bucket(self.buckets)
        epoch, offset = self._order.at
        rows = self._order.take_all(self._batch_size)
        epochs = epoch + (offset + np.arange(len(rows))) // self._order.count
        return Drawn(rows, epochs, self._seed, self._own)

    def _draw_of_bucket(self, buckets: Buckets) -> Drawn:
        while True:
            row = int(self._order.take(1)[0])
            waiting = self._waiting.setdefault(int(buckets.of_row[row]), [])
            waiting.append((row, self._order.at[0]))
            if len(waiting) == self._batch_size:
                rows, epochs = np.array(self._waiting.pop(int(buckets.of_row[row]))).T
                return Drawn(rows, epochs, self._seed, self._own)

    def _of_rows(self, rows: np.ndarray) -> Drawn:
        """A batch of rows that were drawn before, of whatever epochs: none is changed."""
        return Drawn(rows, np.zeros_like(rows), self._seed, self._own)

    def watch(self, look: Callable[[Batch], None]) -> None:
        """Have a function look at every batch as it is taken, before it is cut or placed; where
        rows are taken ahead it runs in the threads that take them.
        """
        take = self._take

        def taken(drawn: Drawn) -> Batch:
            batch = take(drawn)
            look(batch)
            return batch

        self.close()
        self._take = taken

    def close(self) -> None:
        """End the threads, if there are any; they start again with the next batch."""
        if self._prefetch is not None:
            self._prefetch.close()
            self._prefetch = None
            self._return_to(self._place_now)

    def _next_batch(self) -> Batch:
        """The own rows of the next batch in the order. The queue does not move on from a batch that
        could not be taken.
        """
        try:
            if self._rows.is_slow and self._packing is None:
                batch = self._fetch_ahead().next()
                drawn, place = self._asked.pop(0)
            else:
                drawn = self._draw()
                batch = self._take(drawn)
                if self._packing is not None:
                    is_row_B = batch.pop(IS_ROW)
                    self._order.give_back(len(is_row_B) - int(is_row_B.sum()))
                place = self._here()
        except BaseException:
            self._return_to(self._place_now)
            raise
        self._place_now = place
        self._batches_drawn += 1
        if self.buckets is not None:
            return self.buckets.cut(batch, drawn.rows, ranks=self._ranks)
        return batch

    def _fetch_ahead(self) -> prefetch.Prefetch[Drawn]:
        """The threads, which have been asked for as many batches as they may take ahead."""
        if self._prefetch is None:
            own_bytes = prefetch.row_bytes(self.fields) * self._batch_size // self._ranks
            depth = self._depth or prefetch.depth_for(own_bytes)
            self._prefetch = prefetch.Prefetch(self._take, depth, prefetch.thread_count())
        while self._prefetch.has_room:
            drawn = self._draw()
            self._prefetch.ask(drawn)
            self._asked.append((drawn, self._here()))
        return self._prefetch

    def _return_to(self, place: _Place) -> None:
        """Let the order go on there; what was taken ahead is of no use any more."""
        if self._prefetch is not None:
            self._prefetch.discard()
        self._asked.clear()
        self._order.go_to(*place.at)
        self._waiting = {bucket: list(rows) for bucket, rows in place.waiting.items()}
        self._place_now = place

    def sortish(self, window: int = 16, noise: float = 1.0, multiple: int = 8) -> Any:
        """The next batch of rows of about the same length, cut to the longest of them.

        The rows of `window` batches are drawn in the order of the epoch, and grouped by the length
        of their inputs, give or take `noise` tokens (`algoperf.data.sortish`; up to 1 mixes rows of
        equal length alone). A batch is cut to a multiple of `multiple` tokens: JAX compiles the
        step once for each pair of lengths. Every row comes once an epoch, as ever. Where the
        workload does not cut its rows, or changes them at random, this is `next(self)`.
        """
        if self.buckets is None or self._augmentation is not None:
            return next(self)
        started_at_s = self._now()
        sides_N = self.buckets.sides_N
        if self._asked:
            self._return_to(self._place_now)
        if not self._ahead:
            drawn_at = [self._seed, *self._order.at, SORTISH]
            rows_N = self._order.take_all(window * self._batch_size)
            self._place_now = self._here()
            generator = np.random.default_rng(np.random.SeedSequence(drawn_at))
            size, lengths_N = self._batch_size, sides_N["inputs"][rows_N]
            chosen = sortish.group(lengths_N, size, noise, generator)
            self._ahead = [rows_N[indices] for indices in chosen]
        rows = self._ahead.pop(0)
        self._batches_drawn += 1
        source, target = (
            sortish.cut_length(sides_N[key][rows], multiple, self._rows.fields[key].shape[0])
            for key in ("inputs", "targets")
        )
        own = self._take(self._of_rows(rows))
        batch = self._place(self.buckets.cut(own, rows, (source, target), self._ranks))
        self.wait_s += self._now() - started_at_s
        return batch

    def position(self) -> dict[str, Any]:
        """Where the queue is, as plain values: the same position gives the same batches. It is the
        same on all ranks, and does not count what was taken ahead.
        """
        place = self._place_now
        counts = None if self.buckets is None else self.buckets.counts
        epoch, offset = place.at
        rows, epochs = (
            {str(bucket): [pair[part] for pair in pairs] for bucket, pairs in place.waiting.items()}
            for part in range(2)
        )
        return {
            "epoch": epoch,
            "offset": offset,
            "waiting": rows,
            "waiting_epochs": epochs,
            "ahead": [rows.tolist() for rows in self._ahead],
            "batches_drawn": self._batches_drawn,
            "bucket_counts": counts,
            "wait_s": self.wait_s,
        }

    @property
    def batches_drawn(self) -> int:
        """How many batches were taken so far, by this process and those before it."""
        return self._batches_drawn

    def _most_batches(self) -> int:
        """How many batches were taken up to here at the most. Only of rows that are packed, where a
        batch may have few, may it have been fewer.
        """
        waiting = sum(len(rows) for rows in self._place_now.waiting.values())
        waiting += sum(len(rows) for rows in self._ahead)
        epoch, offset = self._place_now.at
        least_rows = self._batch_size if self._packing is None else 1
        return (epoch * self._order.count + offset - waiting) // least_rows

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Take up a position of an earlier queue over the same rows with the same seed."""
        epochs = position.get("waiting_epochs", {})
        waiting = {
            int(bucket): list(zip(rows, epochs.get(bucket, [0] * len(rows)), strict=True))
            for bucket, rows in position["waiting"].items()
        }
        self._return_to(_Place((position["epoch"], position["offset"]), waiting))
        self._ahead = [np.array(rows) for rows in position.get("ahead", [])]
        # A position of an earlier version has no count.
        self._batches_drawn = position.get("batches_drawn", self._most_batches())
        if self.buckets is not None:
            self.buckets.counts = position["bucket_counts"]
        self.wait_s = position["wait_s"]
        self.is_resumed = True

    def __iter__(self) -> "TrainingQueue":
        return self

    def __next__(self) -> Any:
        started_at_s = self._now()
        placed = self._place(self._next_batch())
        self.wait_s += self._now() - started_at_s
        return placed


def once(
    rows: Rows | Arrays,
    batch_size: int,
    buckets: Buckets | None = None,
    shard: tuple[int, int] = ALONE,
    turn: tuple[int, int] = ALONE,
) -> Iterator[Batch]:
    """Yield every row exactly once: in order, or with `buckets` bucket by bucket, each batch cut to
    its bucket.

    The last batch (of each bucket) is filled up with copies of a row of it, whose 'weights' are 0;
    real rows have weight 1, times the split's own 'weights' where it has them.

    Args:
        rows: The split's rows, of any kind, or a mapping of arrays.
        batch_size: Rows of a batch, all ranks together.
        buckets: The rows by length, where batches are cut to their rows.
        shard: (rank, number of ranks): each rank gets its part of every batch, as in training.
        turn: (k, N): batches k, k + N, k + 2 N, ... alone, from 0, for whoever takes turns with
            others.

    Rows that are packed come in order, as many in a batch as have room; `IS_ROW` says which. Where
    a batch begins depends on those before it, so whoever takes turns packs the others' as well.
    """
    rows = as_rows(rows)
    packing = packing_of(rows) if shard == ALONE else None
    if packing is not None:
        yield from _in_turn(_once_packed(len(rows), batch_size, packing), turn)
        return
    own, ranks = _shard(batch_size, shard), shard[1]
    taken: Iterator[Batch]
    # Of a rank without a real row, the first row of the batch alone, to fill its part with.
    parts = (
        indices[own] if own.start < len(indices) else indices[:1]
        for indices in _in_turn(_evaluation_batches(len(rows), batch_size, buckets), turn)
    )
    if rows.is_slow:
        batch_bytes = prefetch.row_bytes(rows.fields) * batch_size // ranks
        taken = prefetch.in_order(rows.take, parts, batch_bytes)
    else:
        taken = map(rows.take, parts)
    drawn = _in_turn(_evaluation_batches(len(rows), batch_size, buckets), turn)
    for indices, batch in zip(drawn, taken, strict=True):
        real = len(indices[own])
        batch.setdefault("weights", np.ones(len(batch["targets"]), np.float32))
        padded = {key: _fill(array, own.stop - own.start) for key, array in batch.items()}
        padded["weights"][real:] = 0
        yield padded if buckets is None else buckets.cut(padded, indices, ranks=ranks)


def _in_turn(batches: Iterator[Any], turn: tuple[int, int]) -> Iterator[Any]:
    return itertools.islice(batches, turn[0], None, turn[1])


def _once_packed(count: int, batch_size: int, packing: Packing) -> Iterator[Batch]:
    start = 0
    while start < count:
        batch = packing(np.arange(start, min(start + batch_size, count)), batch_size)
        is_row_B = batch[IS_ROW]
        batch.setdefault("weights", is_row_B.astype(np.float32))
        start += int(is_row_B.sum())
        yield batch


def _evaluation_batches(
    count: int, batch_size: int, buckets: Buckets | None
) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, the last (of each bucket) shorter than the others."""
    if buckets is None:
        for start in range(0, count, batch_size):
            yield np.arange(start, min(start + batch_size, count))
        return
    for bucket in np.unique(buckets.of_row):
        bucket_rows = np.flatnonzero(buckets.of_row == bucket)
        for start in range(0, len(bucket_rows), batch_size):
            yield bucket_rows[start : start + batch_size]


def _fill(array: np.ndarray, batch_size: int) -> np.ndarray:
    missing = batch_size - len(array)
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) if missing else array

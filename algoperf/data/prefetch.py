"""Batches taken ahead of their turn by threads, and handed out in the order they were asked for.

For rows whose `take` is slow (decoding, a network) and lets other threads run meanwhile. What is
held is bounded by `depth`, and the order does not depend on which thread is done first.
"""

import collections
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

from algoperf.machine import hardware, processor_time
from algoperf.workload import Field

Batch = dict[str, np.ndarray]
Wanted = TypeVar("Wanted")  # what a batch is asked for by, such as the indices of its rows
Take = Callable[[Wanted], Batch]
DEPTH = 8  # batches ahead, where they are small
LEAST_DEPTH = 2  # and where they are large: one being taken while one is trained on
AHEAD_BYTES = 2**30  # of the batches ahead, between those bounds
MOST_THREADS = 4


def depth_for(batch_bytes: int) -> int:
    """How many batches of that size are taken ahead."""
    return max(LEAST_DEPTH, min(DEPTH, AHEAD_BYTES // max(batch_bytes, 1)))


def thread_count() -> int:
    """How many threads take batches: no more than processors that this process may use."""
    return min(MOST_THREADS, hardware.thread_count())


class _Asked(Generic[Wanted]):
    """A batch that was asked for, and what became of it."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.batch: Batch | None = None
        self.error: BaseException | None = None
        self.is_dropped = False  # nobody waits for it any more
        self.is_ready = threading.Event()


class Prefetch(Generic[Wanted]):
    """Threads that take batches ahead.

    The threads end with `close`, when nobody holds this object any more, and with the process.

    Args:
        take: From what is asked for to a batch; called by several threads at a time.
        depth: How many batches are asked for and not handed out yet, at most.
        threads: How many threads take them.
    """

    def __init__(self, take: Take[Wanted], depth: int, threads: int) -> None:
        self._depth = depth
        self._asked: collections.deque[_Asked[Wanted]] = collections.deque()
        self._tasks: queue.SimpleQueue[_Asked[Wanted] | None] = queue.SimpleQueue()
        self.threads = [
            # The function holds no reference to this object, which would never be let go of.
            threading.Thread(
                target=_work, args=(take, self._tasks), daemon=True, name=f"prefetch {number}"
            )
            for number in range(threads)
        ]
        for thread in self.threads:
            # Ours, so that a submission is not blamed for what it works between two steps.
            processor_time.own_threads.add(thread)
            thread.start()
        self._end = weakref.finalize(self, _end, self._tasks, threads)

    def __len__(self) -> int:
        """How many batches are asked for and not handed out yet."""
        return len(self._asked)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be asked for."""
        return len(self._asked) < self._depth

    def ask(self, wanted: Wanted) -> None:
        """Have this batch taken; `has_room` must hold."""
        assert self.has_room
        self._asked.append(_Asked(wanted))
        self._tasks.put(self._asked[-1])

    def next(self) -> Batch:
        """Wait for the batch that was asked for first, and return it; or raise what was raised by
        the thread that took it.
        """
        asked = self._asked[0]
        asked.is_ready.wait()  # an interrupt here loses no batch
        self._asked.popleft()
        if asked.error is not None:
            raise asked.error
        assert asked.batch is not None
        return asked.batch

    def discard(self) -> None:
        """Forget what was asked for and not handed out."""
        for asked in self._asked:
            asked.is_dropped = True
        self._asked.clear()

    def close(self) -> None:
        """End the threads, once they have taken what they are at."""
        self.discard()
        self._end()
        for thread in self.threads:
            thread.join()


def _work(take: Take[Wanted], tasks: "queue.SimpleQueue[_Asked[Wanted] | None]") -> None:
    while (asked := tasks.get()) is not None:
        if not asked.is_dropped:
            try:
                asked.batch = take(asked.wanted)
            except BaseException as error:  # raised where the batch is waited for
                asked.error = error
        asked.is_ready.set()
        del asked  # else the last batch would be held until there is another to take


def _end(tasks: "queue.SimpleQueue[_Asked[Wanted] | None]", threads: int) -> None:
    for _ in range(threads):
        tasks.put(None)


def in_order(
    take: Take[np.ndarray], parts: Iterable[np.ndarray], batch_bytes: int
) -> Iterator[Batch]:
    """Yield the batch of each part, in order, taken ahead; the threads end with the iterator."""
    ahead = Prefetch(take, depth_for(batch_bytes), thread_count())
    try:
        for indices in parts:
            if not ahead.has_room:
                yield ahead.next()
            ahead.ask(indices)
        while len(ahead):
            yield ahead.next()
    finally:
        ahead.close()


def row_bytes(fields: Mapping[str, Field]) -> int:
    """The bytes of one row of these fields."""
    return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in fields.values())

"""Batches taken ahead: in order, bounded, from any position, with their errors, and no thread left.

The sources wait for events, so nothing here depends on how fast a thread is.
"""

import gc
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from algoperf.data import batches, prefetch
from algoperf.data.batches import TrainingQueue
from algoperf.data.prefetch import Prefetch
from algoperf.data.rows import DecodedRows
from algoperf.errors import UnreadableRowError
from algoperf.machine import processor_time
from algoperf.workload import Field

PATIENCE_S = 60.0  # until a test that would wait for ever fails
ROWS = 50


class Source:
    """Rows that are their own numbers; each take is counted, and waits for `gate`."""

    is_slow = True
    fingerprint = "numbers"

    def __init__(self, count=ROWS):
        self.count = count
        self.fields = {"targets": Field((), np.dtype(np.int64))}
        self.gate = threading.Event()
        self.gate.set()
        self.broken = frozenset()
        self.changed = threading.Condition()
        self.started = self.ended = 0
        self.most_ahead = 0
        self.handed_out = 0  # rows, counted by the test

    def __len__(self):
        return self.count

    def take(self, indices):
        with self.changed:
            self.started += len(indices)
            self.most_ahead = max(self.most_ahead, self.started - self.handed_out)
            self.changed.notify_all()
        assert self.gate.wait(PATIENCE_S)
        if not self.broken.isdisjoint(indices.tolist()):
            raise OSError("a broken row")
        with self.changed:
            self.ended += len(indices)
            self.changed.notify_all()
        return {"targets": indices.copy()}

    def wait_for(self, holds):
        with self.changed:
            assert self.changed.wait_for(lambda: holds(self), PATIENCE_S)


@pytest.fixture
def source():
    built = Source()
    yield built
    built.gate.set()


def drawn(queue, count):
    return [next(queue)["targets"].tolist() for _ in range(count)]


def plain(seed=5, batch_size=7):
    """The queue over the same rows in memory, which takes nothing ahead."""
    return TrainingQueue({"targets": np.arange(ROWS)}, batch_size, seed)


def still_alive(threads):
    for thread in threads:
        thread.join(PATIENCE_S)
    return [thread for thread in threads if thread.is_alive()]


# Order


def test_batches_come_in_the_order_they_were_asked_for():
    """The last is ready first, the first last."""
    gates = {number: threading.Event() for number in range(3)}
    ready = {number: threading.Event() for number in range(3)}

    def take(indices):
        number = int(indices[0])
        assert gates[number].wait(PATIENCE_S)
        ready[number].set()
        return {"targets": indices}

    ahead = Prefetch(take, depth=3, threads=3)
    for number in range(3):
        assert ahead.has_room
        ahead.ask(np.array([number]))
    assert not ahead.has_room
    handed_out = []

    def consume():
        handed_out.extend(int(ahead.next()["targets"][0]) for _ in range(3))

    consumer = threading.Thread(target=consume, daemon=True)
    for number in (2, 1, 0):
        gates[number].set()
        assert ready[number].wait(PATIENCE_S)
        if number == 2:
            assert ahead._asked[2].is_ready.wait(PATIENCE_S)
            consumer.start()  # which waits although a batch is there
    assert not still_alive([consumer])
    assert handed_out == [0, 1, 2]
    assert ahead.has_room
    ahead.close()
    assert not still_alive(ahead.threads)


@pytest.mark.parametrize("depth", [1, 2, 5, None])
def test_the_order_is_that_of_rows_in_memory(source, depth):
    queue = TrainingQueue(source, 7, 5, depth=depth)
    assert drawn(queue, 40) == drawn(plain(), 40)
    queue.close()


# Memory


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_taken_ahead_than_the_bound(source, depth, monkeypatch):
    monkeypatch.setattr(prefetch, "thread_count", lambda: 4)
    queue = TrainingQueue(source, 5, 5, depth=depth)
    for step in range(1, 9):
        next(queue)
        source.handed_out = 5 * step
        # All that may be taken before the next batch is asked for is taken, and then no more.
        source.wait_for(lambda it, step=step: it.ended == 5 * (step + depth - 1))
        assert source.started == source.ended
    # A batch may be handed out here before the thread has begun with the last that it may take.
    assert source.most_ahead <= 5 * depth
    queue.close()


@pytest.mark.parametrize(
    ("batch_bytes", "depth"),
    [(1, 8), (2**27, 8), (2**28, 4), (2**29, 2), (2**32, 2), (0, 8)],
)
def test_large_batches_are_taken_less_far_ahead(batch_bytes, depth):
    assert prefetch.depth_for(batch_bytes) == depth


def test_the_bytes_of_a_row():
    fields = {"inputs": Field((2, 3), np.dtype(np.float32)), "targets": Field((), np.dtype("i2"))}
    assert prefetch.row_bytes(fields) == 26


# Position


def test_a_position_is_the_consumers_not_the_threads(source):
    queue, other = TrainingQueue(source, 7, 5, depth=4), plain()
    for step in range(1, 20):
        assert drawn(queue, 1) == drawn(other, 1)
        source.wait_for(lambda it, step=step: it.ended == 7 * (step + 3))
        ours, theirs = queue.position(), other.position()
        assert {**ours, "wait_s": 0} == {**theirs, "wait_s": 0}
        assert queue.batches_drawn == step
    queue.close()


@pytest.mark.parametrize("steps", [0, 3, 7, 8, 50])  # 50 x 7 rows are seven whole epochs
def test_a_saved_position_goes_on_while_others_were_taken_ahead(source, steps):
    queue, expected = TrainingQueue(source, 7, 5, depth=4), drawn(plain(), steps + 20)
    assert drawn(queue, steps) == expected[:steps]
    saved = json.loads(json.dumps(queue.position()))
    for again in (TrainingQueue(Source(), 7, 5), plain(), queue):
        again.go_to(saved)
        assert drawn(again, 20) == expected[steps:]
        again.close()


def test_going_back_discards_what_was_taken_ahead(source):
    queue = TrainingQueue(source, 7, 5, depth=4)
    first = queue.position()
    expected = drawn(queue, 2)
    source.wait_for(lambda it: it.ended == 7 * 5)
    queue.go_to(first)
    assert drawn(queue, 2) == expected
    assert queue.position()["offset"] == 14
    queue.close()


def test_what_is_being_taken_is_discarded_too(source):
    source.gate.clear()
    ahead = Prefetch(source.take, depth=3, threads=1)
    for number in range(3):
        ahead.ask(np.array([number]))
    source.wait_for(lambda it: it.started == 1)
    ahead.discard()
    assert len(ahead) == 0
    ahead.ask(np.array([9]))
    source.gate.set()
    assert ahead.next()["targets"].tolist() == [9]
    assert source.started == 2  # the two that nobody had begun were left
    ahead.close()


def test_a_position_saved_before_there_was_prefetch_goes_on(source):
    """As version 3c6129f wrote it after 10 batches of 7 from 50 rows, without 'ahead' older yet."""
    position = {"epoch": 1, "offset": 20, "waiting": {}, "bucket_counts": None, "wait_s": 0.25}
    expected = drawn(plain(), 15)[10:]
    for saved in (position, {**position, "ahead": []}):
        queue = TrainingQueue(source, 7, 5)
        queue.go_to(saved)
        assert queue.wait_s == 0.25
        assert queue.batches_drawn == 10
        assert drawn(queue, 5) == expected
        assert queue.batches_drawn == 15
        queue.close()


# Errors


def test_an_error_is_raised_at_its_rows_turn():
    expected = drawn(plain(), 12)
    broken = expected[4][3]
    is_mended = threading.Event()

    def decode(index):
        if index == broken and not is_mended.is_set():
            raise OSError("no such image")
        return {"targets": index}

    rows = DecodedRows(ROWS, {"targets": ((), np.int64)}, decode, "test")
    queue = TrainingQueue(rows, 7, 5, depth=4)
    assert drawn(queue, 4) == expected[:4]
    at = queue.position()
    for _ in range(2):  # the queue does not go on without the batch
        with pytest.raises(UnreadableRowError, match=f"row {broken} .*no such image") as raised:
            next(queue)
        assert isinstance(raised.value.__cause__, OSError)
        assert queue.position() == at
    is_mended.set()
    assert drawn(queue, 8) == expected[4:]
    queue.close()


def test_an_error_of_rows_that_are_not_slow_leaves_the_queue_where_it_was(source):
    source.is_slow = False
    queue, expected = TrainingQueue(source, 7, 5), drawn(plain(), 12)
    assert drawn(queue, 4) == expected[:4]
    source.broken = frozenset(expected[4][:1])
    with pytest.raises(OSError, match="a broken row"):
        next(queue)
    source.broken = frozenset()
    assert drawn(queue, 8) == expected[4:]


# Threads


def test_threads_end_with_the_queue(source):
    queue = TrainingQueue(source, 7, 5)
    next(queue)
    threads = queue._prefetch.threads
    assert threads
    assert all(thread.daemon and thread in processor_time.own_threads for thread in threads)
    queue.close()
    assert not still_alive(threads)
    assert drawn(queue, 2) == drawn(plain(), 3)[1:]  # and start again
    threads = queue._prefetch.threads
    del queue
    gc.collect()
    assert not still_alive(threads)


def test_rows_in_memory_need_no_thread():
    before = threading.active_count()
    queue = plain()
    drawn(queue, 3)
    list(batches.once({"targets": np.arange(ROWS)}, 7))
    assert threading.active_count() == before


def test_an_evaluation_leaves_no_thread(source, monkeypatch):
    threads = []

    class Watched(Prefetch):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            threads.extend(self.threads)

    monkeypatch.setattr(prefetch, "Prefetch", Watched)
    rows = [batch["targets"].tolist() for batch in batches.once(source, 7)]
    assert [row for batch in rows for row in batch][:ROWS] == list(range(ROWS))
    assert not still_alive(threads)
    part = batches.once(source, 7)
    next(part)
    part.close()
    assert threads
    assert not still_alive(threads)


def test_the_process_ends_while_a_row_is_waited_for():
    code = """
import threading
import numpy as np
from algoperf.data.batches import TrainingQueue
from algoperf.data.rows import DecodedRows
never, started, training = (threading.Event() for _ in range(3))
def decode(index):
    if index == wanted or not training.is_set():
        return {"targets": index}
    started.set()
    never.wait()
wanted = int(next(TrainingQueue({"targets": np.arange(9)}, 1, 0))["targets"][0])
queue = TrainingQueue(DecodedRows(9, {"targets": ((), np.int64)}, decode, "x"), 1, 0, depth=3)
training.set()
next(queue)
started.wait()
print("ends")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ends\n", "")


def test_work_of_these_threads_is_not_the_submissions():
    processor_time.watch()
    known = set(threading.enumerate())

    def decode(index):
        assert sum(range(10_000))
        return {"targets": index}

    rows = DecodedRows(ROWS, {"targets": ((), np.int64)}, decode, "test")
    queue = TrainingQueue(rows, 7, 5)
    drawn(queue, 10)
    names = " ".join(processor_time.by_name(known))
    queue.close()
    assert "prefetch" not in names + " ".join(processor_time.by_name(known))


# Waiting


def test_waiting_for_a_source_is_counted(source, clock):
    """Each batch takes the source 5 s, and none is taken ahead of the one that is waited for."""
    take = source.take

    def slow_take(indices):
        clock.sleep(5.0)
        return take(indices)

    source.take = slow_take
    queue = TrainingQueue(source, 7, 5, now=clock, depth=1)
    for step in range(1, 4):
        next(queue)
        clock.sleep(100.0)  # in which the step trains
        assert queue.wait_s == 5.0 * step
    queue.close()


def test_no_time_is_counted_for_a_batch_that_is_ready(source, clock):
    queue = TrainingQueue(source, 7, 5, now=clock, depth=2)
    next(queue)
    source.wait_for(lambda it: it.ended == 14)  # the second is there; the third is not asked for
    source.gate.clear()
    next(queue)
    assert queue.wait_s == 0
    source.gate.set()
    queue.close()

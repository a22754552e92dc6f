"""The stopwatches, the ledger, and the bound on steps in flight, on a clock moved by hand."""

import contextlib
import functools
import itertools

import pytest

from algoperf.trial import loop as trial_module
from algoperf.trial.clock import PARTS, InFlight, Ledger, Stopwatch
from algoperf.trial.goal import Goal, Limits

UNREACHED = Goal("accuracy", True, 2.0)


def test_a_stopwatch_counts_only_its_blocks(clock):
    watch = Stopwatch(clock)
    clock.sleep(5)
    with watch.running():
        clock.sleep(2)
        assert watch.elapsed_s == 2
    clock.sleep(7)
    with watch.running():
        clock.sleep(0.5)
    assert watch.elapsed_s == 2.5


def test_the_drain_is_charged_to_the_block(clock):
    watch = Stopwatch(clock)
    with watch.running(lambda: clock.sleep(3)):
        clock.sleep(1)
    assert watch.elapsed_s == 4


@pytest.mark.parametrize("where", ["block", "drain"])
def test_an_exception_stops_the_watch(clock, where):
    watch = Stopwatch(clock)

    def fail(place):
        clock.sleep(1)
        if place == where:
            raise RuntimeError(place)

    with pytest.raises(RuntimeError, match=where), watch.running(lambda: fail("drain")):
        fail("block")
    elapsed_s = watch.elapsed_s
    assert elapsed_s == (1 if where == "block" else 2)
    clock.sleep(10)
    assert watch.elapsed_s == elapsed_s
    with watch.running():  # and it can be started again
        clock.sleep(1)
    assert watch.elapsed_s == elapsed_s + 1


def test_a_running_watch_cannot_be_started(clock):
    watch = Stopwatch(clock)
    with watch.running(), pytest.raises(AssertionError), watch.running():
        pass


def test_a_watch_may_stop_while_it_is_read():
    """The progress line reads it from another thread."""
    blocks = contextlib.ExitStack()

    def now():
        blocks.pop_all().close()  # the block ends between the reader's two looks
        return 1.0

    watch = Stopwatch(now)
    blocks.enter_context(watch.running())
    assert watch.elapsed_s == 0


def test_the_ledger_closes(clock):
    started_at_s = clock() - 4  # before the ledger was made: loading Python
    ledger = Ledger(clock, started_at_s)
    seconds = dict(zip(PARTS, (1, 2, 4, 8, 16, 32), strict=True))
    for part, part_s in seconds.items():
        clock.sleep(0.125)
        with getattr(ledger, part).running():
            clock.sleep(part_s)
    with ledger.submission.running():
        clock.sleep(0.5)
        ledger.data_wait_s += 0.5  # within the submission's time, not beside it
    totals = ledger.totals()
    assert {part: totals[f"{part}_s"] for part in PARTS} == seconds | {"submission": 1.5}
    assert totals["other_s"] == 4 + 6 * 0.125
    assert totals["wall_s"] == 63.5 + 4.75
    parts_s = sum(totals[f"{part}_s"] for part in (*PARTS, "other"))
    assert parts_s == totals["wall_s"]
    assert totals["data_wait_s"] == 0.5
    assert totals["first_step_s"] is None


class Queue:
    """A device that takes `step_s` for each step that is queued, and who waited for which."""

    def __init__(self, clock, **options):
        self.clock, self.ends_s, self.waited = clock, [0.0], []
        self.in_flight = InFlight(lambda: len(self.ends_s) - 1, self.wait, clock, **options)

    def wait(self, step):
        self.waited.append(step)
        self.clock.sleep_until(self.ends_s[step])

    def steps(self, count, step_s):
        """Queue steps; return the most that were unfinished as one was queued."""
        most = 0
        for _ in range(count):
            self.ends_s.append(max(self.clock(), self.ends_s[-1]) + step_s)
            most = max(most, sum(end_s > self.clock() for end_s in self.ends_s))
            self.in_flight.add()
        return most


def test_slow_steps_are_waited_for_one_by_one(clock):
    queue = Queue(clock)
    assert queue.steps(6, 1.0) == 3
    assert queue.waited == [1, 2, 3, 4]
    queue.in_flight.clear()
    queue.steps(2, 1.0)
    assert queue.waited == [1, 2, 3, 4]
    queue.steps(1, 1.0)
    assert queue.waited == [1, 2, 3, 4, 7]


@pytest.mark.parametrize(
    ("step_s", "together"), [(0.3, 1), (0.24, 2), (0.16, 3), (0.1, 4), (1e-4, 4), (0.0, 4)]
)
def test_quick_steps_are_waited_for_together(clock, step_s, together):
    """As many as take half a second, and at most four; twice as many are ever unfinished."""
    queue = Queue(clock)
    queue.steps(12, step_s)  # until the clock has seen how long a step takes
    queue.waited.clear()
    assert queue.steps(48, step_s) <= max(3, 2 * together)
    assert len(queue.waited) == 48 // together
    assert {b - a for a, b in itertools.pairwise(queue.waited)} == {together}


def test_steps_that_become_slow_are_waited_for_one_by_one_again(clock):
    queue = Queue(clock)
    queue.steps(20, 0.01)
    queue.steps(20, 1.0)
    queue.waited.clear()
    assert queue.steps(20, 1.0) == 3
    assert len(queue.waited) == 20


def test_no_quick_steps_are_waited_for_together_where_they_must_not(clock):
    queue = Queue(clock, together=1)
    queue.steps(12, 0.01)
    assert queue.steps(20, 0.01) == 3
    assert len(queue.waited) == 12 + 20 - 2


def late(rig, budget_s, step_s):
    """Steps begun beyond the first one that ended after the budget."""
    return rig.trial.state.step - (int(budget_s / step_s) + 1)


def test_queued_work_is_charged_to_the_submission(make_rig):
    """The host queues a step in no time; the clock shows the device's 0.5 s for each."""
    rig = make_rig(step_s=0.5, goal=UNREACHED, limits=Limits(budget_s=30.0, eval_every_s=5.0))
    rig.trial.run()
    totals = rig.trial.ledger.totals()
    assert rig.trial.status == "budget"
    assert totals["submission_s"] == 0.5 * rig.trial.state.step
    assert [elapsed_s for _, elapsed_s in rig.evaluated] == [
        0.5 * step for step, _ in rig.evaluated
    ]
    evaluations = len(rig.evaluated)
    assert evaluations > 4
    assert totals["evaluation_s"] == 0.5 * 2 * evaluations  # two splits: no training work in it
    assert totals["logging_s"] == 0.25 * (2 * evaluations + 1)
    assert totals["other_s"] == 0
    assert totals["first_step_s"] == 0.5


def test_at_most_two_steps_are_in_flight_and_the_budget_is_two_steps_late(make_rig):
    rig = make_rig(goal=UNREACHED, limits=Limits(budget_s=100.0, eval_every_s=1000.0))
    rig.trial.run()
    assert max(rig.calls["unfinished"]) == 2
    assert late(rig, 100, 1) == 2
    assert rig.trial.state.step == 103
    assert rig.trial.ledger.submission.elapsed_s == 103


def test_with_32_steps_in_flight_the_budget_would_be_32_steps_late(make_rig, monkeypatch):
    """What the test above would see without the bound."""
    unbounded = functools.partial(InFlight, limit=32)
    monkeypatch.setattr(trial_module, "InFlight", unbounded)
    rig = make_rig(goal=UNREACHED, limits=Limits(budget_s=100.0, eval_every_s=1000.0))
    rig.trial.run()
    assert max(rig.calls["unfinished"]) == 32
    assert late(rig, 100, 1) == 32


def test_waiting_for_data_is_part_of_the_submission(make_rig):
    """Steps 2 to 4 take 2 s for the batch, the step before hidden behind it; then the last step."""
    rig = make_rig(goal=UNREACHED, limits=Limits(budget_s=99.0, eval_every_s=99.0, max_steps=4))
    rig.trial._queue.cost_s = 2.0
    rig.trial.run()
    totals = rig.trial.ledger.totals()
    assert totals["data_wait_s"] == 8.0
    assert totals["first_step_s"] == 3.0
    assert totals["submission_s"] == 3.0 + 3 * 2.0 + 1.0


@pytest.mark.parametrize(
    ("seconds", "compiled_s", "numbers", "charged_s"),
    [
        (0.05, 0.0, 0, 0.0),  # Making a state is free,
        (3.0, 0.0, 10_000_000, 3.0 - 0.1 - 0.16),  # up to 0.1 s, and 16 ns a parameter.
        (3.0, 2.95, 0, 2.95),  # Compiling is not,
        (3.0, 2.0, 0, 2.0 + 1.0 - 0.1),  # and the rest is judged without it.
        (3.0, 100.0, 0, 3.0),  # Nobody compiles for longer than it took.
    ],
)
def test_what_the_initialisation_of_a_state_is_charged(
    clock, seconds, compiled_s, numbers, charged_s
):
    ledger = Ledger(clock)
    with ledger.set_up.running():
        clock.sleep(1)  # the rest of the set-up
        ledger.begin_initialisation()
        clock.sleep(seconds)
    ledger.end_initialisation(compiled_s, numbers)
    totals = ledger.totals()
    assert totals["charged_s"] == totals["submission_s"] == pytest.approx(charged_s)
    assert totals["initialisation_s"] == pytest.approx(seconds)
    assert totals["set_up_s"] == pytest.approx(1 + seconds - charged_s)
    ledger.forget_initialisation()
    assert ledger.totals()["submission_s"] == pytest.approx(0.0)

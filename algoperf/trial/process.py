"""The process that works for the starter of a study: a referee, or a whole trial.

It receives plans on standard input and sends events to standard output, as one line of JSON each.
As a referee it takes the plans of one study after another, each once the trial before it has ended
with a result (`refereed`); else it runs one trial alone, submission and all, and leaves. It dies
with the process that started it, however that one ends: the kernel signals it where it can (Linux),
and a thread waits for the end of standard input, which the starter holds open.
"""

import contextlib
import functools
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from algoperf.machine import stopping, supervision, terminal
from algoperf.machine.supervision import INTERRUPTED, ORPHANED
from algoperf.run_folder import writing
from algoperf.trial.clock import Ledger

if TYPE_CHECKING:
    from algoperf.trial.bench import Bench
    from algoperf.trial.plan import TrialPlan
    from algoperf.trial.referee import Referee

PATIENCE_S = 60.0  # The longest wait for an answer of the starter.


class Answers:
    """The starter's answers to those events that wait for one: a byte each, on standard input."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def add(self, count: int) -> None:
        """Record that so many answers have arrived."""
        self._count.release(count)

    def wait(self) -> None:
        """Wait for one answer, but for no more than `PATIENCE_S` seconds.

        A slow starter delays a trial, and does no more harm than that.
        """
        self._count.acquire(timeout=PATIENCE_S)


class Events:
    """Sends events to the starter; silent in a process that the submission forked.

    Args:
        stream: The stream that events are written to.
        answers: The starter's answers.

    Attributes:
        answered: The names of the events that wait for an answer.
    """

    def __init__(self, stream: TextIO, answers: Answers | None = None) -> None:
        self._stream = stream
        self._answers = Answers() if answers is None else answers
        self._process_id = os.getpid()
        self.answered: frozenset[str] = frozenset()  # The events that wait for an answer.

    @property
    def are_heard(self) -> bool:
        """Whether this is the trial's process, and not one that the submission forked."""
        return os.getpid() == self._process_id

    def send(self, event: str, **values: Any) -> None:
        """Send an event, and wait for the answer if it is one of those that are answered.

        Args:
            event: The event's name.
            values: What the event says, as JSON values.
        """
        if not self.are_heard:
            return
        # The starter has ended, so this process will, too.
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps({"event": event, **values}) + "\n")
        if event in self.answered:
            self._answers.wait()


def main(framework: str | None = None) -> int:
    """Run one trial, or referee those of one study.

    Args:
        framework: The framework of the trials that it referees; None for a trial alone.

    Returns:
        The exit code: 0 if each trial has a result, 1 if a user's mistake was reported instead,
        `INTERRUPTED` if it was asked to stop (whether or not it then had a result), and
        `writing.UNWRITABLE` if its run folder could not be written any more.
    """
    started_at_s = time.perf_counter()
    stops = stopping.Stops(stopping.leave_at_once)
    stops.ignores_afterwards = True
    with stops:
        stopping.let_through()
        if framework is not None:
            _start_server(framework)
        code = _main(stops, started_at_s)
    return INTERRUPTED if code == 0 and stops.are_asked else code


def _start_server(framework: str) -> None:
    """Start the server that forks trainers before there is a plan, which may have a secret."""
    from algoperf import backends
    from algoperf.machine import fork_server
    from algoperf.trial import child

    preloaded = child.modules(framework)
    late = backends.IMPORTED_LATE[framework]  # which a referee does without
    fork_server.start([name for name in preloaded if name not in late], preloaded)


def _main(stops: stopping.Stops, started_at_s: float) -> int:
    answers, plans = Answers(), queue.SimpleQueue[str]()
    _die_with_parent(answers, plans)
    events = Events(os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1), answers)
    # What a submission prints must not be taken for an event.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    terminal.outlive(output=terminal.UNREAD, errors=terminal.UNREAD)
    from algoperf.errors import UserError
    from algoperf.trial.plan import TrialPlan

    line = plans.get()
    try:
        plan = TrialPlan.from_json(line)
        if plan.has_referee:
            return _referee(plan, plans, started_at_s, events, stops)
        return _run(plan, Ledger(started_at_s=started_at_s), events, stops)
    except UserError as error:
        events.send("user_error", text=str(error), traceback=traceback_of(error))
        return 1
    except writing.UnwritableError as error:
        events.send("unwritable", text=str(error))
        return writing.UNWRITABLE
    except BaseException as error:  # What a submission raises to leave, or breaks for all of us.
        if not events.are_heard:
            raise  # A process that it forked leaves as it wants to.
        from algoperf.submission import blame

        events.send("crashed", **blame.crash(error, TrialPlan.from_json(line).submission))
        return 1


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error, or that of another process which it was noted with."""
    noted = getattr(error, "__notes__", [])
    return str(noted[-1]) if noted else "".join(traceback.format_exception(error))


def _referee(
    plan: "TrialPlan",
    plans: "queue.SimpleQueue[str]",
    started_at_s: float,
    events: Events,
    stops: stopping.Stops,
) -> int:
    """Referee the trials of one study, until standard input ends or a trial does in another way
    than by its result or its trainer's death.
    """
    supervision.adopt_orphans()
    supervision.refuse_to_be_read()
    from algoperf.trial.bench import Bench
    from algoperf.trial.plan import ANSWERED, TrialPlan

    events.answered = ANSWERED if plan.followed else frozenset()
    bench = None
    try:
        while True:
            # Before there is a trainer nothing is to be saved; then it is asked, and says what is.
            stops.ask = stopping.leave_at_once
            ledger = Ledger(started_at_s=started_at_s)
            if bench is None:
                with ledger.set_up.running():
                    bench = Bench(plan)
            code = _judge(bench, plan, ledger, events, stops)
            if code is not None:
                return code
            stops.ask = stopping.leave_at_once
            plan = TrialPlan.from_json(plans.get())
            started_at_s = time.perf_counter()
    finally:
        if bench is not None:
            bench.close()


def _judge(
    bench: "Bench",
    plan: "TrialPlan",
    ledger: Ledger,
    events: Events,
    stops: stopping.Stops,
) -> int | None:
    """Referee one trial. Return the exit code where no other is to follow it, else None."""
    from algoperf.trial import refereed
    from algoperf.trial.far_trainer import TrainerDiedError
    from algoperf.trial.plan import PAUSED

    watched = Watched(ledger)
    report = functools.partial(_report, events, watched)
    stop = _report_every(0.5, lambda: report("progress")) if plan.show_progress else None
    try:
        ended = refereed.run(bench, plan, ledger, report, stops, watched.attend)
    except TrainerDiedError as error:
        if error.has_stopped or stops.are_asked:
            return INTERRUPTED
        events.send("died", error=error.error, cpu_s=error.cpu_s)
    else:
        if ended is None:
            return INTERRUPTED
        event = "paused" if ended["status"] == PAUSED else "result"
        report(event, result=ended, was_asked_to_stop=stops.are_asked)
    finally:
        if stop is not None:
            stop.set()
    return 0 if stops.are_asked else None


class Watched:
    """What another thread may read of a trial.

    Args:
        ledger: The trial's stopwatches.

    Attributes:
        has_started: Whether the trial's start has been reported.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.has_started = False
        self._ledger = ledger
        self._referee: Referee | None = None
        self._step: Callable[[], int] = int

    def attend(self, referee: "Referee", step: Callable[[], int]) -> None:
        """Take the referee, and what returns the step of training, once there are any."""
        self._referee, self._step = referee, step

    def position(self) -> dict[str, Any]:
        """Return the trial's position: its step, its submission time in seconds, its last loss, and
        the target metric as it is predicted; nothing before it has any.

        Another thread may call this, so it does not touch the device.
        """
        if self._referee is None:
            return {}
        return {
            "step": max(self._referee.step, self._step()),
            "clock_s": self._ledger.submission.elapsed_s,
            "loss": self._referee.last_loss,
            "predicted": self._referee.predicted,
        }


def _report(
    events: Events,
    watched: Watched,
    event: str,
    metrics: dict[str, float] | None = None,
    **values: Any,
) -> None:
    if event == "progress" and not watched.has_started:
        return  # Nobody has been told yet what goes on.
    measured = {} if metrics is None else {"metrics": metrics}
    events.send(event, **values, **watched.position(), **measured)
    watched.has_started = watched.has_started or event == "start"


def _without_input() -> int:
    """Return a new descriptor of what was standard input; that is empty from now on.

    A submission that reads it must neither wait for the starter nor take its answers.
    """
    channel = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return channel


def _run(plan: "TrialPlan", ledger: Ledger, events: "Events", stops: stopping.Stops) -> int:
    watched = Watched(ledger)
    report = functools.partial(_report, events, watched)
    with ledger.set_up.running():
        from algoperf.run_folder import state_kinds
        from algoperf.trial import assemble, result
        from algoperf.trial.plan import ANSWERED

        events.answered = ANSWERED if plan.followed else frozenset()
        state_kinds.seed_generators(plan.seed)
        assembled = assemble.assemble(plan, ledger, report, lambda: stops.are_asked)
        trial = assembled.trial
        watched.attend(assembled.referee, lambda: trial.state.step)
        report(
            "start",
            budget_s=trial.limits.budget_s,
            target=assembled.flags["target"],
            folder=str(assembled.log.folder),
            max_steps=trial.limits.max_steps,
            point=assembled.submitted.point,
            point_source=assembled.submitted.point_source,
        )
    stops.ask = lambda: None  # From here on there is something to save.
    stop = _report_every(0.5, lambda: report("progress")) if plan.show_progress else None
    try:
        assemble.run(assembled)
    finally:
        if stop is not None:
            stop.set()
    # A signal to every process of a job ends those that a submission had forked, too: an error that
    # follows may be its doing. One that is not comes again when the trial goes on.
    if trial.interrupted and trial.is_paused:
        submitted = assembled.submitted
        paused = result.of_paused(assembled, submitted.point, submitted.search_space)
        report("paused", result=paused, was_asked_to_stop=stops.are_asked)
        return 0
    if trial.interrupted or (trial.status == "failed" and stops.are_asked):
        return INTERRUPTED
    ended = result.of(assembled)
    assembled.log.result(ended)
    if plan.save_model is not None:
        saved = assemble.save_model(Path(plan.save_model), trial.status, assembled.trained)
        report("note", text=saved)
    with contextlib.suppress(OSError):  # The trial has its result; a leftover file does no harm.
        assembled.checkpoints.clear()
    report("result", result=ended, was_asked_to_stop=stops.are_asked)
    return 0


def _report_every(period_s: float, report: Callable[[], None]) -> threading.Event:
    from algoperf.machine import processor_time

    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(period_s):
            report()

    thread = threading.Thread(target=loop, daemon=True, name="progress")
    processor_time.own_threads.add(thread)
    thread.start()
    return stop


def _die_with_parent(answers: Answers, plans: "queue.SimpleQueue[str]") -> None:
    """Read standard input from now on: an empty line is an answer, any other one a plan."""
    supervision.die_with_starter()

    def wait_for_end() -> None:
        with os.fdopen(channel, "rb") as lines:
            for line in lines:
                if line.strip():
                    plans.put(line.decode())
                else:
                    answers.add(1)
        os._exit(ORPHANED)

    channel = _without_input()
    threading.Thread(target=wait_for_end, daemon=True, name="parent watch").start()

"""A trial in two processes, from the referee's side: it starts the trainer and measures it.

The referee never runs a line of the submission. It holds the rows that judge, a model, metrics and
a decoder of its own, the clock and the log. The clock runs from the moment at which the trainer is
told to go until its parameters have arrived; in between evaluations the trainer, with all that it
started, is stopped. What the trainer does while the clock stands still (saving, for the most part)
is timed as well, and is a flag beyond its share.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import psutil

from algoperf import backends, errors, workload
from algoperf.machine import (
    environment,
    load,
    memory,
    processor_time,
    resources,
    stopping,
    supervision,
)
from algoperf.run_folder import writing
from algoperf.submission.blame import cause_of
from algoperf.trial import assemble, handover, result, seeds, trainer
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.judgement import Signature, difference
from algoperf.trial.plan import TrialPlan
from algoperf.trial.referee import Decision, Referee, Segment, signature_from_json

# How far the trainer's own clock may be off the referee's: a share, or seconds a stretch.
CLOCK_SHARE, CLOCK_S = 0.01, 0.005
# What the trainer may use while the clock stands still: seconds, a share of its clock, and the time
# that a slow disk takes for what it saves.
OFF_CLOCK_S, OFF_CLOCK_SHARE, DISK_BYTES_PER_S = 2.0, 0.05, 20e6
GRACE_S = 5.0  # For a trainer to leave once it has closed.
LONGEST_MESSAGE = 1 << 30  # bytes


class TrainerDiedError(Exception):
    """The trainer's process has ended, or ends, without a word of the trial's end.

    Args:
        error: The 'cause', in words, 'outside', and what else the result says of it.
        has_stopped: Whether it was asked to stop before there was anything to save.

    Attributes:
        cpu_s: The processor time of the trial so far, in seconds.
    """

    def __init__(self, error: dict[str, Any], *, has_stopped: bool = False) -> None:
        super().__init__(error["cause"])
        self.error = error
        self.has_stopped = has_stopped
        self.cpu_s = 0.0


class Bench:
    """What the trials of one study share: the rows, a model to evaluate with, what it compiled.

    Args:
        plan: The plan of the first of these trials; the others differ in study and trial alone.
    """

    def __init__(self, plan: TrialPlan) -> None:
        self.context = multiprocessing.get_context("forkserver")
        modules = ("algoperf.trial.trainer", *backends.modules_of(plan.framework))
        self.context.set_forkserver_preload([*modules, "algoperf.machine.fork_server"])
        with stopping.held_back():  # A signal to all processes of a job must not end the server.
            forkserver.ensure_running()
        if plan.framework == "jax":  # The trainer has the accelerator's memory, by its own setting.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.subject = assemble.look_up(plan)
        self.instruments = assemble.load_instruments(plan, self.subject, trains=False)
        data = assemble.load_data(plan, self.subject.definition, self.subject.scale)
        self.shared_rows: handover.SharedRows | None = None
        train = data.splits["train"]
        if isinstance(train, workload.ArrayRows):
            self.shared_rows = handover.SharedRows(self.context, train)
            splits = {**data.splits, "train": self.shared_rows.rows()}
            data = workload.Data(splits, data.model, data.notes, data.text, data.tokenizer)
        self.bound = assemble.bind(plan, self.subject, self.instruments.backend, data)
        self.evaluator = Evaluator(
            self.instruments.backend,
            self.bound.workload,
            self.subject.definition,
            self.bound.data,
            self.subject.scale,
        )
        self.trials = 0
        self.signature: Signature = {}
        self._is_warm = False

    def initialise(self, seed: int) -> tuple[Any, Any]:
        """Return (parameters, model state) as a trial of that seed starts with them."""
        backend = self.instruments.backend
        state = backend.random_state(seeds.pair(seed, seeds.INIT))
        params, model_state = self.bound.workload.init_model_fn(state)
        self.signature = backend.signature(params, model_state)
        return params, model_state

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluations need, once."""
        self.evaluator.restart()
        if not self._is_warm:
            self.evaluator.warm_up(params, model_state)
            self._is_warm = True


@dataclasses.dataclass
class Refereed:
    """A trial in two processes, with what its result needs.

    Attributes:
        closing: What the trainer says at the end.
    """

    plan: TrialPlan
    referee: Referee
    flags: Mapping[str, Any]
    batch_size: int
    evaluator: Evaluator
    meter: resources.Meter
    clock_load: load.Load
    parameters: Mapping[str, float]
    seen: list[str]
    closing: Mapping[str, Any]

    def real_token_share(self) -> float | None:
        """Return the share of training tokens that were no padding; None without buckets."""
        share: float | None = self.closing.get("real_token_share")
        return share

    def checksum(self) -> int | None:
        """Return the checksum of the last parameters, by the trainer."""
        checksum: int | None = self.closing.get("checksum")
        return checksum

    def raised_flags(self) -> Sequence[str]:
        """Return what the submission should not have done and was seen to do."""
        return self.seen


class Trainer:
    """The trainer's process, and the line to it.

    Args:
        bench: What the trials of the study share.
        plan: The trial's plan.
        note: Called with what the trainer has a user told.
    """

    def __init__(self, bench: Bench, plan: TrialPlan, note: Callable[[str], None]) -> None:
        data = bench.bound.data
        facts = {"model": data.model, "notes": data.notes, "tokenizer": data.tokenizer}
        self.handover = handover.Handover(bench.context, bench.signature)
        without_secret = dataclasses.replace(plan, validation_seed=None)
        given = trainer.Given(without_secret.to_json(), bench.shared_rows, facts, self.handover)
        self._note = note
        self._line, far_end = bench.context.Pipe()
        self._process = bench.context.Process(
            target=trainer.serve, args=(far_end, given), name="trainer"
        )
        self._killed_before = memory.oom_kills()
        self._others = set(supervision.descendants(os.getpid()))  # the fork server, and its kind
        with stopping.held_back():
            self._process.start()
        far_end.close()
        assert self._process.pid is not None
        self.process_id = self._process.pid
        self.pause = supervision.Pause(self.processes)
        self.has_closed = False

    def processes(self) -> list[int]:
        """Return the trainer's process and all that it has started."""
        started = set(supervision.descendants(os.getpid())) - self._others
        return [self.process_id, *sorted(started - {self.process_id})]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the trainer and all that it has started from working while in the block."""
        self.pause.begin()
        try:
            yield
        finally:
            self.pause.end()

    def ask_to_stop(self) -> None:
        """Ask the trainer to be saved and to leave."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process_id, stopping.SIGNALS[0])

    def answer(self, **values: Any) -> None:
        """Answer the trainer's last question."""
        with contextlib.suppress(BrokenPipeError):  # It has ended, which is seen at the next look.
            self._line.send_bytes(json.dumps(values).encode())

    def hear(self, *expected: str) -> dict[str, Any]:
        """Wait for what the trainer says next, and return it.

        Args:
            expected: The kinds of what it may say now.

        Raises:
            TrainerDiedError: It has ended instead, or says something else.
            UserError: It says that a user made a mistake.
        """
        while True:
            message = self._next()
            kind = message.get("kind")
            if kind == "note":
                self._note(str(message.get("text")))
            elif kind == "user_error":
                error = errors.UserError(str(message.get("text")))
                error.add_note(str(message.get("traceback")))
                raise error
            elif kind == "crashed":
                texts = {name: str(message.get(name)) for name in ("cause", "traceback")}
                raise TrainerDiedError({**texts, "outside": False})
            elif kind in expected:
                return message
            else:
                cause = f"the trainer said {kind!r}, expected {' or '.join(expected)}"
                raise TrainerDiedError({"cause": cause, "outside": False})

    def _next(self) -> dict[str, Any]:
        ready = wait([self._line, self._process.sentinel])
        if self._line in ready:
            try:
                message = json.loads(self._line.recv_bytes(LONGEST_MESSAGE))
            except (EOFError, OSError, ValueError):
                message = None
            if isinstance(message, dict):
                return message
        self._process.join(GRACE_S)
        code = self._process.exitcode
        if code is None:
            cause = {"cause": "the trainer closed its line to the referee", "outside": False}
            raise TrainerDiedError(cause)
        now = memory.oom_kills()
        was_killed = None
        if now is not None and self._killed_before is not None:
            was_killed = now > self._killed_before
        has_stopped = stopping.has_stopped(code, was_asked=False) and code > 0
        raise TrainerDiedError(
            supervision.cause_of_death(code, was_killed), has_stopped=has_stopped
        )

    def end(self) -> None:
        """End the trainer and all that it started."""
        if self.has_closed:
            self._process.join(GRACE_S)
        supervision.kill(self.processes())
        self.pause.end()
        self._process.join()
        self._line.close()
        self._process.close()


def run(
    bench: Bench,
    plan: TrialPlan,
    ledger: Ledger,
    report: assemble.Report,
    stops: stopping.Stops,
    attend: Callable[[Referee, Any], None] = lambda referee, counters: None,
) -> dict[str, Any] | None:
    """Run one trial.

    Args:
        bench: What the trials of the study share.
        plan: The trial's plan.
        ledger: Its stopwatches.
        report: Called with the name and the values of each event.
        stops: What this process was asked; it is passed on to the trainer.
        attend: Called with the referee and the trainer's counters once there are any, for whoever
            watches the trial from another thread.

    Returns:
        Its result; None where it was interrupted.

    Raises:
        UserError: A user's mistake.
        TrainerDiedError: The trainer has ended without a result.
    """
    return _Run(bench, plan, ledger, report, stops, attend).run()


class _Run:
    """One trial, while it runs."""

    def __init__(
        self,
        bench: Bench,
        plan: TrialPlan,
        ledger: Ledger,
        report: assemble.Report,
        stops: stopping.Stops,
        attend: Callable[[Referee, Any], None],
    ) -> None:
        self._bench, self._plan, self._ledger = bench, plan, ledger
        self._report, self._stops, self._attend = report, stops, attend
        self._seen: list[str] = []
        self._off_clock_s = self._clock_difference_s = self._waited_s = 0.0
        self._saved_bytes = self._stretches = 0
        self._forgivable_s = 0.0  # What was charged for compiling, before an interruption.
        self._peak_bytes = 0
        self._peak_device_bytes: int | None = None
        self._closing: Mapping[str, Any] = {}

    def run(self) -> dict[str, Any] | None:
        self._spent_before_s = processor_time.total_s() if self._bench.trials else 0.0
        self._bench.trials += 1
        try:
            return self._run()
        except TrainerDiedError as error:
            error.cpu_s = self._cpu_s()
            raise

    def _cpu_s(self) -> float:
        return processor_time.total_s() - self._spent_before_s

    def _run(self) -> dict[str, Any] | None:
        with contextlib.ExitStack() as stack:
            with self._ledger.set_up.running():
                plan = self._plan
                # Before anything is compiled for this trial.
                self._cache = environment.compilation_cache(plan.framework, os.environ)
                if not self._bench.signature:
                    self._bench.initialise(0)
                self._trainer = Trainer(self._bench, plan, self._say)
                stack.callback(self._trainer.end)
                self._stops.ask = self._trainer.ask_to_stop
                if self._stops.are_asked:
                    self._trainer.ask_to_stop()
                seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
                self._own = self._bench.initialise(seed)
                self._bench.warm_up(*self._own)
                self._begin()
                stack.enter_context(self._gauges)
                stack.enter_context(
                    assemble.discarding(self._folder.log, self._folder.preemptions or None)
                )
                is_running = self._initialise()
            self._train(is_running)
            if self._closing.get("interrupted"):
                return None
            if self._stops.are_asked and self._referee.status == "failed":
                return None  # A signal to all of a job's processes may have been the cause.
            self._judge_the_whole()
            return self._end()

    def _begin(self) -> None:
        """Make what judges the trial, and answer what the trainer asks for before it trains."""
        bench, plan = self._bench, self._plan
        self._initial = bench.instruments.backend.checksum(*self._own)
        message = self._trainer.hear("submitted")
        files = {str(name): Path(path) for name, path in message["source_files"].items()}
        submitted = assemble.Submitted(
            message["point"],
            str(message["point_source"]),
            int(message["batch_size"]),
            str(message["note"]),
            files,
        )
        outline = assemble.outline_of(plan)
        instruments = dataclasses.replace(
            bench.instruments,
            cache=self._cache,
            meter=resources.Meter(
                lambda: self._peak_device_bytes,
                assemble.energy_counter(bench.instruments.backend),
                cpu_s=self._cpu_s,
                peak_process_bytes=self._peak_process_bytes,
            ),
        )
        configuration = assemble.configure(
            plan, bench.subject, outline, submitted, bench.bound, instruments, self._report
        )
        self._folder = assemble.open_folder(
            plan, bench.subject, outline, submitted, bench.bound, configuration, instruments,
            self._report, with_arrays=False,
        )  # fmt: skip
        self._submitted, self._meter = submitted, instruments.meter
        self._gauges = load.GaugesOfAnother(self._trainer.process_id)
        self._load = load.Load(self._gauges.read)
        self._referee = Referee(
            goal=configuration.goal,
            limits=configuration.limits,
            ledger=self._ledger,
            evaluate=assemble.measuring(bench.evaluator, self._folder.log, plan),
            probe=bench.evaluator.probe,
            log=self._folder.log,
            report=assemble.telling_of_load(self._report, self._load, lambda: self._referee.step),
            preemptions=self._folder.preemptions,
        )
        self._attend(self._referee, self._trainer.handover.counters)
        saved = self._folder.saved
        self._trainer.answer(
            folder=str(self._folder.log.folder),
            saved=None if saved is None else saved.document["files"],
            limits=dataclasses.asdict(configuration.limits),
            preemptions=self._folder.preemptions,
        )

    def _initialise(self) -> bool:
        """Time the submission's initialisation; put the trial where it was saved. Return whether
        there is anything to train.
        """
        referee, far = self._referee, self._trainer
        message = far.hear("begin")
        with far.paused():
            signature = signature_from_json(message["signature"])
            changed = difference(self._bench.signature, signature)
            handed = self._received()
            referee.begin(self._bench.signature, handed)
            if changed is not None:
                referee.fail(f"importing the submission changed the model's parameters: {changed}")
            elif handed.checksum() != self._initial:
                referee.fail("the model's first parameters are not those of its seed")
        self._ledger.begin_initialisation()
        far.answer()
        message = far.hear("initialised", "failed")
        with far.paused():
            if message["kind"] == "failed":
                referee.fail(str(message["cause"]), str(message["traceback"]))
            elif referee.status is None:
                referee.initialised(self._received(), float(message["compiled_s"]))
            saved = self._folder.saved
            if saved is not None and referee.status is None:
                document = saved.document
                referee.go_on(document["position"])
                self._meter.go_on(document.get("resources", {}))
                self._load.go_on(document.get("load", {}))
                self._forgivable_s = float(document["compiled_s"])
                self._folder.log.go_back(document["files"])
                assemble.say_that_it_goes_on(self._report, referee)
            self._report(
                "start",
                budget_s=referee.limits.budget_s,
                target=self._folder.flags["target"],
                folder=str(self._folder.log.folder),
                max_steps=referee.limits.max_steps,
                point=self._submitted.point,
                point_source=self._submitted.point_source,
            )
        self._answer_with(referee.decision())
        is_running = self._off_clock()
        self._off_clock_s = 0.0  # It was set-up: a checkpoint was read, for the most part.
        return is_running

    def _train(self, is_running: bool) -> None:
        while is_running:
            segment = self._stretch()
            try:
                decision = self._referee.between(segment, self._received(segment))
            except (errors.UserError, writing.UnwritableError):
                raise
            except Exception as error:  # an evaluation's own
                self._referee.fail(cause_of(error), traceback.format_exc())
                decision = self._referee.decision()
            with self._ledger.checkpoint.running():
                self._trainer.pause.end()
                self._answer_with(decision)
                is_running = self._off_clock()

    def _stretch(self) -> Segment:
        """Let the trainer train; its clock runs from the go until its parameters are here."""
        ledger, referee = self._ledger, self._referee
        before_s, waited_before_s = ledger.submission.elapsed_s, load.waited_by_this_thread_s()
        with self._load.timed(lambda: ledger.submission.elapsed_s):
            with ledger.submission.running():
                self._gauges.clock_runs = True
                self._trainer.answer()
                message = self._trainer.hear("segment")
            self._gauges.clock_runs = False
            self._trainer.pause.begin()
        self._waited_s += load.waited_by_this_thread_s() - waited_before_s
        segment = Segment.from_json(message)
        own_s, far_s = ledger.submission.elapsed_s - before_s, segment.clock_s - before_s
        again_s = segment.recompiled_s - ledger.recompilation.elapsed_s
        forgiven_s = min(again_s, self._forgivable_s, own_s)
        if forgiven_s > 0:
            ledger.forgive(forgiven_s)
            self._forgivable_s -= forgiven_s
            far_s += forgiven_s
        self._stretches += 1
        self._clock_difference_s += own_s - far_s
        if segment.evaluates and not segment.is_last and segment.error is None:
            limits, elapsed_s = referee.limits, ledger.submission.elapsed_s
            early_s = referee.due_s - elapsed_s - max(CLOCK_S, CLOCK_SHARE * elapsed_s)
            if limits.eval_every_steps is None and segment.step > 1 and early_s > 0:
                self._flag("an evaluation was asked for before it was due")
        return segment

    def _answer_with(self, decision: Decision) -> None:
        kept: dict[str, Any] = {}
        if self._plan.checkpoints and not decision.has_ended:
            kept = {
                "position": self._referee.position(),
                "files": self._folder.log.sizes(),
                "resources": self._meter.totals(),
                "load": self._load.totals(),
            }
        self._kept = kept
        self._trainer.answer(decision=dataclasses.asdict(decision), kept=kept)

    def _off_clock(self) -> bool:
        """Wait until the trainer has done what it does while the clock stands still. Return whether
        it goes on.
        """
        began_s = time.perf_counter()
        message = self._trainer.hear("ready", "closing")
        self._off_clock_s += time.perf_counter() - began_s
        for text in message["flags"]:
            self._flag(str(text))
        if message["kind"] == "closing":
            self._peak_process_bytes()
            self._peak_device_bytes = message["peak_device_bytes"]
            self._closing = message
            self._trainer.has_closed = True
            self._trainer.answer()
            if self._referee.status is None and not message["interrupted"]:
                raise TrainerDiedError(
                    {"cause": "the trainer ended before its trial did", "outside": False}
                )
            return False
        if self._referee.status is not None:
            raise TrainerDiedError(
                {"cause": "the trainer went on after its trial's end", "outside": False}
            )
        saved_bytes = int(message["saved_bytes"])
        if saved_bytes:
            self._saved_bytes += saved_bytes
            self._check_saved()
        return True

    def _check_saved(self) -> None:
        """Look whether what the trainer has saved is what it was given to save."""
        document = self._folder.checkpoints.newest_document() or {}
        saved = {name: document.get(name) for name in self._kept}
        position = document.get("position") or {}
        saved["position"] = {name: position.get(name) for name in self._kept["position"]}
        if json.dumps(saved) != json.dumps(self._kept):
            self._flag("a checkpoint has other times than those that were measured")

    def _judge_the_whole(self) -> None:
        clock_s = self._ledger.submission.elapsed_s
        # On a busy machine a message waits until its reader has a core.
        waited_s = self._waited_s + (self._load.report()["waited_s"] or 0.0)
        allowed_s = max(CLOCK_SHARE * clock_s, CLOCK_S * self._stretches) + waited_s
        if abs(self._clock_difference_s) > allowed_s:
            self._flag(
                f"the trainer's own clock differs by {self._clock_difference_s:+.3f} s from the "
                f"referee's {clock_s:.3f} s"
            )
        off_s = self._off_clock_s - self._saved_bytes / DISK_BYTES_PER_S
        if off_s > OFF_CLOCK_S + OFF_CLOCK_SHARE * clock_s:
            self._flag(f"the trainer worked {off_s:.1f} s while the clock stood still")

    def _end(self) -> dict[str, Any]:
        bench, plan, log = self._bench, self._plan, self._folder.log
        ended = Refereed(
            plan,
            self._referee,
            self._folder.flags,
            self._submitted.batch_size,
            bench.evaluator,
            self._meter,
            self._load,
            self._folder.parameters,
            self._seen,
            self._closing,
        )
        values = result.of(ended)
        log.result(values)
        if plan.save_model is not None:
            received = self._received()
            saved = assemble.save_model(
                Path(plan.save_model),
                self._referee.status,
                lambda: assemble.trained_model(bench.subject, bench.bound, *received.evaluated()),
            )
            self._say(saved)
        with contextlib.suppress(OSError):  # The trial has its result; a leftover does no harm.
            self._folder.checkpoints.clear()
        return values

    def _peak_process_bytes(self) -> int:
        """Return the most memory that the trainer has held so far."""
        with contextlib.suppress(OSError, ValueError):
            lines = Path(f"/proc/{self._trainer.process_id}/status").read_text().splitlines()
            sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
            self._peak_bytes = max([self._peak_bytes, *(1024 * int(size) for size in sizes)])
            return self._peak_bytes
        with contextlib.suppress(psutil.Error):
            held = psutil.Process(self._trainer.process_id).memory_info().rss
            self._peak_bytes = max(self._peak_bytes, held)
        return self._peak_bytes

    def _received(self, segment: Segment | None = None) -> "_Received":
        return _Received(self._bench, self._trainer.handover, self._own, segment)

    def _flag(self, text: str) -> None:
        if text not in self._seen:
            self._seen.append(text)

    def _say(self, text: str) -> None:
        assemble.say(self._report, text)


class _Received:
    """The parameters that are in the shared memory now, as the bench's own model has them."""

    def __init__(
        self,
        bench: Bench,
        shared: handover.Handover,
        own: tuple[Any, Any],
        segment: Segment | None = None,
    ) -> None:
        self._bench, self._shared, self._own = bench, shared, own
        self._has_finite = segment is None or segment.has_finite_params

    def evaluated(self) -> tuple[Any, Any]:
        return self._here

    def trained(self) -> tuple[Any, Any]:
        return self._here

    def are_finite(self) -> bool:
        return self._has_finite and self._bench.instruments.backend.is_finite(*self._here)

    def checksum(self) -> int:
        return self._bench.instruments.backend.checksum(*self._here)

    @functools.cached_property
    def _here(self) -> tuple[Any, Any]:
        return self._bench.instruments.backend.read(*self._own, self._shared.parameters())

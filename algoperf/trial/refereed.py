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
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import errors
from algoperf.backends.ranks import PARAMETERS
from algoperf.machine import (
    environment,
    hardware,
    load,
    processor_time,
    resources,
    stopping,
)
from algoperf.run_folder import run_log, writing
from algoperf.submission import submission_source
from algoperf.submission.blame import cause_of
from algoperf.trial import (
    assemble,
    evaluators,
    handover,
    messages,
    result,
    seeds,
)
from algoperf.trial.bench import Bench
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.far_trainer import Trainer, TrainerDiedError, died
from algoperf.trial.judgement import difference
from algoperf.trial.plan import TrialPlan
from algoperf.trial.referee import Decision, Referee, Segment

# How far the trainer's own clock may be off the referee's: a share, or seconds a stretch.
CLOCK_SHARE, CLOCK_S = 0.01, 0.005
# What the trainer may use while the clock stands still: seconds, a share of its clock, and the time
# that a slow disk takes for what it saves.
OFF_CLOCK_S, OFF_CLOCK_SHARE, DISK_BYTES_PER_S = 2.0, 0.05, 20e6
# And for each of the model's numbers, where processes put their parts together once at the end.
GATHERING_S_PER_NUMBER = 16e-9
STRETCH_S = 0.05  # And after each of the stretches that a user has asked for by their steps.
# What importing a submission and making its trial may take, before there is a clock: seconds, and
# seconds for each of the model's numbers.
LOADING_S, LOADING_S_PER_NUMBER = 5.0, 100e-9
# What a process says that it has spent on the others; see `Ranks.communication_s`.
COMMUNICATION = ("agreement_s", "gradients_s")


@dataclasses.dataclass
class Refereed:
    """A trial in two processes, with what its result needs.

    Attributes:
        closing: What the trainer says at the end.
        used: The processor time and the memory of each of several processes that trained.
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
    used: Sequence[Mapping[str, float]]

    def real_token_share(self) -> float | None:
        """Return the share of training tokens that were no padding; None without buckets."""
        share: float | None = self.closing.get("real_token_share")
        return share

    def processes(self) -> Sequence[Mapping[str, Any]]:
        """Return what each of several processes used that trained; nothing of one alone."""
        reported = self.closing.get("communication_s", [])
        spent_s = [*reported, *[{}] * len(self.used)]  # A trial that has failed says nothing.
        return [
            {"rank": rank, **used, **{name: spent_s[rank].get(name) for name in COMMUNICATION}}
            for rank, used in enumerate(self.used)
        ]

    def checksum(self) -> int | None:
        """Return the checksum of the last parameters, by the trainer."""
        checksum: int | None = self.closing.get("checksum")
        return checksum

    def raised_flags(self) -> Sequence[str]:
        """Return what the submission should not have done and was seen to do."""
        return self.seen


def run(
    bench: Bench,
    plan: TrialPlan,
    ledger: Ledger,
    report: assemble.Report,
    stops: stopping.Stops,
    attend: Callable[[Referee, Callable[[], int]], None] = lambda referee, step: None,
) -> dict[str, Any] | None:
    """Run one trial.

    Args:
        bench: What the trials of the study share.
        plan: The trial's plan.
        ledger: Its stopwatches.
        report: Called with the name and the values of each event.
        stops: What this process was asked; it is passed on to the trainer.
        attend: Called with the referee and what returns the trainer's step once there are any, for
            whoever watches the trial from another thread.

    Returns:
        Its result, or where it is paused what it would be; None where it was interrupted.

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
        attend: Callable[[Referee, Callable[[], int]], None],
    ) -> None:
        self._bench, self._plan, self._ledger = bench, plan, ledger
        self._report, self._stops, self._attend = report, stops, attend
        self._seen: list[str] = []
        self._off_clock_s = self._clock_difference_s = self._waited_s = 0.0
        self._saved_bytes = self._stretches = 0
        self._forgivable_s = 0.0  # What was charged for compiling, before an interruption.
        self._loading_s = 0.0
        self._checked: set[str] = set()  # The checkpoints that were compared, and counted.
        self._peak_bytes = 0
        self._peak_device_bytes: int | None = None
        self._used: list[dict[str, float]] = []
        self._closing: Mapping[str, Any] = {}

    def run(self) -> dict[str, Any] | None:
        self._spent_before_s = processor_time.total_s() if self._bench.trials else 0.0
        self._bench.trials += 1
        try:
            return self._run()
        except TrainerDiedError as error:
            error.cpu_s = self._cpu_s()
            raise
        except (evaluators.EvaluatorDiedError, evaluators.EvaluationError) as error:
            death = TrainerDiedError(error.error)
            death.cpu_s = self._cpu_s()
            raise death from error
        finally:
            self._bench.restore_rows()  # for the trial after it; this one's processes have ended

    def _cpu_s(self) -> float:
        return processor_time.total_s() - self._spent_before_s

    def _run(self) -> dict[str, Any] | None:
        with contextlib.ExitStack() as stack:
            with self._ledger.set_up.running():
                plan = self._plan
                # Before anything is compiled for this trial.
                self._cache = environment.compilation_cache(plan.framework, os.environ)
                self._bench.start_evaluators()
                source = Path(plan.submission)
                self._source_hash = submission_source.source_hash(source)
                self._trainer = Trainer(self._bench, plan, self._say)
                stack.callback(self._trainer.end)
                self._stops.ask = self._trainer.ask_to_stop
                if self._stops.are_asked:
                    self._trainer.ask_to_stop()
                seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
                self._own = self._bench.initialise(seed)
                note = self._bench.warm_up(*self._own)
                if note is not None:
                    self._say(note)
                self._begin()
                stack.enter_context(self._gauges)
                stack.enter_context(
                    assemble.discarding(self._folder.log, self._folder.preemptions or None)
                )
                with assemble.taking_back(self._folder):
                    is_running = self._initialise()
            self._train(is_running)
            if self._is_paused():
                self._judge_the_whole()
                return result.of_paused(
                    self._ended(), self._submitted.point, self._submitted.search_space
                )
            if self._closing.get("interrupted"):
                return None
            if self._stops.are_asked and self._referee.status == "failed":
                return None  # A signal to all of a job's processes may have been the cause.
            self._judge_the_whole()
            return self._end()

    def _begin(self) -> None:
        """Make what judges the trial, and answer what the trainer asks for before it trains."""
        self._initial = self._bench.instruments.backend.checksum(*self._own)
        self._trainer.hear("loading")
        with self._loading():
            self._trainer.answer()
            message = self._trainer.hear("submitted")
        # What it has started must not work while this process gets ready.
        with self._trainer.paused():
            self._get_ready(message)
        saved = self._folder.saved
        self._trainer.answer(
            folder=str(self._folder.log.folder),
            saved=None if saved is None else saved.document["files"],
            step=None if saved is None else saved.step,
            parts=self._folder.parts,
            limits=dataclasses.asdict(self._referee.limits),
            preemptions=self._folder.preemptions,
        )

    def _get_ready(self, message: Mapping[str, Any]) -> None:
        """Open the run folder, and make what judges and measures, as the submission has asked."""
        bench, plan = self._bench, self._plan
        files = self._source_files(message["source_files"])
        submitted = assemble.Submitted(
            message["point"],
            message["point_source"],
            message["batch_size"],
            message["note"],
            files,
            message["search_space"],
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
            self._report, with_arrays=False, evaluators=bench.evaluators,
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
        counters = self._trainer.handover.counters
        self._attend(self._referee, lambda: int(counters[0]))

    def _initialise(self) -> bool:
        """Time the submission's initialisation; put the trial where it was saved. Return whether
        there is anything to train.
        """
        referee, far = self._referee, self._trainer
        with self._loading():
            message = far.hear("begin")
        with far.paused():
            changed = difference(self._bench.signature, message["signature"])
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
                referee.fail(message["cause"], message["traceback"])
            elif referee.status is None:
                referee.initialised(self._received(), message["compiled_s"])
            saved = self._folder.saved
            if saved is not None and referee.status is None:
                self._go_on(saved.document)
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

    def _go_on(self, document: Mapping[str, Any]) -> None:
        """Put the referee where the trial was saved, as far as it is to be believed: the trainer
        has written it.
        """
        try:
            position = document["position"]
            self._referee.go_on(position)
            self._meter.go_on(document.get("resources", {}))
            self._load.go_on(document.get("load", {}))
            # No more is forgiven than was charged before.
            charged_s = self._ledger.submission.elapsed_s
            self._forgivable_s = min(messages.seconds(document["compiled_s"]), charged_s)
            paused = run_log.read_json(self._folder.log.folder / run_log.PAUSED) or {}
            for text in messages.flags([*position.get("flags", []), *paused.get("flags", [])]):
                self._flag(text)
            self._folder.log.go_back(document["files"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise errors.UserError(
                f"{self._folder.log.folder}: its checkpoint is not one that the library wrote "
                f"({cause_of(error)}); give --no-checkpoint to start over"
            ) from error
        newest = self._folder.checkpoints.newest_size()
        self._checked |= set() if newest is None else {newest[0]}
        self._compare_rows()
        assemble.say_that_it_goes_on(self._report, self._referee)

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        began_s = time.perf_counter()
        yield
        self._loading_s += time.perf_counter() - began_s

    def _source_files(self, claimed: Mapping[str, str]) -> dict[str, Path]:
        """Return the submission's files: those that its source names, and what it says that it has
        loaded beside them, each under its own name.
        """
        source = Path(self._plan.submission)
        if submission_source.source_hash(source) != self._source_hash:
            self._flag("the submission's source was changed while it was loaded")
        loaded = {}
        for path in map(Path, claimed.values()):
            with contextlib.suppress(OSError, ValueError, StopIteration):
                if path.is_absolute() and path.resolve() == path and path.is_file():
                    loaded[submission_source.key(source.parent, path)] = path
        return {**loaded, **submission_source.source_files(source)}

    def _train(self, is_running: bool) -> None:
        while is_running:
            segment = self._stretch()
            before = self._trainer.handover.checksum() if segment.evaluates else 0
            try:
                decision = self._referee.between(segment, self._received(segment))
            except (errors.UserError, writing.UnwritableError, evaluators.EvaluatorDiedError):
                raise
            except evaluators.EvaluationError as error:
                self._referee.fail(error.error["cause"], error.error["traceback"])
                decision = self._referee.decision()
            except Exception as error:  # an evaluation's own
                self._referee.fail(cause_of(error), traceback.format_exc())
                decision = self._referee.decision()
            if segment.evaluates and self._trainer.handover.checksum() != before:
                self._flag("the parameters changed while they were evaluated")
            with self._ledger.checkpoint.running():
                self._trainer.pause.end()
                self._answer_with(decision)
                is_running = self._off_clock()

    def _stretch(self) -> Segment:
        """Let the trainer train; its clock runs from the go until its parameters are here."""
        ledger = self._ledger
        before_s, waited_before_s = ledger.submission.elapsed_s, load.waited_by_this_thread_s()
        with self._load.timed(lambda: ledger.submission.elapsed_s):
            with ledger.submission.running():
                self._gauges.clock_runs = True
                self._trainer.answer()
                message = self._trainer.hear("segment")
            self._gauges.clock_runs = False
            self._trainer.pause.begin()
        self._waited_s += load.waited_by_this_thread_s() - waited_before_s
        segment = Segment.from_message(message)
        self._check_step(segment)
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
            self._check_due(segment)
        return segment

    def _check_step(self, segment: Segment) -> None:
        limits, before = self._referee.limits, self._referee.step
        if segment.step < before:
            raise died(f"the trainer's step went from {before} back to {segment.step}")
        if limits.max_steps is not None and segment.step > limits.max_steps:
            raise died(f"the trainer made step {segment.step} of {limits.max_steps}")

    def _check_due(self, segment: Segment) -> None:
        """Look whether an evaluation was due; one is after the first step."""
        referee, limits = self._referee, self._referee.limits
        elapsed_s = self._ledger.submission.elapsed_s
        if not referee.evaluations or elapsed_s > limits.budget_s:
            return
        early_s = referee.due_s - elapsed_s - max(CLOCK_S, CLOCK_SHARE * elapsed_s)
        every = limits.eval_every_steps
        is_again = segment.step == referee.evaluations[-1][0]
        if not is_again and limits.is_exchange(segment.step):
            return
        if is_again or (early_s > 0 if every is None else segment.step % every):
            self._flag("an evaluation was asked for before it was due")

    def _answer_with(self, decision: Decision) -> None:
        kept: dict[str, Any] = {}
        if self._plan.checkpoints and not decision.has_ended:
            kept = {
                "position": {**self._referee.position(), "flags": list(self._seen)},
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
            self._flag(text)
        if message["kind"] == "closing":
            self._peak_process_bytes()
            self._look_at_ranks()
            self._peak_device_bytes = message["peak_device_bytes"]
            self._closing = message
            if message["interrupted"] and not self._is_saved_as_given():
                self._folder.checkpoints.clear()  # No flag of this process is kept: it starts over.
            self._trainer.has_closed = True
            self._trainer.answer()
            if self._referee.status is None and not message["interrupted"]:
                raise died("the trainer ended before its trial did")
            return False
        if self._referee.status is not None:
            raise died("the trainer went on after its trial's end")
        newest = self._folder.checkpoints.newest_size()
        if newest is not None and newest[0] not in self._checked:
            # What it says buys time off the clock, so it counts no more than is there, and once.
            self._saved_bytes += min(message["saved_bytes"], newest[1])
            if not self._is_saved_as_given():
                self._flag("a checkpoint has other times than those that were measured")
            self._checked.add(newest[0])
        return True

    def _is_saved_as_given(self) -> bool:
        """Return whether what the trainer has saved last is what it was given to save."""
        newest = self._folder.checkpoints.newest_size()
        if newest is None or newest[0] in self._checked or not self._kept:
            return True
        document = self._folder.checkpoints.newest_document() or {}
        saved = {name: document.get(name) for name in self._kept}
        position = document.get("position") or {}
        saved["position"] = {name: position.get(name) for name in self._kept["position"]}
        is_step = position.get("step") == self._referee.step
        return is_step and json.dumps(saved) == json.dumps(self._kept)

    def _compare_rows(self) -> None:
        """Look whether the evaluations in the run folder are those that were measured."""
        columns = ("global_step", "accumulated_submission_time")
        measured = [(step, elapsed_s) for step, elapsed_s, _ in self._referee.evaluations]
        written = run_log.evaluations(self._folder.log.folder)
        rows = [tuple(row.get(column) for column in columns) for row in written]
        losses = [row.get("validation/loss") for row in written]
        expected = [metrics.get("validation/loss") for _, _, metrics in self._referee.evaluations]
        is_before = bool(measured) and self._ledger.submission.elapsed_s < measured[-1][1]
        if rows != measured or repr(losses) != repr(expected) or is_before:
            self._flag("the evaluations in the run folder are not those that were measured")

    def _judge_the_whole(self) -> None:
        if self._bench.have_rows_changed():
            self._flag("the training rows were changed in memory")
        self._compare_rows()
        clock_s = self._ledger.submission.elapsed_s
        report = self._load.report()
        contended = load.is_contended(report)
        # A message waits until its reader has a core.
        waited_s = self._waited_s + (report.get("waited_s") or 0.0)
        allowed_s = max(CLOCK_SHARE * clock_s, CLOCK_S * self._stretches) + waited_s
        if abs(self._clock_difference_s) > allowed_s and not contended:
            self._flag(
                f"the trainer's own clock differs by {self._clock_difference_s:+.3f} s from the "
                f"referee's {clock_s:.3f} s"
            )
        numbers = sum(math.prod(shape) for shape, _ in self._bench.signature.values())
        if self._loading_s > LOADING_S + LOADING_S_PER_NUMBER * numbers and not contended:
            self._flag(
                f"the submission took {self._loading_s:.1f} s to be loaded, before its clock"
            )
        off_s = self._off_clock_s - self._saved_bytes / DISK_BYTES_PER_S
        allowed_s = OFF_CLOCK_S + OFF_CLOCK_SHARE * clock_s
        if self._plan.shard == PARAMETERS:
            allowed_s += GATHERING_S_PER_NUMBER * numbers
        if self._referee.limits.eval_every_steps is not None:  # As often as a user likes.
            allowed_s += STRETCH_S * self._stretches
        if off_s > allowed_s and not contended:
            self._flag(f"the trainer worked {off_s:.1f} s while the clock stood still")

    def _is_paused(self) -> bool:
        """Return whether the trial is left for a later process, at the step that was asked for."""
        referee = self._referee
        is_there = referee.status is None and referee.limits.is_paused_at(referee.step)
        return is_there and bool(self._closing.get("interrupted"))

    def _ended(self) -> Refereed:
        return Refereed(
            self._plan,
            self._referee,
            self._folder.flags,
            self._submitted.batch_size,
            self._bench.evaluator,
            self._meter,
            self._load,
            self._folder.parameters,
            self._seen,
            self._closing,
            self._used,
        )

    def _end(self) -> dict[str, Any]:
        bench, plan, log = self._bench, self._plan, self._folder.log
        values = result.of(self._ended())
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
        """Return the most memory that a process which trains has held so far."""
        held_bytes = map(hardware.peak_memory_of_bytes, self._trainer.ranks())
        self._peak_bytes = max(self._peak_bytes, *held_bytes)
        return self._peak_bytes

    def _look_at_ranks(self) -> None:
        """Note what each of several processes has used, while they are there."""
        ranks = self._trainer.ranks()
        self._used = [
            {
                "cpu_s": processor_time.of_process_s(process_id),
                "peak_process_bytes": hardware.peak_memory_of_bytes(process_id),
            }
            for process_id in (ranks if len(ranks) > 1 else ())
        ]

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
        self._is_spread = False
        self._has_finite = segment is None or segment.has_finite_params

    def evaluated(self) -> tuple[Any, Any]:
        if not self._is_spread:
            self._bench.spread(self._shared)
            self._is_spread = True
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

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
import multiprocessing
import multiprocessing.util
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from algoperf import backends, errors, workload
from algoperf.backends.ranks import PARAMETERS
from algoperf.machine import (
    environment,
    hardware,
    load,
    memory,
    own_code,
    processor_time,
    resources,
    stopping,
    supervision,
)
from algoperf.run_folder import run_log, writing
from algoperf.submission import submission_source
from algoperf.submission.blame import cause_of
from algoperf.trial import (
    assemble,
    child,
    evaluators,
    handover,
    messages,
    outputs,
    result,
    seeds,
    trainer,
)
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.judgement import Signature, difference
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
GRACE_S = 5.0  # For a trainer to leave once it has closed.
# What importing a submission and making its trial may take, before there is a clock: seconds, and
# seconds for each of the model's numbers.
LOADING_S, LOADING_S_PER_NUMBER = 5.0, 100e-9


# What the traceback of a process has that has lost another one it trains with.
# What a process says that it has spent on the others; see `Ranks.communication_s`.
COMMUNICATION = ("agreement_s", "gradients_s")
TORN = re.compile(r"gloo|nccl|connection (reset|closed)|DistBackendError", re.IGNORECASE)


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


def died(cause: str) -> TrainerDiedError:
    """Return the error of a trainer whose trial has failed by what it did."""
    return TrainerDiedError({"cause": cause, "outside": False})


class Bench:
    """What the trials of one study share: the rows, a model to evaluate with, what it compiled.

    Args:
        plan: The plan of the first of these trials; the others differ in study and trial alone.
    """

    def __init__(self, plan: TrialPlan) -> None:
        self.context = multiprocessing.get_context("forkserver")
        # The process of a referee has the server already (`fork_server.start`).
        modules = child.modules(plan.framework)
        self.context.set_forkserver_preload([*modules, "algoperf.machine.fork_server"])
        # A signal to all processes of a job must not end the server.
        with stopping.held_back(), own_code.importable():
            forkserver.ensure_running()
        if plan.framework == "jax":  # The trainer has the accelerator's memory, by its own setting.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            if plan.devices is not None:
                backends.evaluate_on(plan.framework, 0, plan.devices)
        self.subject = assemble.look_up(plan)
        self.instruments = assemble.load_instruments(plan, self.subject, trains=False)
        data = assemble.load_data(plan, self.subject.definition, self.subject.scale)
        self.shared_rows: handover.SharedRows | None = None
        train = data.splits["train"]
        if isinstance(train, workload.ArrayRows):
            self.shared_rows = handover.SharedRows(self.context, train)
            splits = {**data.splits, "train": self.shared_rows.rows()}
            data = data.with_splits(splits)
        self.bound = assemble.bind(plan, self.subject, self.instruments.backend, data)
        self._plan = plan
        self.trials = 0
        self.signature: Signature = {}
        self._is_warm = False
        self._initialised(0)
        self._processes: evaluators.Processes | None = None
        self.evaluator = self._evaluator(plan)

    def _evaluator(self, plan: TrialPlan) -> Evaluator:
        """Return what evaluates, on all devices of the trials."""
        backend, *others = self.instruments.backend.on_each_device()
        arguments = (
            *(self.bound.workload, self.subject.definition),
            *(self.bound.data, self.subject.scale),
        )
        helpers: outputs.Helpers | None = None
        if plan.framework == "pytorch" and plan.evaluators:
            self._processes = helpers = evaluators.Processes(
                self.context, plan, plan.evaluators, self.signature
            )
        elif others:
            count = 1 + len(others)
            helpers = evaluators.Threads(
                [
                    outputs.Outputs(other, *arguments, (rank, count))
                    for rank, other in enumerate(others, start=1)
                ]
            )
        return Evaluator(backend, *arguments, helpers)

    def start_evaluators(self) -> None:
        """Start the processes that evaluate beside this one, where they do not run. What is started
        later is a trainer's.
        """
        if self._processes is not None:
            self._processes.start()

    def spread(self, shared: handover.Handover) -> None:
        """Let all that evaluate have the parameters that a trainer has handed over."""
        if self._processes is not None:
            self._processes.give(shared)

    def close(self) -> None:
        """End the processes that evaluate beside this one."""
        if self._processes is not None:
            self._processes.close()

    def initialise(self, seed: int) -> tuple[Any, Any]:
        """Return (parameters, model state) as a trial of that seed starts with them."""
        if self._processes is not None:
            self._processes.begin(seed)
        return self._initialised(seed)

    def _initialised(self, seed: int) -> tuple[Any, Any]:
        backend = self.instruments.backend
        state = backend.random_state(seeds.pair(seed, seeds.INIT))
        params, model_state = self.bound.workload.init_model_fn(state)
        self.signature = backend.signature(params, model_state)
        return params, model_state

    def have_rows_changed(self) -> bool:
        """Return whether the training rows are others than were loaded."""
        return self.shared_rows is not None and self.shared_rows.have_changed()

    def restore_rows(self) -> None:
        """Load the training rows again, where somebody has changed them."""
        if self.shared_rows is not None and self.shared_rows.have_changed():
            data = assemble.load_data(self._plan, self.subject.definition, self.subject.scale)
            train = data.splits["train"]
            assert isinstance(train, workload.ArrayRows)
            self.shared_rows.restore(train)

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluations need, once."""
        self.evaluator.restart()
        if not self._is_warm:
            self.evaluator.warm_up(params, model_state)
            self._is_warm = True
        if self._processes is not None:
            self._processes.wait()


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


class Trainer:
    """The trainer's process, and the line to it; with the others of a trial on several devices.

    Rank 0 speaks for all. The others say nothing but what ends them, and when one of them has
    ended, so has the trial.

    Args:
        bench: What the trials of the study share.
        plan: The trial's plan.
        note: Called with what the trainer has a user told.
    """

    def __init__(self, bench: Bench, plan: TrialPlan, note: Callable[[str], None]) -> None:
        data = bench.bound.data
        facts = {name: getattr(data, name) for name in trainer.FACTS}
        self.handover = handover.Handover(bench.context, bench.signature)
        without_secret = dataclasses.replace(plan, validation_seed=None)
        given = trainer.Given(
            without_secret.to_json(),
            bench.shared_rows,
            facts,
            self.handover,
            os.environ.get("PYTHONPATH"),
            # The server that forks them removes the folder.
            meeting=str(Path(multiprocessing.util.get_temp_dir()) / f"meeting_{bench.trials}"),
        )
        self._note = note
        self._killed_before = memory.oom_kills()
        self._others = set(supervision.descendants(os.getpid()))  # the fork server, and its kind
        self._line, self._process = self._start(bench, given)
        self._followers = [
            self._start(bench, dataclasses.replace(given, rank=rank))
            for rank in range(1, plan.world_size)
        ]
        assert self._process.pid is not None
        self.process_id = self._process.pid
        self.pause = supervision.Pause(self.processes, first=self.process_id)
        self.has_closed = False

    @staticmethod
    def _start(bench: Bench, given: trainer.Given) -> tuple[Any, Any]:
        """Start one process, and return the line to it and the process."""
        line, far_end = bench.context.Pipe()
        process = bench.context.Process(
            target=trainer.serve, args=(far_end, given), name=f"trainer {given.rank}"
        )
        with stopping.held_back():
            process.start()
        far_end.close()
        return line, process

    def processes(self) -> list[int]:
        """Return the trainer's process and all that it has started."""
        started = set(supervision.descendants(os.getpid())) - self._others
        return [self.process_id, *sorted(started - {self.process_id})]

    def ranks(self) -> list[int]:
        """Return the processes that train together, by rank."""
        return [process.pid for _, process in ((self._line, self._process), *self._followers)]

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
        with contextlib.suppress(OSError):  # It has ended, which is seen at the next look.
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
            try:
                message = self._next(*expected)
            except messages.InvalidMessageError as error:
                raise died(f"the trainer's message is not valid: {error}") from error
            kind = message["kind"]
            failure = message if kind == "crashed" else message.get("error")
            if self._followers and failure:
                self._blame_follower(failure["traceback"])
            if kind == "note":
                self._note(message["text"])
            elif kind == "user_error":
                raise _mistake(message)
            elif kind == "crashed":
                raise _crash(message)
            else:
                return message

    def _next(self, *expected: str) -> dict[str, Any]:
        ends = [process.sentinel for _, process in self._followers]
        ready = wait([self._line, self._process.sentinel, *ends])
        if self._line not in ready and self._process.sentinel not in ready:
            # If the submission failed on all devices, rank 0 says more of it.
            ready = wait([self._line, self._process.sentinel], GRACE_S / 5)
            if not ready:
                self._blame_follower()
        if self._line in ready:
            try:
                line = self._line.recv_bytes(messages.LONGEST_MESSAGE)
            except (EOFError, OSError):
                pass  # It has ended, closed the line, or sent more than anybody has to say.
            else:
                values = messages.parse(line)
                kind = values.get("kind")
                if kind not in (*expected, "note", "user_error", "crashed"):
                    shown = messages.text(str(kind))[:40]
                    raise died(f"the trainer said {shown!r}, expected {' or '.join(expected)}")
                return messages.read(values)
        self._process.join(GRACE_S)
        raise self._death(self._process, "the trainer closed its line to the referee")

    def _death(self, process: Any, still_there: str, of_rank: str = "") -> TrainerDiedError:
        """Return the error of a process that has ended, or closed its line."""
        code = process.exitcode
        if code is None:
            return died(still_there)
        now = memory.oom_kills()
        was_killed = None
        if now is not None and self._killed_before is not None:
            was_killed = now > self._killed_before
        has_stopped = stopping.has_stopped(code, was_asked=False) and code > 0
        death = supervision.cause_of_death(code, was_killed)
        death["cause"] = f"{of_rank}{death['cause']}"
        return TrainerDiedError(death, has_stopped=has_stopped)

    def _blame_follower(self, traceback: str | None = None) -> None:
        """Raise what ended another process than rank 0, if that is why rank 0 has failed.

        Args:
            traceback: Of the error that rank 0 has raised; None where it says nothing.
        """
        if traceback is not None and not TORN.search(traceback):
            return
        for rank, (line, process) in enumerate(self._followers, start=1):
            process.join(0 if traceback is None else GRACE_S / 5)
            if process.is_alive():
                continue
            if line.poll():
                with contextlib.suppress(EOFError, OSError):
                    message = messages.read(
                        messages.parse(line.recv_bytes(messages.LONGEST_MESSAGE))
                    )
                    if message["kind"] == "user_error":
                        raise _mistake(message)
                    if not TORN.search(message["traceback"]):
                        raise _crash(message, f"rank {rank}: ")
                    continue  # It has lost the others, as rank 0 has.
            raise self._death(process, "", f"rank {rank}: ")

    def end(self) -> None:
        """End the trainer and all that it started."""
        if self.has_closed:
            self._process.join(GRACE_S)
        supervision.kill(self.processes())
        self.pause.end()
        for line, process in ((self._line, self._process), *self._followers):
            process.join()
            line.close()
            process.close()


def _crash(message: Mapping[str, Any], of_rank: str = "") -> TrainerDiedError:
    error = {"cause": f"{of_rank}{message['cause']}", "traceback": message["traceback"]}
    return TrainerDiedError({**error, "outside": False})


def _mistake(message: Mapping[str, Any]) -> errors.UserError:
    mistake = errors.UserError(message["text"])
    mistake.add_note(message["traceback"])
    return mistake


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
                self._bench.warm_up(*self._own)
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

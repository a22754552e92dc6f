"""What judges a trial: from a stretch of training that was handed over to what follows from it.

A referee holds the target, the limits, the clock, the evaluation and the log. It knows of the
trainer only what a `Segment` says and the parameters that come with it, and answers with a
`Decision`. In one process with the trainer it is called as it is; in a process of its own
(`refereed`) the two travel as JSON, and the clock is the referee's own.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from algoperf.run_folder import crash_points
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.judgement import NotFinite, Signature, difference
from algoperf.trial.plan import LATE, OUTRUN
from algoperf.workload.crossing import Point

Evaluate = Callable[[str, Any, Any], dict[str, float]]  # split, params, model state -> metrics
Probe = Callable[[Any, Any], float]  # params, model state -> the target metric of a few rows
Scalars = Sequence[tuple[int, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class Segment:
    """What a trainer says of a stretch of training, once its device has finished it.

    Attributes:
        step: How many steps it has made in all.
        evaluates: Whether an evaluation or the end is due; else it is to be saved, or to stop.
        is_last: Whether the next evaluation is the last: the submission has completed training, or
            made all its steps.
        scalars: The training scalars since the last stretch: a step and its numbers by name.
        signature: The shape and type of each parameter and running statistic, by name.
        data_wait_s: How many seconds of its clock, in all, the trainer waited for data.
        clock_s: The seconds of training in all, by the trainer's own clock.
        recompiled_s: The seconds of it, in all, in which what an earlier process had compiled was
            compiled again.
        has_finite_params: Whether the parameters that train are finite, where they are others than
            those that are evaluated.
        error: The 'cause' and the 'traceback' of what the submission raised, else None.
    """

    step: int
    evaluates: bool
    is_last: bool = False
    scalars: Scalars = ()
    signature: Signature = dataclasses.field(default_factory=dict)
    data_wait_s: float = 0.0
    clock_s: float = 0.0
    recompiled_s: float = 0.0
    has_finite_params: bool = True
    error: Mapping[str, str] | None = None

    @classmethod
    def from_message(cls, values: Mapping[str, Any]) -> "Segment":
        """Return a segment from the fields of a message, as `messages.read` has checked them."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a referee has decided after a stretch of training.

    Attributes:
        has_ended: Whether the trial has a status.
        is_last: Whether the next evaluation is the last.
        due_s: The submission time from which on the next evaluation is due, in seconds.
        totals: The referee's ledger, as `Ledger.totals` has it.
        metrics: What was just measured, by '<split>/<name>'; None where nothing was.
    """

    has_ended: bool
    is_last: bool
    due_s: float
    totals: Mapping[str, float | None]
    metrics: Mapping[str, float] | None = None


class Handed(Protocol):
    """The parameters that come with a segment, or at the trial's begin."""

    def evaluated(self) -> tuple[Any, Any]:
        """Return (the parameters to evaluate, the model state)."""
        ...

    def trained(self) -> tuple[Any, Any]:
        """Return (the parameters that train, the model state)."""
        ...

    def are_finite(self) -> bool:
        """Return whether all of them, and those that train, are finite."""
        ...

    def checksum(self) -> int:
        """Return a checksum of the parameters that train and of the running statistics."""
        ...


def times(ledger: Ledger, step: int, preemptions: int) -> dict[str, float]:
    """The columns of an evaluation's row that are no metrics, in seconds."""
    submission_s, evaluation_s = ledger.submission.elapsed_s, ledger.evaluation.elapsed_s
    logging_s = ledger.logging.elapsed_s
    return {
        "accumulated_submission_time": submission_s,
        "accumulated_eval_time": evaluation_s,
        "accumulated_logging_time": logging_s,
        "global_step": step,
        "preemption_count": preemptions,
        "score": submission_s,
        "total_duration": submission_s + evaluation_s + logging_s,
    }


class Referee:
    """Judges one trial.

    Args:
        goal: The target.
        limits: The budget, and when evaluations are due.
        ledger: The trial's stopwatches. Whoever calls `between` has stopped that of training.
        evaluate: `evaluate(split, params, model_state)` measures a split.
        probe: `probe(params, model_state)` measures the target metric of a few validation rows;
            without it nothing is probed, and evaluations come by period.
        log: Has `scalars(rows)` and `evaluation(times, metrics)`.
        report: Called with the metrics of each evaluation.
        preemptions: How many processes worked on the trial before this one.

    Attributes:
        status: How the trial has ended; None while it goes on.
        error: The 'cause' and the 'traceback' of a trial that failed.
        evaluations: The step, the clock in seconds and the metrics of each evaluation.
        last_loss: The last training loss that was logged.
        step: The last step that was handed over.
        due_s: The submission time from which on the next evaluation is due, in seconds.
        cadence: What decides that, where it is by what evaluations cost; else None.
    """

    def __init__(
        self,
        *,
        goal: Goal,
        limits: Limits,
        ledger: Ledger,
        evaluate: Evaluate,
        probe: Probe | None = None,
        log: Any,
        report: Callable[[dict[str, float]], None] = lambda metrics: None,
        preemptions: int = 0,
    ) -> None:
        self.goal = goal
        self.limits = limits
        self.ledger = ledger
        self.preemptions = preemptions
        self.status: str | None = None
        self.error: Mapping[str, str] | None = None
        self.evaluations: list[tuple[int, float, dict[str, float]]] = []
        self.last_loss: float | None = None
        self.not_finite = NotFinite()
        self.step = 0
        self.signature: Signature = {}
        self.cadence = None if probe is None else limits.cadence(goal)
        self._evaluate = evaluate
        self._probe = probe
        self._log = log
        self._report = report
        self.due_s = 0.0
        self._is_last = False
        self._initial = 0

    def begin(self, signature: Signature, handed: Handed) -> None:
        """Take the trial's first parameters, and time the submission's initialisation from here."""
        self.signature = signature
        self._initial = handed.checksum()
        self.ledger.begin_initialisation()

    def initialised(self, handed: Handed, compiled_s: float) -> None:
        """End the initialisation of the submission's state, and charge what it hides.

        Args:
            handed: The parameters, which it must have left as they were.
            compiled_s: How many seconds of it the framework says that it compiled.
        """
        numbers = sum(math.prod(shape) for shape, _ in self.signature.values())
        self.ledger.end_initialisation(compiled_s, numbers)
        if handed.checksum() != self._initial:
            self.fail("init_optimizer_state changed the parameters")

    def between(self, segment: Segment, handed: Handed) -> Decision:
        """Judge a stretch of training; evaluate and record it where that is due.

        Args:
            segment: What the trainer says of it.
            handed: The parameters that came with it.
        """
        self.step = segment.step
        with self.ledger.logging.running():
            self._judge_training(segment)
        metrics = None
        if self.status is None and segment.evaluates and self._looks_at_all(handed):
            before_s = self.ledger.evaluation.elapsed_s
            with self.ledger.evaluation.running():
                metrics = self._measure(*handed.evaluated())
                has_finite_params = handed.are_finite()
            with self.ledger.logging.running():
                last_s = self.ledger.evaluation.elapsed_s - before_s
                self._record(metrics, has_finite_params, last_s)
        return self.decision(metrics)

    def decision(self, metrics: Mapping[str, float] | None = None) -> Decision:
        """Return what holds now, with what was just measured."""
        totals = self.ledger.totals()
        return Decision(self.status is not None, self._is_last, self.due_s, totals, metrics)

    def before_run(self) -> None:
        """Do nothing: in one process the trial starts the clock itself."""

    def take(self, handed: Handed) -> None:
        """Do nothing: in one process the parameters are where they are."""

    def fail(self, cause: str, details: str = "") -> None:
        """End the trial as failed."""
        self.status = "failed"
        self.error = {"cause": cause, "traceback": details}

    def _judge_training(self, segment: Segment) -> None:
        """Write the scalars; see what ends the trial without another evaluation."""
        if segment.error is not None:
            self.fail(segment.error["cause"], segment.error["traceback"])
        self._is_last = self._is_last or segment.is_last
        # A trial that is asked to stop before its first step has not had it.
        is_untouched = segment.step == 0 and self.status is None
        if self.ledger.first_step_s is None and not is_untouched:
            self.ledger.first_step_s = self.ledger.submission.elapsed_s
        self.ledger.data_wait_s = segment.data_wait_s
        self._log.scalars(segment.scalars)
        losses = [(step, values["loss"]) for step, values in segment.scalars if "loss" in values]
        self.last_loss = losses[-1][1] if losses else self.last_loss
        finite = [self.not_finite.is_finite("training loss", *each) for each in losses]
        if self.status is not None:
            return
        changed = difference(self.signature, segment.signature)
        if changed is not None:
            self.fail(f"update_params changed the parameters: {changed}")
        elif not all(finite) and not self.limits.keep_going:
            self.status = "diverged"
        elif self.ledger.submission.elapsed_s > self.limits.budget_s:
            # Without a target nothing is scored, so the end of the budget is an end like any other.
            self._is_last = self.goal.validation is None
            self.status = None if self._is_last else "budget"

    def _looks_at_all(self, handed: Handed) -> bool:
        """Probe, where evaluations come by what they cost; return whether all rows are due."""
        cadence, evaluation = self.cadence, self.ledger.evaluation
        if cadence is None or cadence.met or self._is_last:
            return True
        assert self._probe is not None
        before_s = evaluation.elapsed_s
        with evaluation.running():
            value = self._probe(*handed.evaluated())
        point = Point(self.ledger.submission.elapsed_s, self.step, value)
        cadence.probed(point, evaluation.elapsed_s - before_s)
        gives_up = point.time_s >= self.limits.gives_up_s
        if gives_up or cadence.wants_all() or self.limits.is_exchange(self.step):
            return True
        self.due_s = min(cadence.next_due_s(), self.limits.gives_up_s)
        return False

    def _next_due_s(self, value: float, elapsed_s: float, cost_s: float) -> float:
        """Return when the next evaluation or probe is due, after an evaluation of all rows."""
        if self.cadence is None:
            return self.limits.next_period_s(elapsed_s)
        self.cadence.evaluated(Point(elapsed_s, self.step, value), cost_s)
        return self.cadence.next_due_s()

    def _measure(self, params: Any, model_state: Any) -> dict[str, float]:
        splits = ["train", "validation"]
        if self.goal.until == "test" or self._is_last:
            splits.append("test")
        crash_points.reach("evaluation")
        metrics: dict[str, float] = {}
        for split in splits:
            metrics.update(self._measure_split(split, params, model_state))
        if self.goal.is_met(metrics) and "test" not in splits:
            metrics.update(self._measure_split("test", params, model_state))
        return metrics

    def _measure_split(self, split: str, params: Any, model_state: Any) -> dict[str, float]:
        values = self._evaluate(split, params, model_state)
        return {f"{split}/{name}": value for name, value in values.items()}

    def _record(self, metrics: dict[str, float], has_finite_params: bool, last_s: float) -> None:
        elapsed_s = self.ledger.submission.elapsed_s
        values = {name: metrics[name] for name in ("train/loss", "validation/loss")}
        values["parameters"] = 0.0 if has_finite_params else math.nan
        finite = [
            self.not_finite.is_finite(name, self.step, value) for name, value in values.items()
        ]
        self.evaluations.append((self.step, elapsed_s, metrics))
        self._log.evaluation(times(self.ledger, self.step, self.preemptions), metrics)
        value = metrics.get(f"validation/{self.goal.metric}", math.nan)
        # No later than when it may end the trial.
        self.due_s = min(self._next_due_s(value, elapsed_s, last_s), self.limits.gives_up_s)
        if self.goal.is_met(metrics):
            self.status = "reached"
        elif not all(finite) and not self.limits.keep_going:
            self.status = "diverged"
        elif self._is_last:
            self.status = "complete"
        elif self.limits.is_outrun(elapsed_s):
            self.status = OUTRUN
        elif self.limits.is_late(elapsed_s):
            self.status = LATE
        self._report(metrics)

    @property
    def predicted(self) -> float | None:
        """The target metric as the last probe predicts it; None where nothing is probed."""
        return None if self.cadence is None else self.cadence.predicted

    def position(self) -> dict[str, Any]:
        """Where the trial is, as far as the referee knows it, as plain values."""
        return {
            "ledger": self.ledger.totals(),
            "evaluations": self.evaluations,
            "due_s": self.due_s,
            "last_loss": self.last_loss,
            "not_finite": self.not_finite.seen,
            "cadence": None if self.cadence is None else self.cadence.position(),
        }

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Take up what an earlier process of the trial saved."""
        self.ledger.forget_initialisation()  # It was charged for the first one.
        self.ledger.go_on(position["ledger"])
        self.evaluations[:] = [
            (step, elapsed_s, metrics) for step, elapsed_s, metrics in position["evaluations"]
        ]
        self.step = position["step"]
        self.due_s, self.last_loss = position["due_s"], position["last_loss"]
        if self.cadence is not None and position.get("cadence") is not None:
            self.cadence.go_on(position["cadence"])
        self.not_finite.seen = {name: dict(seen) for name, seen in position["not_finite"].items()}

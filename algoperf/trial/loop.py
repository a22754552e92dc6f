"""The training loop of one trial: train until something is due, drain, judge, evaluate, write, go
on.
"""

import contextlib
import dataclasses
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from algoperf import errors, spec
from algoperf.backends import Backend
from algoperf.data.batches import TrainingQueue
from algoperf.run_folder import crash_points
from algoperf.submission.blame import cause_of, place_of
from algoperf.trial import seeds
from algoperf.trial.clock import InFlight, Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.judgement import NotFinite, difference
from algoperf.trial.scalars import ScalarBuffer
from algoperf.workload.crossing import Point

Function = Callable[..., Any]
# Given a function that returns (parameters, model state), watches a stretch in which the clock
# stands still.
Untimed = Callable[[Callable[[], Any]], contextlib.AbstractContextManager[None]]
Evaluate = Callable[[str, Any, Any], dict[str, float]]  # split, params, model state -> metrics
Probe = Callable[[Any, Any], float]  # params, model state -> the target metric of a few rows


@dataclasses.dataclass
class State:
    """What training changes."""

    params: Any
    model_state: Any
    optimizer_state: Any = None
    step: int = 0

    def trees(self) -> dict[str, Any]:
        """What is saved of it beside the step, by name."""
        return {
            "params": self.params,
            "model_state": self.model_state,
            "optimizer_state": self.optimizer_state,
        }


@dataclasses.dataclass(frozen=True)
class Functions:
    """The submission's functions, in the full form; each takes keywords and picks those that it
    names.

    `eval_params(params=, optimizer_state=)` returns other parameters to evaluate than those that
    train.
    """

    init_optimizer_state: Function
    update_params: Function
    data_selection: Function
    prepare_for_eval: Function | None = None
    eval_params: Function | None = None
    wants_train_state: bool = False
    logs_scalars: bool = True
    selects_data: bool = False  # by a function of its own
    is_own: Callable[[Path], bool] = lambda file: False  # whether a file is the submission's
    notes: Callable[[], Sequence[str]] = lambda: ()  # what its initialisation has a user know


class Keeper(Protocol):
    """What saves a trial, so that another process can go on with it (see `preservation`)."""

    def is_due(self) -> bool:
        """Whether the trial is to be saved, or to stop, before the next step."""

    def after_step(self, ledger: Ledger) -> None:
        """Told after each step, while the submission clock runs."""

    def save(self, trial: "Trial") -> None:
        """Save it; the device is drained."""

    def must_stop(self) -> bool:
        """Whether the trial was asked to stop."""


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


class Trial:
    """One trial: a seed, a hyperparameter point, a budget.

    `evaluate(split, params, model_state)` measures a split, `probe(params, model_state)` the target
    metric of a few validation rows; without it nothing is probed. `log` has `scalars(rows)` and
    `evaluation(times, metrics)`; `report(metrics)` is told of each evaluation. `keeper` saves the
    trial after evaluations and when it says so; a trial that is asked to stop is saved and left
    `interrupted`, without a status. `untimed(trained)` watches what is done off the clock;
    `trained()` is (parameters, model state). `timed()` is entered before each stretch in which the
    submission's clock runs, and left after it. `preemptions` is how many processes worked on the
    trial before this one.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        workload: spec.Workload,
        functions: Functions,
        queue: TrainingQueue,
        evaluate: Evaluate,
        probe: Probe | None = None,
        goal: Goal,
        limits: Limits,
        ledger: Ledger,
        log: Any,
        seed: int,
        hyperparameters: Any = None,
        report: Callable[[dict[str, float]], None] = lambda metrics: None,
        keeper: Keeper | None = None,
        untimed: Untimed = lambda trained: contextlib.nullcontext(),
        timed: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        preemptions: int = 0,
    ) -> None:
        self.goal = goal
        self.limits = limits
        self.ledger = ledger
        self.status: str | None = None
        self.error: dict[str, str] | None = None
        self.evaluations: list[
            tuple[int, float, dict[str, float]]
        ] = []  # step, clock in seconds, metrics
        self.last_loss: float | None = None
        self.not_finite = NotFinite()
        self._backend = backend
        self._workload = workload
        self._functions = functions
        self._queue = queue
        self._evaluate = evaluate
        self._probe = probe
        self.cadence = None if probe is None else limits.cadence(goal)
        self._log = log
        self._seed = seed
        self._report = report
        self._keeper = keeper
        self._untimed = untimed
        self._timed = timed
        self.last_batch: Any = None  # of a submission that selects data
        self.interrupted = False
        self.preemptions = preemptions
        self._in_flight = InFlight(backend.wait)
        self._scalars = ScalarBuffer()
        self._due_s = 0.0
        self._ending = False  # the next evaluation is the last
        self._eval_results: list[tuple[int, dict[str, float]]] = []
        workload.metrics_logger = self._scalars if functions.logs_scalars else None
        params, model_state = workload.init_model_fn(self._random_state(seeds.INIT))
        self.state = State(params, model_state)
        self._evaluated = params
        self._signature = backend.signature(params, model_state)
        self._train_state: dict[str, Any] = {}
        self._constant = {
            "workload": workload,
            "hyperparameters": hyperparameters,
            "loss_type": workload.loss_type,
            "current_params_types": workload.model_params_types,
            "input_queue": queue,
            "eval_results": self._eval_results,
            "train_state": MappingProxyType(self._train_state),
        }
        backend.seed(seeds.pair(seed, seeds.UPDATE))
        try:
            self._init_optimizer_state()
        except errors.UserError:
            raise
        except Exception as error:
            self._fail_by(error)

    def _init_optimizer_state(self) -> None:
        state = self.state
        state.optimizer_state = self._functions.init_optimizer_state(
            workload=self._workload,
            model_params=state.params,
            model_state=state.model_state,
            hyperparameters=self._constant["hyperparameters"],
            rng=self._random_state(seeds.OPTIMIZER),
        )
        self._backend.drain(state.params, state.model_state, state.optimizer_state)

    def run(self) -> None:
        """Train until the trial has a status, or is interrupted."""
        while self.status is None:
            evaluates = True
            try:
                with self._timed(), self.ledger.submission.running(self._drain):
                    evaluates = self.advance()
                    if evaluates:
                        self._prepare_for_eval()
            except errors.UserError:
                raise
            except (
                Exception
            ) as error:  # whatever a submission raises ends its trial, and is recorded
                self._fail_by(error)
            # A step that failed may have used its parameters up: there is nothing to compare.
            failed = self.status is not None
            watch = contextlib.nullcontext() if failed else self._untimed(self._trained)
            with watch:
                self._between(evaluates)
            if self.interrupted:
                return

    def _fail_by(self, error: Exception) -> None:
        where = place_of(error, self._functions.is_own)
        self.fail(f"{cause_of(error)}{where}", traceback.format_exc())

    @property
    def evaluated(self) -> Any:
        """The parameters that the last evaluation measured, after the trial's end."""
        return self._evaluated

    def _trained(self) -> tuple[Any, Any]:
        return self.state.params, self.state.model_state

    def _between(self, evaluates: bool) -> None:
        """What happens while the submission's clock stands still."""
        with self.ledger.logging.running():
            self._judge_training()
        if self.status is not None:
            return
        if evaluates:
            with self.ledger.evaluation.running():
                evaluates = self._look()
            if not evaluates:
                return
            before_s = self.ledger.evaluation.elapsed_s
            with self.ledger.evaluation.running():
                metrics = self._measure()
                has_finite_params = self._has_finite_params()
            with self.ledger.logging.running():
                last_s = self.ledger.evaluation.elapsed_s - before_s
                self._record(metrics, has_finite_params, last_s)
        if self._keeper is not None and self.status is None:
            with self.ledger.checkpoint.running():
                self._keeper.save(self)
            self.interrupted = self._keeper.must_stop()

    def advance(self) -> bool:
        """Train until an evaluation or the end is due; the submission clock runs. Return whether:
        else the trial is to be saved, or to stop.
        """
        clock = self.ledger.submission
        while not self._ending:
            if self._keeper is not None and self._keeper.is_due():
                return False
            try:
                self._step()
            except spec.TrainingCompleteError:
                self._ending = True
                return True
            if self._keeper is not None:
                self._keeper.after_step(self.ledger)
            step, elapsed_s = self.state.step, clock.elapsed_s
            self._ending = step == self.limits.max_steps
            if elapsed_s > self.limits.budget_s or self._is_due(step, elapsed_s):
                return True
        return True

    def _step(self) -> None:
        state = self.state
        arguments = self._arguments()
        rng = self._random_state(seeds.DATA_SELECTION, state.step)
        arguments["batch"] = self._functions.data_selection(**arguments, rng=rng)
        if self._functions.selects_data:
            self.last_batch = arguments["batch"]
        if self._functions.wants_train_state:
            self._update_train_state()
        rng = self._random_state(seeds.UPDATE, state.step)
        self._take("update_params", self._functions.update_params(**arguments, rng=rng))
        state.step += 1
        self._in_flight.add(self._backend.marker(state.params))

    def _take(self, function: str, returned: Any) -> None:
        if not isinstance(returned, tuple | list) or len(returned) != 3:
            raise TypeError(
                f"{function} returned {type(returned).__name__}, "
                "expected (optimizer state, parameters, model state)"
            )
        state = self.state
        state.optimizer_state, state.params, state.model_state = returned
        self._evaluated = state.params  # a step may have used up what the last evaluation had

    def _arguments(self) -> dict[str, Any]:
        return {
            **self._constant,
            "current_param_container": self.state.params,
            "model_state": self.state.model_state,
            "optimizer_state": self.state.optimizer_state,
            "global_step": self.state.step,
        }

    def _is_due(self, step: int, elapsed_s: float) -> bool:
        if step == 1:
            return True
        if self.limits.eval_every_steps is not None:
            return step % self.limits.eval_every_steps == 0
        return elapsed_s >= self._due_s

    def _prepare_for_eval(self) -> None:
        state = self.state
        if self._functions.prepare_for_eval is not None:
            rng = self._random_state(seeds.PREPARE_FOR_EVAL, state.step)
            prepared = self._functions.prepare_for_eval(**self._arguments(), rng=rng)
            self._take("prepare_for_eval", prepared)
        if self._functions.eval_params is not None:
            self._evaluated = self._functions.eval_params(
                params=state.params, optimizer_state=state.optimizer_state
            )

    def _drain(self) -> None:
        state = self.state
        self._backend.drain(state.params, state.model_state, state.optimizer_state, self._evaluated)
        self._in_flight.clear()

    def _judge_training(self) -> None:
        """After a drain: write the scalars; see what ends the trial without another evaluation."""
        is_untouched = (
            self.state.step == 0 and self.status is None
        )  # It stops before its first step.
        if self.ledger.first_step_s is None and not is_untouched:
            self.ledger.first_step_s = self.ledger.submission.elapsed_s
        self.ledger.data_wait_s = self._queue.wait_s
        rows = self._scalars.take(self._backend.fetch)
        self._log.scalars(rows)
        losses = [(step, values["loss"]) for step, values in rows if "loss" in values]
        self.last_loss = losses[-1][1] if losses else self.last_loss
        finite = [self.not_finite.is_finite("training loss", *each) for each in losses]
        if self.status is not None:
            return
        signature = self._backend.signature(self.state.params, self.state.model_state)
        changed = difference(self._signature, signature)
        if changed is not None:
            self.fail(f"update_params changed the parameters: {changed}")
        elif not all(finite) and not self.limits.keep_going:
            self.status = "diverged"
        elif self.ledger.submission.elapsed_s > self.limits.budget_s:
            # Without a target nothing is scored, so the end of the budget is an end like any other.
            self._ending = self.goal.validation is None
            self.status = None if self._ending else "budget"

    def _look(self) -> bool:
        """Probe, where evaluations come by what they cost; return whether all rows are due."""
        if self.cadence is None or self.cadence.met or self._ending:
            return True
        assert self._probe is not None
        step, elapsed_s = self.state.step, self.ledger.submission.elapsed_s
        before_s = self.ledger.evaluation.elapsed_s
        value = self._probe(self._evaluated, self.state.model_state)
        cost_s = self.ledger.evaluation.elapsed_s - before_s
        self.cadence.probed(Point(elapsed_s, step, value), cost_s)
        if self.cadence.wants_all():
            return True
        self._due_s = self.cadence.next_due_s()
        return False

    def _next_due_s(self, value: float, elapsed_s: float, cost_s: float) -> float:
        """Return when the next evaluation or probe is due, after an evaluation of all rows."""
        if self.cadence is None:
            return self.limits.next_period_s(elapsed_s)
        self.cadence.evaluated(Point(elapsed_s, self.state.step, value), cost_s)
        return self.cadence.next_due_s()

    def _measure(self) -> dict[str, float]:
        splits = ["train", "validation"]
        if self.goal.until == "test" or self._ending:
            splits.append("test")
        crash_points.reach("evaluation")
        metrics: dict[str, float] = {}
        for split in splits:
            metrics.update(self._measure_split(split))
        if self.goal.is_met(metrics) and "test" not in splits:
            metrics.update(self._measure_split("test"))
        return metrics

    def _measure_split(self, split: str) -> dict[str, float]:
        values = self._evaluate(split, self._evaluated, self.state.model_state)
        return {f"{split}/{name}": value for name, value in values.items()}

    def _has_finite_params(self) -> bool:
        trained, evaluated = self.state.params, self._evaluated
        return self._backend.is_finite(trained, self.state.model_state) and (
            evaluated is trained or self._backend.is_finite(evaluated)
        )

    def _record(self, metrics: dict[str, float], has_finite_params: bool, last_s: float) -> None:
        elapsed_s = self.ledger.submission.elapsed_s
        values = {name: metrics[name] for name in ("train/loss", "validation/loss")}
        values["parameters"] = 0.0 if has_finite_params else math.nan
        finite = [
            self.not_finite.is_finite(name, self.state.step, value)
            for name, value in values.items()
        ]
        self.evaluations.append((self.state.step, elapsed_s, metrics))
        self._eval_results.append((self.state.step, metrics))
        self._log.evaluation(times(self.ledger, self.state.step, self.preemptions), metrics)
        value = metrics.get(f"validation/{self.goal.metric}", math.nan)
        self._due_s = self._next_due_s(value, elapsed_s, last_s)
        if self.goal.is_met(metrics):
            self.status = "reached"
        elif not all(finite) and not self.limits.keep_going:
            self.status = "diverged"
        elif self._ending:
            self.status = "complete"
        self._report(metrics)

    def position(self) -> dict[str, Any]:
        """Where the trial is beside its parameters and states, as plain values."""
        return {
            "step": self.state.step,
            "queue": self._queue.position(),
            "ledger": self.ledger.totals(),
            "evaluations": self.evaluations,
            "due_s": self._due_s,
            "last_loss": self.last_loss,
            "not_finite": self.not_finite.seen,
            "cadence": None if self.cadence is None else self.cadence.position(),
        }

    def go_on(self, state: State, position: Mapping[str, Any]) -> None:
        """Take up what an earlier process of the trial saved."""
        self.state = state
        self._evaluated = state.params
        self._queue.go_to(position["queue"])
        self.ledger.go_on(position["ledger"])
        self.evaluations[:] = [
            (step, elapsed_s, metrics) for step, elapsed_s, metrics in position["evaluations"]
        ]
        self._eval_results[:] = [(step, metrics) for step, _, metrics in self.evaluations]
        self._due_s, self.last_loss = position["due_s"], position["last_loss"]
        if self.cadence is not None and position.get("cadence") is not None:
            self.cadence.go_on(position["cadence"])
        self.not_finite.seen = {name: dict(seen) for name, seen in position["not_finite"].items()}

    def fail(self, cause: str, details: str = "") -> None:
        """End the trial as failed."""
        self.status = "failed"
        self.error = {"cause": cause, "traceback": details}

    def _random_state(self, purpose: int, position: int = 0) -> spec.RandomState:
        return self._backend.random_state(seeds.pair(self._seed, purpose, position))

    def _update_train_state(self) -> None:
        ledger = self.ledger
        self._train_state.update(
            validation_goal_reached=False,
            test_goal_reached=False,
            is_time_remaining=ledger.submission.elapsed_s <= self.limits.budget_s,
            last_eval_time=self.evaluations[-1][1] if self.evaluations else 0.0,
            training_complete=self._ending,
            accumulated_submission_time=ledger.submission.elapsed_s,
            accumulated_eval_time=ledger.evaluation.elapsed_s,
            accumulated_logging_time=ledger.logging.elapsed_s,
            last_step_end_time=ledger.submission.elapsed_s,
        )

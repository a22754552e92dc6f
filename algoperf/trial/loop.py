"""The training loop of one trial: train until something is due, drain, hand over, go on."""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from algoperf import errors, spec
from algoperf.backends import Backend
from algoperf.backends.ranks import ALONE, Ranks
from algoperf.data.batches import TrainingQueue
from algoperf.run_folder.state import outline
from algoperf.submission.blame import cause_of, place_of
from algoperf.trial import seeds
from algoperf.trial.clock import InFlight, Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.judgement import NotFinite
from algoperf.trial.referee import Decision, Evaluate, Handed, Probe, Referee, Scalars, Segment
from algoperf.trial.scalars import ScalarBuffer

Function = Callable[..., Any]
# What follows a step. Of what several processes want the largest is done.
STEP, SAVE, EVALUATE, END = range(4)
# Given a function that returns (parameters, model state), watches a stretch in which the clock
# stands still.
Untimed = Callable[[Callable[[], Any]], contextlib.AbstractContextManager[None]]


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
    train. `indices_of_others(optimizer)` are the places in an optimizer's saved state of what other
    processes have of it.
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
    indices_of_others: Callable[[Any], Collection[int]] = lambda optimizer: ()
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


class Judge(Protocol):
    """What a trial is handed over to: a `Referee`, or what speaks with one in another process."""

    status: str | None
    error: Mapping[str, str] | None
    evaluations: list[tuple[int, float, dict[str, float]]]
    last_loss: float | None
    not_finite: NotFinite

    @property
    def predicted(self) -> float | None:
        """The target metric as the last probe predicts it; None where that is not known."""

    def begin(self, signature: Mapping[str, Any], handed: Handed) -> None:
        """Take the trial's first parameters, and time the submission's initialisation from here."""

    def initialised(self, handed: Handed, compiled_s: float) -> None:
        """End the initialisation, of which the framework compiled for so many seconds."""

    def before_run(self) -> None:
        """Return when the clock of the next stretch may start."""

    def take(self, handed: Handed) -> None:
        """Receive the parameters at the end of a stretch, while the clock still runs."""

    def between(self, segment: Segment, handed: Handed) -> Decision:
        """Return what follows from a stretch of training."""
        ...

    def fail(self, cause: str, details: str = "") -> None:
        """End the trial as failed."""

    def position(self) -> dict[str, Any]:
        """Return what it knows of where the trial is, as plain values."""
        ...

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Take up what an earlier process of the trial saved."""


class Trial:
    """One trial: a seed, a hyperparameter point, a budget.

    `referee` judges what is handed over to it after each stretch of training; where it is None, the
    trial makes one of `evaluate(split, params, model_state)`, which measures a split,
    `probe(params, model_state)`, which measures the target metric of a few rows, `goal`, `log`,
    which has `scalars(rows)` and `evaluation(times, metrics)`, and `report(metrics)`, which is told
    of each evaluation. `keeper` saves the trial after evaluations and when it says so; a trial that
    is asked to stop is saved and left `interrupted`, without a status. `untimed(trained)` watches
    what is done off the clock; `trained()` is (parameters, model state). `timed()` is entered
    before each stretch in which the submission's clock runs, and left after it. `on_step(step)` is
    told of each step. `preemptions` is how many processes worked on the trial before this one.
    `ranks` are the processes that train it together.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        workload: spec.Workload,
        functions: Functions,
        queue: TrainingQueue,
        limits: Limits,
        ledger: Ledger,
        seed: int,
        referee: Judge | None = None,
        evaluate: Evaluate | None = None,
        probe: Probe | None = None,
        goal: Goal | None = None,
        log: Any = None,
        hyperparameters: Any = None,
        report: Callable[[dict[str, float]], None] = lambda metrics: None,
        keeper: Keeper | None = None,
        untimed: Untimed = lambda trained: contextlib.nullcontext(),
        timed: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        on_step: Callable[[int], None] | None = None,
        preemptions: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        if referee is None:
            assert evaluate is not None
            assert goal is not None
            referee = Referee(
                goal=goal,
                limits=limits,
                ledger=ledger,
                evaluate=evaluate,
                probe=probe,
                log=log,
                report=report,
                preemptions=preemptions,
            )
        self.referee = referee
        self.limits = limits
        self.ledger = ledger
        self._backend = backend
        self._workload = workload
        self._functions = functions
        self._queue = queue
        self._seed = seed
        self._keeper = keeper
        self._untimed = untimed
        self._timed = timed
        self._on_step = on_step
        self.last_batch: Any = None  # of a submission that selects data
        self.interrupted = False
        self.preemptions = preemptions
        self._in_flight = InFlight(
            lambda: backend.marker(self.state.params),
            backend.wait,
            lambda: ledger.submission.elapsed_s,
            together=backend.steps_together,
        )
        self._scalars = ScalarBuffer()
        self._due_s = 0.0
        self._ending = False  # the next evaluation is the last
        self._error: dict[str, str] | None = None  # that the last stretch ended with
        self._taken: Scalars = ()
        self._eval_results: list[tuple[int, dict[str, float]]] = []
        self._last_evaluation_s = 0.0
        workload.metrics_logger = self._scalars if functions.logs_scalars else None
        params, model_state = workload.init_model_fn(self._random_state(seeds.INIT))
        self.state = State(params, model_state)
        self._evaluated = params
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
        referee.begin(self._signature(), self)
        compiled_s = backend.compiled_s()
        try:
            self._init_optimizer_state()
        except errors.UserError:
            raise
        except Exception as error:
            self._fail_by(error)
            referee.fail(**self._failure())
        else:
            referee.initialised(self, backend.compiled_s() - compiled_s)

    @property
    def status(self) -> str | None:
        """How the trial has ended; None while it goes on."""
        return self.referee.status

    @property
    def is_paused(self) -> bool:
        """Whether it has come to the step at which it is left for a later process."""
        return self.status is None and self.limits.is_paused_at(self.state.step)

    @property
    def error(self) -> Mapping[str, str] | None:
        """The 'cause' and the 'traceback' of a trial that failed."""
        return self.referee.error

    @property
    def evaluations(self) -> list[tuple[int, float, dict[str, float]]]:
        """The step, the clock in seconds and the metrics of each evaluation."""
        return self.referee.evaluations

    @property
    def last_loss(self) -> float | None:
        """The last training loss that was logged."""
        return self.referee.last_loss

    @property
    def not_finite(self) -> NotFinite:
        """The values that were not finite."""
        return self.referee.not_finite

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
        """Train until the trial has a status, is paused, or interrupted."""
        while self.status is None:
            if self.is_paused:
                self.interrupted = True
                return
            evaluates = True
            self.referee.before_run()
            try:
                with self._timed(), self.ledger.submission.running(self._finish_stretch):
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
            failed = self._error is not None
            watch = contextlib.nullcontext() if failed else self._untimed(self.trained)
            with watch:
                self._between(evaluates)
            if self.interrupted:
                return

    def _fail_by(self, error: Exception) -> None:
        where = place_of(error, self._functions.is_own)
        self._error = {"cause": f"{cause_of(error)}{where}", "traceback": traceback.format_exc()}

    def _failure(self) -> dict[str, str]:
        assert self._error is not None
        return {"cause": self._error["cause"], "details": self._error["traceback"]}

    def evaluated(self) -> tuple[Any, Any]:
        """Return (the parameters that the last evaluation measured, the model state)."""
        return self._evaluated, self.state.model_state

    def trained(self) -> tuple[Any, Any]:
        """Return (the parameters that train, the model state)."""
        return self.state.params, self.state.model_state

    def are_finite(self) -> bool:
        """Return whether all parameters, those that train and those that are evaluated, are."""
        trained, evaluated = self.state.params, self._evaluated
        return self._backend.is_finite(trained, self.state.model_state) and (
            evaluated is trained or self._backend.is_finite(evaluated)
        )

    def checksum(self) -> int:
        """Return a checksum of the parameters that train and of the running statistics."""
        return self._backend.checksum(self.state.params, self.state.model_state)

    def _between(self, evaluates: bool) -> None:
        """What happens while the submission's clock stands still."""
        decision = self.referee.between(self._segment(evaluates), self)
        self._ending = self._ending or decision.is_last
        self._due_s = decision.due_s
        if decision.metrics is not None:
            self._eval_results.append((self.state.step, dict(decision.metrics)))
            self._last_evaluation_s = self.ledger.submission.elapsed_s
        is_probe = evaluates and decision.metrics is None
        if self._keeper is not None and not decision.has_ended and not is_probe:
            with self.ledger.checkpoint.running():
                self._keeper.save(self)
            self.interrupted = self._keeper.must_stop()

    def _segment(self, evaluates: bool) -> Segment:
        """Return what the stretch that has just ended was."""
        failed = self._error is not None
        if failed:  # A step that raised an error left what it had logged before.
            with self.ledger.logging.running():
                self._taken = self._scalars.take(self._backend.fetch)
        return Segment(
            step=self.state.step,
            evaluates=evaluates,
            is_last=self._ending,
            scalars=self._taken,
            signature={} if failed else self._signature(),
            data_wait_s=self._queue.wait_s,
            clock_s=self.ledger.submission.elapsed_s,
            recompiled_s=self.ledger.recompilation.elapsed_s,
            error=self._error,
        )

    def _signature(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return self._backend.signature(self.state.params, self.state.model_state)

    def advance(self) -> bool:
        """Train until an evaluation or the end is due; the submission clock runs. Return whether:
        else the trial is to be saved, or to stop.
        """
        if not self._ending and self._ranks.largest(self._is_save_due()):
            return False
        while not self._ending:
            # The processes of a trial do the same: what one of them wants, all do.
            follows = self._ranks.largest(self._step_and_look())
            self._ending = follows == END
            if follows:
                return follows != SAVE
        return True

    def _step_and_look(self) -> int:
        """Make a step; return what is to follow, as far as this process knows."""
        try:
            self._step()
        except spec.TrainingCompleteError:
            return END
        if self._keeper is not None:
            self._keeper.after_step(self.ledger)
        step, elapsed_s = self.state.step, self.ledger.submission.elapsed_s
        if self._on_step is not None:
            self._on_step(step)
        if step == self.limits.max_steps:
            return END
        if elapsed_s > self.limits.budget_s or self._is_due(step, elapsed_s):
            return EVALUATE
        return SAVE if self._is_save_due() else STEP

    def _is_save_due(self) -> bool:
        return self._keeper is not None and self._keeper.is_due()

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
        self._in_flight.add()

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
        if step == 1 or self.limits.is_exchange(step):
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

    def _finish_stretch(self) -> None:
        """Wait for the device, and hand over what was computed, at the submission's expense."""
        self._drain()
        self._taken = self._scalars.take(self._backend.fetch)
        self.referee.take(self)

    def _drain(self) -> None:
        state = self.state
        self._backend.drain(state.params, state.model_state, state.optimizer_state, self._evaluated)
        self._in_flight.clear()

    def position(self) -> dict[str, Any]:
        """Where the trial is beside its parameters and states, as plain values."""
        return {
            "step": self.state.step,
            "queue": self._queue.position(),
            **self.referee.position(),
        }

    def give_up_state(self) -> State:
        """Return the `outline` of the state; the first values are not kept, so that what `go_on`
        takes up does not lie beside them.
        """
        outlined = {name: outline(tree) for name, tree in self.state.trees().items()}
        self.state = State(**outlined, step=self.state.step)
        self._evaluated = self.state.params
        return self.state

    def go_on(self, state: State, position: Mapping[str, Any]) -> None:
        """Take up what an earlier process of the trial saved."""
        self.state = state
        self._evaluated = state.params
        self._queue.go_to(position["queue"])
        self.referee.go_on(position)
        evaluations = position["evaluations"]
        self._eval_results[:] = [(step, metrics) for step, _, metrics in evaluations]
        self._last_evaluation_s = evaluations[-1][1] if evaluations else 0.0
        self._due_s = position["due_s"]

    def seed_anew(self) -> None:
        """Seed the framework's generator for the step that the trial goes on from: where a process
        has joined it there, so that it draws what no process has drawn before.
        """
        self._backend.seed(seeds.pair(self._seed, seeds.UPDATE, self.state.step))

    def fail(self, cause: str, details: str = "") -> None:
        """End the trial as failed."""
        self.referee.fail(cause, details)

    def _random_state(self, purpose: int, position: int = 0) -> spec.RandomState:
        return self._backend.random_state(seeds.pair(self._seed, purpose, position))

    def _update_train_state(self) -> None:
        ledger = self.ledger
        self._train_state.update(
            validation_goal_reached=False,
            test_goal_reached=False,
            is_time_remaining=ledger.submission.elapsed_s <= self.limits.budget_s,
            last_eval_time=self._last_evaluation_s,
            training_complete=self._ending,
            accumulated_submission_time=ledger.submission.elapsed_s,
            accumulated_eval_time=ledger.evaluation.elapsed_s,
            accumulated_logging_time=ledger.logging.elapsed_s,
            last_step_end_time=ledger.submission.elapsed_s,
        )

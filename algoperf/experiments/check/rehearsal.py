"""A few steps of a submission in the real training loop, loaded afresh, with every update watched.

`Rehearsal.updates` holds a checksum of every parameter after each update, so that two rehearsals
can be compared bit for bit without keeping their arrays.
"""

import dataclasses
import json
import math
import os
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from algoperf import errors, spec
from algoperf.data.batches import TrainingQueue
from algoperf.experiments.check import verdicts
from algoperf.experiments.check.case import Case, Rehearsal, Saved
from algoperf.run_folder import state, state_kinds
from algoperf.submission import loading, older
from algoperf.submission.blame import cause_of, place_of
from algoperf.trial import adapt, seeds
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Functions, State, Trial
from algoperf.trial.scalars import ScalarBuffer

STEPS = 12
SAVED_AT = 6
EARLY_AT = 4  # the frameworks' rounding errors have not grown yet
EVAL_EVERY_STEPS = 2
BATCH_SIZE = 16


class ParametersChangedError(Exception):
    """The parameters have other names, shapes or types than the model's."""


def rehearse(
    case: Case,
    *,
    name: str | None = None,
    evaluate: bool = False,
    saved: Saved | None = None,
    save: bool = False,
    steps: int = STEPS,
) -> Rehearsal:
    """Train: under another name, with evaluations in between, from a saved state, saving one."""
    watched = Rehearsal()
    try:
        _Watch(case, watched, name).train(evaluate, saved, save, steps)
    except errors.UserError as error:
        watched.problem = watched.problem or (verdicts.INITIALISES, str(error))
    return watched


class _Watch:
    """A trial whose submission's functions are watched."""

    def __init__(self, case: Case, rehearsal: Rehearsal, name: str | None) -> None:
        self._case, self._found = case, rehearsal
        self._process_id = os.getpid()
        self._backend = case.backend
        random.seed(case.seed)  # as a trial's process does
        loaded = case.load()
        self._is_full_form = loaded.outline.is_full_form
        self._bound = case.bind(name)
        if case.point is not None:
            rehearsal.hyperparameters = spec.make_hyperparameters(case.point)
        self._functions = adapt.submission_functions(
            loaded, case.backend, self._bound, rehearsal.hyperparameters
        )
        self._view = older.view(
            loaded.contract, self._bound, case.backend.place, rehearsal.hyperparameters
        )
        rehearsal.evaluates = tuple(
            each
            for each in ("prepare_for_eval", "eval_params")
            if getattr(self._functions, each) is not None
        )
        self._signature: Mapping[str, Any] = {}
        self._train_rows = case.data.splits["train"]

    def train(self, evaluate: bool, saved: Saved | None, save: bool, steps: int) -> None:
        trial = self._trial(evaluate, steps)
        if self._found.problem is not None:
            return
        scalars = ScalarBuffer()
        if saved is not None:
            self._go_on(trial, saved)
        try:
            if evaluate:
                trial.run()
                if trial.error is not None and self._found.problem is None:
                    self._found.problem = (verdicts.EVALUATION, trial.error["cause"])
                return
            self._view.workload.metrics_logger = scalars if self._functions.logs_scalars else None
            self._step(trial, save, steps)
            self._look_at_the_end(trial, scalars)
        except errors.UserError:
            raise
        except BaseException as error:  # SystemExit and its like among them
            if os.getpid() != self._process_id:
                raise  # A process that the submission forked leaves as it wants to.
            check = verdicts.EVALUATION if evaluate else verdicts.UPDATES
            self._found.problem = self._found.problem or (check, cause_of(error))

    def _trial(self, evaluate: bool, steps: int) -> Trial:
        case = self._case
        queue = TrainingQueue(self._train_rows, BATCH_SIZE, case.seed, self._view.place)
        trial = Trial(
            backend=case.backend,
            workload=self._view.workload,
            functions=self._around(self._functions),
            queue=queue,
            evaluate=self._evaluate,
            goal=Goal(case.definition.target_metric, True, None),
            limits=Limits(math.inf, math.inf, EVAL_EVERY_STEPS if evaluate else 1, steps),
            ledger=Ledger(),
            log=_NoLog(),
            seed=seeds.trial_seed(case.seed, 0, 1),
            hyperparameters=self._found.hyperparameters,
        )
        self._queue = queue
        if self._found.problem is None:
            self._signature = case.backend.signature(trial.state.params)
            self._found.first = self._neutral(trial.state.params)
        return trial

    def _step(self, trial: Trial, save: bool, steps: int) -> None:
        """Step by step, without the evaluations in between."""
        before = -1
        while before < trial.state.step < steps:
            before = trial.state.step
            trial.advance()
            if save and trial.state.step == SAVED_AT:
                self._save(trial)

    def _save(self, trial: Trial) -> None:
        try:
            arrays, structure = state.to_arrays(trial.state.trees())
        except errors.UserError as error:
            self._found.saved = str(error)
            return
        structure = json.loads(json.dumps(structure))  # as a checkpoint's file has it
        self._found.saved = Saved(
            trial.state.step, self._queue.position(), arrays, structure, state_kinds.generators()
        )

    def _go_on(self, trial: Trial, saved: Saved) -> None:
        tree = state.restore(saved.arrays, saved.structure, trial.state.trees())
        trial.state = State(**tree, step=saved.step)
        self._queue.go_to(saved.position)
        state_kinds.set_generators(saved.generators)

    def _look_at_the_end(self, trial: Trial, scalars: ScalarBuffer) -> None:
        now = trial.state
        rows = scalars.take(self._backend.fetch)
        self._found.losses = [values["loss"] for _, values in rows if "loss" in values]
        self._found.losses.append(self._loss(now.params, now.model_state))

    def _loss(self, params: Any, model_state: Any) -> float:
        count = min(BATCH_SIZE, len(self._train_rows))
        placed = self._backend.place(self._train_rows.take(np.arange(count)))
        first = self._view.first
        losses, _ = self._backend.predict(self._bound, first(params), first(model_state), placed)
        return float(np.mean(self._backend.fetch(losses)))

    def _evaluate(self, split: str, params: Any, model_state: Any) -> dict[str, float]:
        metric = self._case.definition.target_metric
        if split != "validation":
            return {"loss": 0.0, metric: 0.0}
        self._check_parameters(params, "what is to be evaluated")
        return {"loss": self._loss(params, model_state), metric: 0.0}

    def _neutral(self, params: Any) -> dict[str, np.ndarray]:
        bound: Any = self._bound
        values: dict[str, np.ndarray] = bound.to_neutral(self._view.first(params))
        return values

    def _check_parameters(self, params: Any, what: str) -> None:
        try:
            now = self._backend.signature(params)
        except Exception as error:
            kind = type(params).__qualname__
            raise ParametersChangedError(f"{what} is a {kind}, not the parameters") from error
        for name in (*self._signature, *now):
            if self._signature.get(name) != now.get(name):
                expected, got = (_shape(each.get(name)) for each in (self._signature, now))
                raise ParametersChangedError(f"{what}: {name} is {got}, expected {expected}")

    def _around(self, functions: Functions) -> Functions:
        init, update = functions.init_optimizer_state, functions.update_params
        own = self._is_full_form
        optimizer = loading.OPTIMIZER_FUNCTIONS[self._backend.name]
        init_name = "init_optimizer_state" if own else optimizer
        update_name = "update_params" if own else f"an update of {optimizer}'s"

        def init_optimizer_state(**arguments: Any) -> Any:
            returned = self._calling(verdicts.INITIALISES, init_name)(lambda: init(**arguments))
            if not own and self._backend.name == "pytorch":
                _check_torch_optimizer(returned, init_name)
            self._found.notes = tuple(functions.notes())
            return returned

        def update_params(**arguments: Any) -> Any:
            batch = arguments["batch"]
            before = self._values(batch)
            returned = self._calling(verdicts.UPDATES, update_name)(lambda: update(**arguments))
            if self._found.batch_problem is None:
                problem = self._batch_problem(before, batch)
                self._found.batch_problem = problem and f"{update_name} {problem}"
            if isinstance(returned, tuple | list) and len(returned) == 3:
                self._calling(verdicts.PARAMETERS, "")(
                    lambda: self._check_parameters(returned[1], f"what {update_name} returned")
                )
                self._found.last = self._neutral(returned[1])
                if len(self._found.updates) + 1 == EARLY_AT:
                    self._found.early = self._found.last
                self._found.updates.append(
                    {name: zlib.crc32(value.tobytes()) for name, value in self._found.last.items()}
                )
            return returned

        return dataclasses.replace(
            functions, init_optimizer_state=init_optimizer_state, update_params=update_params
        )

    def _calling(self, check: str, name: str) -> Callable[[Callable[[], Any]], Any]:
        """Call a function; of what it raises, remember which check that fails, and why."""

        def call(function: Callable[[], Any]) -> Any:
            try:
                return function()
            except spec.TrainingCompleteError:
                raise
            except BaseException as error:  # SystemExit and its like among them
                self._found.problem = self._problem(error, check, name)
                raise

        return call

    def _problem(self, error: BaseException, check: str, name: str) -> tuple[str, str]:
        point = self._found.hyperparameters
        if isinstance(error, AttributeError) and point is not None and error.obj is point:
            has = ", ".join(self._case.point or ())
            reason = f"{name} reads hyperparameter {error.name!r}; the point has: {has}"
            return verdicts.HYPERPARAMETERS, reason + place_of(error, self._functions.is_own)
        if isinstance(error, errors.UserError | ParametersChangedError):
            return check, str(error)
        return check, f"{name} raised {cause_of(error)}{place_of(error, self._functions.is_own)}"

    def _values(self, batch: Any) -> dict[str, np.ndarray]:
        """Copy a batch's arrays; none of what `data_selection` returned that is no batch, like the
        queue itself, from which `update_params` then draws as many batches as it wants.
        """
        if not isinstance(batch, Mapping):
            return {}
        return {name: np.array(self._backend.fetch(value)) for name, value in batch.items()}

    def _batch_problem(self, before: Mapping[str, np.ndarray], batch: Any) -> str | None:
        if not isinstance(batch, Mapping):
            return None
        for name in (*before, *batch):
            if name not in batch or name not in before:
                return f"{'added' if name in batch else 'took'} batch[{name!r}]"
            if getattr(batch[name], "is_deleted", bool)():
                return f"donated or deleted batch[{name!r}]"
        after = self._values(batch)
        for name, value in before.items():
            if value.shape != after[name].shape or value.tobytes() != after[name].tobytes():
                return f"changed batch[{name!r}]"
        return None


class _NoLog:
    """What a trial writes goes nowhere."""

    def scalars(self, rows: Any) -> None:
        pass

    def evaluation(self, times: Any, metrics: Any) -> None:
        pass


def _shape(signature: Any) -> str:
    return "absent" if signature is None else f"{signature[1]}{list(signature[0])}"


def _check_torch_optimizer(returned: Mapping[str, Any], name: str) -> None:
    for part, wanted in (
        ("optimizer", ("step", "zero_grad", "state_dict", "load_state_dict")),
        ("scheduler", ("step", "state_dict", "load_state_dict")),
    ):
        held = returned[part]
        for member in held if isinstance(held, list) else [] if held is None else [held]:
            missing = [each for each in wanted if not hasattr(member, each)]
            if missing:
                raise errors.UserError(
                    f"{name} returned the {part} {type(member).__qualname__} without "
                    f"{', '.join(missing)}"
                )

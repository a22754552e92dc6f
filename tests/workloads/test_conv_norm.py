"""The parity gate of a workload with batch norm, and its training, interrupted and not."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import reference_algorithms
from algoperf import backends, spec
from algoperf.data.batches import TrainingQueue
from algoperf.data.loading import load_data
from algoperf.run_folder import run_log
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.submission import loading
from algoperf.trial import adapt, preservation, trust
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Trial
from algoperf.workload import SPLITS

FRAMEWORKS = ("jax", "pytorch")
TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL
ALGORITHMS = Path(reference_algorithms.__file__).parent
STEPS, ROWS = 20, 16
Values = dict[str, np.ndarray]


class Side:
    """The workload in one framework, and the reference algorithm on it."""

    def __init__(self, definition: Any, framework: str, algorithm: str = "adamw") -> None:
        scale = definition.scales["mini"]
        self.data = load_data(definition, scale, "builtin")
        self.backend = backends.load(framework)
        self.bound: Any = self.backend.workload(definition, scale, "builtin", self.data)
        self.evaluate = Evaluator(self.backend, self.bound, definition, self.data, scale)
        loaded = loading.load(loading.inspect(ALGORITHMS / f"{algorithm}.py"), framework)
        self.point = spec.make_hyperparameters({**loaded.module.DEFAULTS})
        self.functions = adapt.submission_functions(loaded, self.backend, self.bound, self.point)

    def queue(self) -> TrainingQueue:
        return TrainingQueue(self.data.splits["train"], ROWS, 0, self.backend.place)

    @functools.cached_property
    def forward(self) -> Any:
        def call(params: Any, state: Any, batch: Any, mode: Any) -> Any:
            rng = self.backend.random_state((0, 0))
            return self.bound.model_fn(params, batch, state, mode, rng, mode is TRAIN, 0.0)

        return jax.jit(call, static_argnums=3) if self.backend.name == "jax" else call


@dataclasses.dataclass(frozen=True)
class Pair:
    jax: Side
    torch: Side
    values: Values  # perturbed parameters and statistics, by name

    def __iter__(self) -> Any:
        return iter((self.jax, self.torch))


@pytest.fixture(scope="module")
def pair(conv_norm, make_values) -> Pair:
    sides = [Side(conv_norm, framework) for framework in FRAMEWORKS]
    bound = sides[0].bound
    return Pair(*sides, make_values({**bound.shapes, **bound.statistic_shapes}))


def assert_equal(one: Values, other: Values) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def statistics(side: Side, params: Any, state: Any) -> Values:
    values = side.bound.state_to_neutral(params, state)
    return {name: np.array(values[name]) for name in side.bound.statistic_shapes}


def assert_statistics_agree(ours: Values, theirs: Values, bound: float) -> None:
    """Each to `bound` of its largest value."""
    assert ours.keys() == theirs.keys()
    assert ours
    for name, value in ours.items():
        assert np.abs(value - theirs[name]).max() <= bound * np.abs(value).max(), name


def test_initial_parameters_and_statistics_of_a_seed_are_equal(pair: Pair) -> None:
    started = [
        side.bound.state_to_neutral(
            *side.bound.init_model_fn(side.backend.random_state((7, 2**32 - 1)))
        )
        for side in pair
    ]
    assert_equal(*started)
    assert set(started[0]) == set(pair.values)


def test_the_converter_carries_statistics_over_and_back_bit_for_bit(pair: Pair) -> None:
    values = pair.values
    for side in (*pair, pair.jax):
        values = side.bound.state_to_neutral(*side.bound.state_from_neutral(values))
        assert_equal(values, pair.values)


def test_logits_agree_in_both_modes_and_the_updated_statistics(pair: Pair) -> None:
    logits: dict[Any, list[np.ndarray]] = {}
    updated = []
    for side in pair:
        batch = next(side.queue())
        params, state = side.bound.state_from_neutral(pair.values)
        for mode in (EVAL, TRAIN):
            out, state = side.forward(params, state, batch, mode)
            logits.setdefault(mode, []).append(side.backend.fetch({"logits": out})["logits"])
        updated.append(statistics(side, params, state))
    for ours, theirs in logits.values():
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()
        assert np.ptp(ours, axis=0).max() > 1e-2 * np.abs(ours).max()
    assert np.abs(logits[EVAL][0] - logits[TRAIN][0]).max() > 1e-2 * np.abs(logits[EVAL][0]).max()
    assert_statistics_agree(*updated, 1e-5)
    assert all((updated[0][name] != pair.values[name]).any() for name in updated[0])


class Losses(list[float]):
    """A metrics logger that keeps the losses."""

    def append_scalar_metrics(self, metrics: dict[str, Any], global_step: int, **_: Any) -> None:
        self.append(float(metrics["loss"]))


def train(side: Side, steps: int) -> tuple[list[float], Values, float]:
    """Return (losses, statistics at the end, the loss on validation at the end)."""
    params, state = side.bound.init_model_fn(side.backend.random_state((1, 2)))
    common = {"workload": side.bound, "hyperparameters": side.point,
              "rng": side.backend.random_state((3, 4))}  # fmt: skip
    optimizer_state = side.functions.init_optimizer_state(
        model_params=params, model_state=state, **common
    )
    side.bound.metrics_logger = losses = Losses()
    queue = side.queue()
    for _ in range(steps):
        optimizer_state, params, state = side.functions.update_params(
            current_param_container=params,
            model_state=state,
            batch=next(queue),
            optimizer_state=optimizer_state,
            global_step=0,
            **common,
        )
    side.bound.metrics_logger = None
    evaluated = side.evaluate("validation", params, state)["loss"]
    return losses, statistics(side, params, state), evaluated


def test_losses_and_statistics_stay_together_over_steps_of_adamw(pair: Pair) -> None:
    (ours, our_statistics, our_loss), (theirs, their_statistics, their_loss) = (
        train(side, STEPS) for side in pair
    )
    assert len(ours) == STEPS
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    assert_statistics_agree(our_statistics, their_statistics, 1e-3)
    assert their_loss == pytest.approx(our_loss, rel=1e-3)
    assert np.mean(ours[-5:]) < 0.9 * np.mean(ours[:5])  # it trains


def test_two_passes_a_step_update_once(pair: Pair, conv_norm) -> None:
    """The reference algorithm SAM asks for the update in its first pass alone."""
    ours, theirs = (train(Side(conv_norm, framework, "sam"), 2) for framework in FRAMEWORKS)
    assert_statistics_agree(ours[1], theirs[1], 1e-4)
    after_two = 1 - 0.9**2  # of a variance that starts at 1, what two updates leave, at the least
    assert all((value >= 1 - after_two - 1e-6).all() for name, value in ours[1].items()
               if name.endswith("var"))  # fmt: skip
    once = train(pair.torch, 1)[1]["first_batch_norm/mean"]
    sam_once = train(Side(conv_norm, "pytorch", "sam"), 1)[1]["first_batch_norm/mean"]
    np.testing.assert_allclose(sam_once, once, rtol=1e-6)


class Interrupted:
    """Whether a trial is asked to stop: once, at a step."""

    trial: Any = None

    def __init__(self, step: int | None) -> None:
        self.step = step

    def __call__(self) -> bool:
        return self.step is not None and self.trial.state.step >= self.step


def start(
    side: Side,
    definition: Any,
    folder: Path,
    stop_at: int | None = None,
    more: Any = None,
    **functions: Any,
) -> tuple[Trial, preservation.Preservation]:
    """A trial of six steps with evaluations after every second one, and what saves it."""
    log = run_log.TrialLog(folder, definition.measured, SPLITS)
    log.begin({}, {}, None)
    asked = Interrupted(stop_at)
    keeper = preservation.Preservation(
        Checkpoints(folder), log, side.backend, 1e9, asked, lambda text: None
    )
    given = {"evaluate": side.evaluate, **(more or {})}
    trial = Trial(
        backend=side.backend,
        workload=side.bound,
        functions=dataclasses.replace(side.functions, **functions),
        queue=side.queue(),
        goal=Goal("accuracy", True, None),
        limits=Limits(1e9, 1e9, 2, 6),
        ledger=Ledger(),
        log=log,
        seed=3,
        hyperparameters=side.point,
        keeper=keeper,
        **given,
    )
    asked.trial = trial
    return trial, keeper


@pytest.mark.parametrize(
    ("framework", "algorithm"), [("jax", "momentum"), ("pytorch", "schedule_free_adamw")]
)
def test_a_trial_goes_on_bit_for_bit(
    conv_norm, framework: str, algorithm: str, tmp_path: Path
) -> None:
    side = Side(conv_norm, framework, algorithm)
    whole, _ = start(side, conv_norm, tmp_path / "whole")
    whole.run()
    expected = side.bound.state_to_neutral(whole.state.params, whole.state.model_state)
    expected = {name: np.array(value) for name, value in expected.items()}
    stopped, _ = start(side, conv_norm, tmp_path / "parts", stop_at=3)
    stopped.run()
    assert stopped.interrupted
    assert stopped.state.step == 3
    side = Side(conv_norm, framework, algorithm)
    again, keeper = start(side, conv_norm, tmp_path / "parts")
    log = run_log.TrialLog(tmp_path / "parts", conv_norm.measured, SPLITS)
    keeper.go_on(again, preservation.find(Checkpoints(tmp_path / "parts"), log))
    assert again.state.step == 3
    again.run()
    assert whole.status == again.status == "complete"
    assert_equal(side.bound.state_to_neutral(again.state.params, again.state.model_state), expected)
    measured = [[metrics for _, _, metrics in trial.evaluations] for trial in (whole, again)]
    assert measured[0] == measured[1]
    assert [step for step, _, _ in again.evaluations] == [1, 2, 4, 6]


def test_a_submission_that_loses_the_statistics_fails(
    pair: Pair, conv_norm, tmp_path: Path
) -> None:

    def forget(optimizer_state: Any, current_param_container: Any, **_: Any) -> Any:
        return optimizer_state, current_param_container, None

    trial, _ = start(pair.jax, conv_norm, tmp_path / "forgets", update_params=forget)
    trial.run()
    assert trial.status == "failed"
    assert trial.error["cause"] == (
        "update_params changed the parameters: batch_stats/block_0/batch_norm/mean was "
        "float32[8], is absent"
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_statistics_that_are_not_finite_end_a_trial(
    pair: Pair, conv_norm, framework, tmp_path: Path
) -> None:
    """They show in evaluation alone, where a variance without end makes numbers that are finite."""
    side = pair.jax if framework == "jax" else pair.torch

    def spoil(
        optimizer_state: Any, current_param_container: Any, model_state: Any, **_: Any
    ) -> Any:
        values = side.bound.state_to_neutral(current_param_container, model_state)
        values["first_batch_norm/var"] = values["first_batch_norm/var"] * np.inf
        return optimizer_state, *side.bound.state_from_neutral(values)

    trial, _ = start(side, conv_norm, tmp_path / "spoils", update_params=spoil)
    trial.run()
    assert trial.status == "diverged"
    assert "parameters" in trial.not_finite.seen


def test_statistics_that_change_while_the_clock_stands_still_are_flagged(
    pair: Pair, conv_norm, tmp_path: Path
) -> None:
    """As a thread could in an evaluation."""
    side = pair.torch
    guard = trust.Guard(checksum=lambda trained: side.backend.checksum(*trained))

    def evaluate(split: str, params: Any, state: Any) -> dict[str, float]:
        if change:
            params.first_batch_norm.running_mean += 1e-3
        return {"loss": 1.0, "accuracy": 0.5}

    def wait(optimizer_state: Any, current_param_container: Any, model_state: Any, **_: Any) -> Any:
        return optimizer_state, current_param_container, model_state

    for change in (False, True):
        folder = tmp_path / str(change)
        more = {"evaluate": evaluate, "untimed": guard.untimed}
        trial, _ = start(side, conv_norm, folder, more=more, update_params=wait)
        trial.run()
        assert trial.status == "complete"
        expected = ["the parameters changed while the clock stood still"] if change else []
        assert guard.flags == expected

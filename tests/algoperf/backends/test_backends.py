"""The optimizer form's step in both frameworks, against the same step written out; small print."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch
from evaluation import evaluate

from algoperf import backends, errors
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.data.batches import TrainingQueue
from algoperf.data.loading import load_data
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Functions, Trial
from algoperf.trial.scalars import ScalarBuffer
from algoperf.workload import catalogue

DIGITS = catalogue.find("digits")
MINI = DIGITS.scales["mini"]
LEARNING_RATE = 0.5
SEED = (7, 8)
FRAMEWORKS = ("jax", "pytorch")


@functools.cache
def digits():
    return load_data(DIGITS, MINI, "builtin")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux lists threads by name")
def test_the_threads_that_compute():
    """JAX does not tell how many XLA has: the system does, by the names of the threads."""
    jax.block_until_ready(jax.numpy.ones((8, 8)) @ jax.numpy.ones((8, 8)))
    names = [
        task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    ]
    assert backends.load("jax").threads() == names.count("tf_XLAEigen")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    assert backends.load("pytorch").threads() == before + 2
    torch.set_num_threads(before)


def a_batch(rows=32):
    return {key: array[:rows].copy() for key, array in digits().splits["train"].items()}


@dataclasses.dataclass
class Runner:
    """An optimizer-form submission of plain gradient descent, step by step."""

    framework: str
    settings: StepSettings
    record_every: int = 1
    dropout_rate: float = 0.0
    make: object = None

    def __post_init__(self):
        self.backend = backends.load(self.framework)
        scale = dataclasses.replace(MINI, dropout_rate=self.dropout_rate)
        self.workload = self.backend.workload(DIGITS, scale, "builtin", digits())
        self.workload.metrics_logger = self.buffer = ScalarBuffer()
        self.form = self.backend.optimizer_form(
            OptimizerFunctions(
                self.make or self.descent,
                lambda params, optimizer_state: params,
                lambda step: LEARNING_RATE / (step + 1),
                self.record_every,
            ),
            self.settings,
        )
        self.params, self.model_state = self.workload.init_model_fn(self.backend.random_state(SEED))
        self.backend.seed(SEED)
        self.state = self.form.init_optimizer_state(self.workload, self.params, None)
        self.count = 0

    def descent(self, params, hyperparameters):
        if self.framework == "jax":
            return optax.sgd(LEARNING_RATE)
        return torch.optim.SGD(params.tensors(), LEARNING_RATE)

    def step(self, batch, rng=SEED):
        self.state, self.params, self.model_state = self.form.update_params(
            self.workload,
            self.params,
            self.model_state,
            self.backend.place(batch),
            self.state,
            self.count,
            self.backend.random_state(rng),
        )
        self.count += 1
        return self

    def restart(self, seed):
        """Back to the first parameters; gradient descent has no state."""
        self.params, self.model_state = self.workload.init_model_fn(self.backend.random_state(SEED))
        self.backend.seed(seed)

    def scalars(self):
        return self.buffer.take(self.backend.fetch)

    def values(self):
        return {
            name: np.array(value) for name, value in self.workload.to_neutral(self.params).items()
        }


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return request.param


@functools.cache
def first_values():
    return Runner("jax", StepSettings()).values()


def by_hand(batch, settings):
    """(loss, gradient norm, parameters after the step) of one step, in float64."""
    leaves = {
        name: torch.tensor(value.astype(np.float64), requires_grad=True)
        for name, value in first_values().items()
    }
    hidden = torch.tensor(batch["inputs"]).double()
    for layer in ("hidden_0", "hidden_1"):
        hidden = torch.relu(hidden @ leaves[f"{layer}/kernel"] + leaves[f"{layer}/bias"])
    logits = hidden @ leaves["head/kernel"] + leaves["head/bias"]
    losses = torch.nn.functional.cross_entropy(
        logits,
        torch.tensor(batch["targets"]).long(),
        reduction="none",
        label_smoothing=settings.label_smoothing,
    )
    weights = torch.tensor(batch.get("weights", np.ones(len(logits)))).double()
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    norm = sum(float((leaf.grad**2).sum()) for leaf in leaves.values()) ** 0.5
    clipped = 1.0 if settings.grad_clip is None else min(1.0, settings.grad_clip / norm)
    after = {
        name: (leaf - LEARNING_RATE * clipped * leaf.grad).detach().numpy()
        for name, leaf in leaves.items()
    }
    return float(loss.detach()), norm, after


@pytest.mark.parametrize(
    ("settings", "padded"),
    [
        (StepSettings(), 0),
        (StepSettings(), 9),
        (StepSettings(grad_clip=1000.0), 0),
        (StepSettings(label_smoothing=0.2), 0),
        (StepSettings(grad_clip=0.3, label_smoothing=0.2), 9),
    ],
    ids=str,
)
def test_one_step_is_what_the_settings_say(framework, settings, padded):
    """Padded rows have weight 0 and absurd pixels; the loss is the mean over the rest."""
    batch = a_batch()
    if padded:
        batch["weights"] = np.ones(32, np.float32)
        batch["weights"][-padded:] = 0
        batch["inputs"][-padded:] = 100.0
    loss, norm, after = by_hand(batch, settings)
    assert norm > 0.5  # so that a limit of 0.3 clips
    if padded:
        real = {key: array[:-padded] for key, array in batch.items()}
        assert by_hand(real, settings)[:2] == pytest.approx((loss, norm), rel=1e-12)
    runner = Runner(framework, settings).step(batch)
    ((step, scalars),) = runner.scalars()
    assert step == 0
    assert scalars["loss"] == pytest.approx(loss, rel=1e-5)
    assert scalars["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert scalars["learning_rate"] == LEARNING_RATE
    before, found = first_values(), runner.values()
    for name, value in after.items():
        update = value - before[name]
        scale = np.abs(update).max()
        np.testing.assert_allclose(found[name] - before[name], update, rtol=1e-5, atol=2e-5 * scale)


def test_weights_scale_rows_in_training(framework):
    batch = a_batch(8)
    doubled = {key: np.concatenate([array, array[:3]]) for key, array in batch.items()}
    weighted = {**batch, "weights": np.array([2, 2, 2, 1, 1, 1, 1, 1], np.float32)}
    one = Runner(framework, StepSettings()).step(doubled).values()
    other = Runner(framework, StepSettings()).step(weighted).values()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("own_rate", [0.0, 1.0])
def test_the_dropout_rate_of_the_settings_takes_the_place_of_the_workloads(framework, own_rate):
    """At rate 1 nothing reaches the head, whose bias is 0: ten equal probabilities."""
    everything = Runner(framework, StepSettings(dropout_rate=1.0), dropout_rate=own_rate)
    ((_, scalars),) = everything.step(a_batch()).scalars()
    assert scalars["loss"] == pytest.approx(np.log(10), rel=1e-6)
    nothing = Runner(framework, StepSettings(dropout_rate=0.0), dropout_rate=own_rate)
    ((_, scalars),) = nothing.step(a_batch()).scalars()
    assert scalars["loss"] == pytest.approx(by_hand(a_batch(), StepSettings())[0], rel=1e-5)
    workloads_own = Runner(framework, StepSettings(), dropout_rate=own_rate)
    ((_, own),) = workloads_own.step(a_batch()).scalars()
    assert bool(own["loss"] == pytest.approx(np.log(10), rel=1e-6)) is (own_rate == 1.0)


def test_dropout_follows_the_seed(framework):
    runner = Runner(framework, StepSettings(dropout_rate=0.5))

    def losses(seed, evaluate_between=False):
        runner.restart(seed)
        for step in range(3):
            runner.step(a_batch(), (seed[0], seed[1] + step))
            if evaluate_between:
                placed = runner.backend.place(a_batch(8))
                runner.backend.predict(runner.workload, runner.params, None, placed)
        return [scalars["loss"] for _, scalars in runner.scalars()]

    one = losses((1, 2))
    assert len(set(one)) == 3
    assert losses((1, 2)) == one
    assert losses((1, 2), evaluate_between=True) == one
    assert losses((1, 3)) != one


def test_evaluation_draws_no_random_numbers_and_drops_nothing():
    runner = Runner("pytorch", StepSettings(), dropout_rate=0.5).step(a_batch())
    before = torch.get_rng_state()
    arrays = digits().splits["test"]
    one, other = (
        evaluate(runner.backend, runner.workload, DIGITS, arrays, 100, runner.params, None)
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert one == other
    assert not any(value.grad_fn for value in runner.params.parameters())
    runner.step(a_batch())  # training goes on with dropout
    assert not torch.equal(torch.get_rng_state(), before)


def test_jax_compiles_once():
    """A trial of five steps and two evaluations; the optimizer has a state."""
    runner = Runner(
        "jax", StepSettings(grad_clip=1.0), make=lambda params, hyperparameters: optax.adam(0.01)
    )
    backend, form = runner.backend, runner.form
    jitted = (backend._predict, backend._first_value)
    before = [function._cache_size() for function in jitted]  # shared by all backends of a process
    split = digits().splits["validation"]

    class Log:
        scalars = evaluation = staticmethod(lambda *_: None)

    def init_optimizer_state(workload, model_params, hyperparameters, **_):
        return form.init_optimizer_state(workload, model_params, hyperparameters)

    def update_params(**given):
        names = "workload current_param_container model_state batch optimizer_state global_step rng"
        return form.update_params(**{name: given[name] for name in names.split()})

    trial = Trial(
        backend=backend,
        workload=runner.workload,
        functions=Functions(
            init_optimizer_state, update_params, lambda input_queue, **_: next(input_queue)
        ),
        queue=TrainingQueue(digits().splits["train"], 64, 0, backend.place),
        evaluate=lambda _, params, state: evaluate(
            backend, runner.workload, DIGITS, split, 150, params, state
        ),
        goal=Goal("accuracy", True, 2.0),
        limits=Limits(600.0, 600.0, max_steps=5),
        ledger=Ledger(),
        log=Log(),
        seed=0,
    )
    trial.run()
    assert (trial.status, trial.error, trial.state.step) == ("complete", None, 5)
    assert [step for step, _, _ in trial.evaluations] == [1, 5]
    assert form._step._cache_size() == 1
    after = [function._cache_size() for function in jitted]
    assert all(now - then <= 1 for now, then in zip(after, before, strict=True))
    assert after[0] - before[0] == 1
    totals = trial.ledger.totals()
    assert 0 < totals["data_wait_s"] < totals["submission_s"]


def test_a_marker_is_of_the_model_that_is_trained_now():
    """`algoperf check` trains several workloads in one process: one of 24 arrays after one of 200
    had been marked failed.
    """
    backend = backends.load("jax")
    for count in (5, 2):
        sizes = range(count, 0, -1)
        params = {str(size): np.full(size, float(size), np.float32) for size in sizes}
        marker = backend.marker(jax.tree.map(jax.numpy.asarray, params))
        backend.wait(marker)
        assert float(marker[0]) == 1.0


def test_the_marker_outlives_the_parameters_that_it_marks():
    """The step donates its arguments; a marker of them is still waited for."""
    runner = Runner("jax", StepSettings())
    markers = []
    for _ in range(4):
        runner.step(a_batch())
        markers.append(runner.backend.marker(runner.params))
    old = jax.tree.leaves(runner.params)
    runner.step(a_batch())
    assert any(leaf.is_deleted() for leaf in old)  # donated indeed
    for marker in markers:
        runner.backend.wait(marker)
    runner.backend.drain(runner.params, None, "no array")


def test_scalars_are_recorded_every_so_many_steps(framework):
    runner = Runner(framework, StepSettings(), record_every=3)
    for _ in range(7):
        runner.step(a_batch())
    rows = runner.scalars()
    assert [step for step, _ in rows] == [0, 3, 6]
    expected = [LEARNING_RATE / (step + 1) for step in (0, 3, 6)]
    expected = (
        expected if framework == "jax" else [LEARNING_RATE] * 3
    )  # the optimizer's own, constant
    assert [values["learning_rate"] for _, values in rows] == expected
    assert rows[0][1]["loss"] > rows[1][1]["loss"] > rows[2][1]["loss"]


def test_a_torch_scheduler_steps_and_its_rate_is_recorded():
    def make(params, hyperparameters):
        optimizer = torch.optim.SGD(params.tensors(), 0.5)
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    runner = Runner("pytorch", StepSettings(), make=make)
    for _ in range(3):
        runner.step(a_batch())
    assert [values["learning_rate"] for _, values in runner.scalars()] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("made", [None, "sgd", 0.1])
def test_what_is_no_optimizer_is_the_users_mistake(framework, made):
    with pytest.raises(errors.UserError, match=f"returned {type(made).__name__}, not a"):
        Runner(framework, StepSettings(), make=lambda params, hyperparameters: made)


def test_optax_transformations_with_extra_arguments_get_them():
    """`reduce_on_plateau` takes the loss as `value`."""
    seen = []

    def update(updates, state, params=None, *, value, grad, value_fn, **_):
        seen.append((value.shape, jax.tree.structure(grad) == jax.tree.structure(params)))
        return updates, value_fn(params) - value

    extra = optax.GradientTransformationExtraArgs(lambda params: jax.numpy.zeros(()), update)
    runner = Runner("jax", StepSettings(), make=lambda params, hyperparameters: extra)
    runner.step(a_batch())
    assert seen == [((), True)]
    assert float(runner.state) == 0.0  # the same rows give the same loss


def test_signature_tells_shape_and_type(framework):
    runner = Runner(framework, StepSettings())
    signature = runner.backend.signature(runner.params)
    assert len(signature) == 6
    kernel = "head/kernel" if framework == "jax" else "head.weight"
    assert signature[kernel] == (
        ((128, 10), "float32") if framework == "jax" else ((10, 128), "torch.float32")
    )


def test_fetch_gives_numpy_for_whatever_nests(framework):
    runner = Runner(framework, StepSettings())
    placed = runner.backend.place({"inputs": np.arange(3.0, dtype=np.float32)})
    fetched = runner.backend.fetch([(placed["inputs"], 2.0), {"a": placed}])
    assert isinstance(fetched[0][0], np.ndarray)
    np.testing.assert_array_equal(fetched[1]["a"]["inputs"], [0, 1, 2])
    assert float(fetched[0][1]) == 2.0


def test_an_unknown_framework_has_near_matches():
    with pytest.raises(
        errors.UserError, match=r"unknown framework 'pytorhc'; did you mean pytorch\?"
    ):
        backends.load("pytorhc")


def test_a_missing_framework_names_what_to_install(monkeypatch):
    find = backends.importlib.util.find_spec
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name == "flax" else find(name)
    )
    with pytest.raises(errors.UserError, match=r"missing: flax\).*algoperf\[jax\]"):
        backends.check_installed("jax")
    backends.check_installed("pytorch")

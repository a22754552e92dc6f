"""Batch norm's layers and its running statistics in a step, an evaluation and what checks them."""

import copy
import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from algoperf import backends, errors, jax_sharding_utils, spec
from algoperf.backends import jax_computation, torch_batch_norm
from algoperf.backends.computation import Computation
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.data.loading import load_data
from workloads.parts import batch_norm_jax, batch_norm_torch

FRAMEWORKS = ("jax", "pytorch")
TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL
ROWS = 16
BATCH_STATISTICS = {"use_running_average": False}


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return request.param


# The layers. Both take channels where their framework has them: last in flax, second in PyTorch.


def jax_layer(inputs, use_running_average, statistics=None, dtype="float32", **settings):
    """Return (outputs, running mean, running variance) of scale 2 and bias 1 for every channel."""
    channels = inputs.shape[-1]
    layer = batch_norm_jax.BatchNorm(channels, **settings)
    statistics = statistics or {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
    params = {"scale": jnp.full(channels, 2.0), "bias": jnp.ones(channels)}
    outputs, updated = layer.apply(
        {"params": params, "batch_stats": statistics},
        jnp.asarray(inputs, dtype),
        use_running_average,
        mutable=["batch_stats"],
    )
    now = updated["batch_stats"]
    return np.asarray(outputs), np.asarray(now["mean"]), np.asarray(now["var"])


def torch_layer(
    inputs, use_running_average, statistics=None, layer=None, dtype="float32", **settings
):
    """The same of PyTorch; `layer` may be PyTorch's own."""
    layer = layer or batch_norm_torch.BatchNorm(inputs.shape[-1], **settings)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(1.0)
        if statistics:
            layer.running_mean.copy_(torch.tensor(np.asarray(statistics["mean"])))
            layer.running_var.copy_(torch.tensor(np.asarray(statistics["var"])))
        layer.train(not use_running_average)
        given = torch.tensor(inputs, dtype=getattr(torch, dtype))
        outputs = torch.movedim(layer(torch.movedim(given, -1, 1)), 1, -1)
    return outputs.float().numpy(), layer.running_mean.numpy(), layer.running_var.numpy()


LAYERS = pytest.mark.parametrize("layer", [jax_layer, torch_layer])


@LAYERS
def test_a_batch_of_two_by_two_worked_out_by_hand(layer):
    """Means 2 and 20, biased variances 1 and 100, unbiased 2 and 200; epsilon 3, momentum 0.1."""
    inputs = np.array([[1, 10], [3, 30]], np.float32)
    outputs, mean, var = layer(inputs, False, epsilon=3.0, momentum=0.1)
    away = 2 * 10 / np.sqrt(103)
    np.testing.assert_allclose(outputs, [[0, 1 - away], [2, 1 + away]], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mean, [0.2, 2.0], rtol=1e-6)  # 0.9 x 0 + 0.1 x 2, x 20
    np.testing.assert_allclose(var, [1.1, 20.9], rtol=1e-6)  # 0.9 x 1 + 0.1 x 2, x 200


@LAYERS
def test_the_running_statistics_evaluate_and_stay(layer):
    inputs = np.array([[1, 10], [3, 30]], np.float32)
    statistics = {"mean": np.float32([1, 20]), "var": np.float32([6, 22])}
    outputs, mean, var = layer(inputs, True, statistics, epsilon=3.0)
    expected = [[1, 1 - 2 * 10 / 5], [1 + 2 * 2 / 3, 1 + 2 * 10 / 5]]  # sqrt(6 + 3), sqrt(22 + 3)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    np.testing.assert_array_equal((mean, var), list(statistics.values()))


@LAYERS
@pytest.mark.parametrize("use_running_average", [False, True])
def test_images_as_pytorchs_own_layer(layer, use_running_average):
    generator = np.random.default_rng(0)
    inputs = generator.normal(3, 2, (4, 5, 6, 3)).astype(np.float32)
    statistics = {"mean": np.float32([1, 2, 3]), "var": np.float32([0.5, 1, 2])}
    settings = {"momentum": 0.3, "epsilon": 0.01}
    own = torch.nn.BatchNorm2d(3, momentum=0.3, eps=0.01)
    expected = torch_layer(inputs, use_running_average, statistics, layer=own)
    found = layer(inputs, use_running_average, statistics, **settings)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@LAYERS
def test_a_variance_far_from_zero_is_not_lost(layer):
    generator = np.random.default_rng(0)
    inputs = generator.normal(1e4, 0.1, (512, 2)).astype(np.float32)
    _, mean, var = layer(inputs, False, momentum=1.0)
    exact = inputs.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(0, ddof=1), rtol=5e-3)


@LAYERS
def test_statistics_of_a_lower_precision_are_not_rounded(layer):
    """Steps of bfloat16 are 4e-3 of a value and more."""
    inputs = np.random.default_rng(0).normal(3, 2, (64, 2))
    inputs = np.asarray(jnp.asarray(inputs, jnp.bfloat16), np.float32)
    _, mean, var = layer(inputs, False, momentum=1.0, dtype="bfloat16")
    exact = inputs.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, exact.var(0, ddof=1), rtol=1e-5)


@LAYERS
def test_a_channel_of_one_value_has_no_variance(layer):
    with pytest.raises(ValueError, match=r"more than (1|one) value"):
        layer(np.ones((1, 2), np.float32), False)


def test_both_layers_are_made_alike():
    flax, pytorch = batch_norm_jax.BatchNorm(3), batch_norm_torch.BatchNorm(3)
    assert (flax.momentum, flax.epsilon) == (pytorch.momentum, pytorch.eps) == (0.1, 1e-5)


# A model. Its parameters and statistics are random, so that nothing is equal by chance.


class Bound:
    """The workload in one framework, under random parameters and statistics, and a batch."""

    def __init__(self, definition, framework, computation=None, **changes):
        computation = computation or Computation()
        scale = definition.scales["mini"]
        data = load_data(definition, scale, "builtin")
        rows = {key: array[:ROWS] for key, array in data.splits["train"].items()}
        self.backend = backends.load(framework, computation=computation, **changes)
        self.workload = self.backend.workload(definition, scale, "builtin", data)
        self.batch = self.backend.place(rows)
        self.values = random_values({**self.workload.shapes, **self.workload.statistic_shapes})
        self.params, self.state = self.workload.state_from_neutral(self.values)

    def forward(self, mode=TRAIN, update=True, running=None, batch=None):
        """One pass; return its logits."""
        call = self.call(mode, update, running)
        batch = self.batch if batch is None else batch
        logits, self.state = call(self.params, self.state, batch)
        return np.array(self.backend.fetch({"logits": logits})["logits"])

    @functools.cache  # noqa: B019
    def call(self, mode, update, running):
        def call(params, state, batch):
            return self.workload.model_fn(
                *(params, batch, state, mode, self.backend.random_state((1, 2)), update, 0.0),
                use_running_average_bn=running,
            )

        return jax.jit(call) if self.backend.name == "jax" else call

    def statistics(self):
        """The running statistics by name, copied."""
        values = self.workload.state_to_neutral(self.params, self.state)
        return {name: np.array(values[name]) for name in self.workload.statistic_shapes}

    def form(self, eval_params=None, rate=0.1):
        """The optimizer form of gradient descent."""
        self.workload.metrics_logger = None

        def make(params, hyperparameters):
            if self.backend.name == "jax":
                return optax.sgd(rate)
            return torch.optim.SGD(params.tensors(), rate)

        functions = OptimizerFunctions(make, eval_params, lambda step: rate, 10**9)
        return self.backend.optimizer_form(functions, StepSettings())

    def step(self, form, optimizer_state):
        self.workload.metrics_logger = Silent()
        optimizer_state, self.params, self.state = form.update_params(
            *(self.workload, self.params, self.state, self.batch, optimizer_state, 1),
            self.backend.random_state((3, 4)),
        )
        return optimizer_state

    def trained(self, steps=2):
        form = self.form()
        state = form.init_optimizer_state(self.workload, self.params, None)
        for _ in range(steps):
            state = self.step(form, state)
        return self


@functools.cache
def usual(definition, framework):
    """After two steps, as they usually are."""
    return Bound(definition, framework).trained()


class Silent:
    def append_scalar_metrics(self, metrics, global_step, **_):
        pass


def random_values(shapes):
    generator, values = np.random.default_rng(0), {}
    for name, shape in sorted(shapes.items()):
        noise = generator.standard_normal(shape, np.float32)
        is_positive = name.endswith(("var", "scale"))
        values[name] = 1 + 0.3 * np.tanh(noise) if is_positive else 0.3 * noise
    return values


@pytest.fixture
def bound(conv_norm, framework):
    return Bound(conv_norm, framework)


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def assert_near(one, other, rtol=1e-5, atol=1e-5):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol, atol, err_msg=name)


def test_statistics_have_the_same_names_and_shapes_and_are_no_parameters(conv_norm):
    ours, theirs = (Bound(conv_norm, each).workload for each in FRAMEWORKS)
    names = [f"{layer}batch_norm/{leaf}" for layer in ("first_", "block_0/")
             for leaf in ("mean", "var")]  # fmt: skip
    assert ours.statistic_shapes == theirs.statistic_shapes == dict.fromkeys(names, (8,))
    assert set(ours.shapes) == set(theirs.shapes) == set(ours.parameters) == set(theirs.parameters)
    assert ours.shapes == theirs.shapes
    types = {ours.parameters[f"block_0/batch_norm/{leaf}"].type for leaf in ("scale", "bias")}
    assert types == {spec.ParameterType.BATCH_NORM_SCALE, spec.ParameterType.BATCH_NORM_BIAS}
    assert ours.folded_names == theirs.folded_names == {*ours.shapes, *names}


def test_training_updates_when_asked(bound):
    before = bound.statistics()
    bound.forward(update=False)
    assert same(bound.statistics(), before)
    bound.forward()
    after = bound.statistics()
    assert all((after[name] != before[name]).any() for name in before)


def test_training_normalises_by_the_batch_and_evaluation_by_the_running_statistics(bound):
    updated, plain = bound.forward(), bound.forward(update=False)
    np.testing.assert_array_equal(updated, plain)
    evaluated = bound.forward(EVAL, update=False)
    assert np.abs(evaluated - plain).max() > 0.1
    # A row of a batch of copies of itself has the batch's mean, but an evaluation sees it alone.
    halves = [{key: value[part] for key, value in bound.batch.items()}
              for part in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))]  # fmt: skip
    parts = [bound.forward(EVAL, update=False, batch=half) for half in halves]
    np.testing.assert_allclose(np.concatenate(parts), evaluated, rtol=1e-4, atol=1e-5)


def test_a_submission_may_choose_the_statistics(bound):
    train, evaluation = bound.forward(update=False), bound.forward(EVAL, update=False)
    before = bound.statistics()
    frozen = bound.forward(TRAIN, update=True, running=True)  # nothing to update them with
    assert same(bound.statistics(), before)
    np.testing.assert_allclose(frozen, evaluation, rtol=1e-5, atol=1e-6)
    by_batch = bound.forward(EVAL, update=False, running=False)
    np.testing.assert_allclose(by_batch, train, rtol=1e-5, atol=1e-6)
    assert same(bound.statistics(), before)
    bound.forward(EVAL, update=True)
    assert same(bound.statistics(), before)
    bound.forward(EVAL, update=True, running=False)
    assert not same(bound.statistics(), before)
    np.testing.assert_array_equal(bound.forward(update=False), train)  # the switches go back


def test_a_pass_leaves_the_state_that_it_was_given(conv_norm):
    """In JAX; a submission may call with the same state again."""
    bound = Bound(conv_norm, "jax")
    given, before = bound.state, bound.statistics()
    bound.forward()
    bound.state = given
    assert same(bound.statistics(), before)


def test_two_passes_before_a_backward_pass(conv_norm):
    """In PyTorch the statistics are updated in place, between a pass and its gradient."""
    bound, other = (Bound(conv_norm, "pytorch") for _ in range(2))
    other.forward()
    expected = other.statistics()
    model_fn = functools.partial(bound.workload.model_fn, bound.params, bound.batch, None, TRAIN)
    first, _ = model_fn(None, True, 0.0)
    second, _ = model_fn(None, False, 0.0)
    assert same(bound.statistics(), expected)
    (first.sum() + second.square().sum()).backward()
    assert all(torch.isfinite(each.grad).all() for each in bound.params.parameters())


def test_micro_batches_update_in_turn(conv_norm, framework):
    parts = Computation(accumulate=2)
    found = Bound(conv_norm, framework, parts).trained(1)
    expected = Bound(conv_norm, framework)
    for part in parts.micro_batches(expected.batch):
        expected.forward(batch=part)
    assert_near(found.statistics(), expected.statistics(), 1e-6, 1e-6)


def test_what_is_computed_anew_updates_once(conv_norm, framework):
    found = Bound(conv_norm, framework, Computation(checkpoint_activations=True)).trained()
    expected = usual(conv_norm, framework)
    assert_near(found.statistics(), expected.statistics(), 1e-5, 1e-6)
    ours, theirs = (each.workload.to_neutral(each.params) for each in (found, expected))
    assert_near(ours, theirs, 1e-4, 1e-5)


@pytest.mark.parametrize("then", [(EVAL, None), (TRAIN, True)], ids=["evaluation", "frozen"])
def test_what_is_computed_anew_is_the_pass_that_was(conv_norm, then):
    """Another pass between a pass and its gradient leaves the gradient."""
    mode, running = then
    gradients = []
    for computation in (Computation(), Computation(checkpoint_activations=True)):
        bound = Bound(conv_norm, "pytorch", computation)
        logits, _ = bound.workload.model_fn(bound.params, bound.batch, None, TRAIN, None, True, 0.0)
        after = bound.statistics()
        bound.forward(mode, True, running)
        switches = [(each.training, each.track_running_stats)
                    for each in torch_batch_norm.layers(bound.params)]  # fmt: skip
        logits.square().sum().backward()
        assert same(bound.statistics(), after)
        assert switches == [(each.training, each.track_running_stats)
                            for each in torch_batch_norm.layers(bound.params)]  # fmt: skip
        gradients.append([each.grad.clone() for each in bound.params.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 3e-2), ("fp16", 5e-3)])
def test_statistics_are_float32_in_every_precision(conv_norm, framework, precision, limit):
    found = Bound(conv_norm, framework, Computation(precision)).trained()
    expected = usual(conv_norm, framework)
    statistics = found.statistics()
    assert {value.dtype for value in statistics.values()} == {np.dtype(np.float32)}
    assert not same(statistics, expected.statistics())
    assert_near(statistics, expected.statistics(), limit, limit)
    rounded = {name: np.asarray(jnp.asarray(value, jnp.bfloat16), np.float32)
               for name, value in statistics.items()}  # fmt: skip
    assert not same(statistics, rounded)  # they have digits that the precision has not


def test_a_step_that_is_left_out_leaves_the_statistics(conv_norm, framework):
    """Its gradients overflow at a loss scale of 2 to the 40."""
    bound = Bound(conv_norm, framework, Computation("fp16"))
    form = bound.form()
    state = form.init_optimizer_state(bound.workload, bound.params, None)
    before = bound.statistics()
    if framework == "pytorch":
        kept = state["scaler"].state_dict() | {"scale": 2.0**40}
        state["scaler"].load_state_dict(kept)
    else:
        kept = jax_computation.LossScale(jnp.float32(2.0**40), jnp.int32(0))
        state = state[0], jax_sharding_utils.replicate(kept)
    bound.step(form, state)
    assert same(bound.statistics(), before)


def loss_of(bound, params):
    loss, _ = bound.backend.fetch(
        bound.backend.predict(bound.workload, params, bound.state, bound.batch)
    )
    return loss


@pytest.mark.parametrize("wrap", [lambda module: module, torch.optim.swa_utils.AveragedModel])
def test_other_parameters_are_evaluated_with_the_current_statistics(conv_norm, wrap):
    """A copy made before training started, as an averaging method keeps one."""
    found, trained = older_losses(conv_norm, "pytorch", wrap)
    assert np.abs(found - trained).max() > 1e-3
    expected, _ = older_losses(conv_norm, "jax", None)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@functools.cache
def older_losses(definition, framework, wrap):
    """The losses of the first parameters and of the last, with the last statistics."""
    bound = Bound(definition, framework)
    is_jax = framework == "jax"
    older = jax.tree.map(jnp.copy, bound.params) if is_jax else wrap(copy.deepcopy(bound.params))
    form = bound.form(eval_params=lambda params, _: older)
    state = form.init_optimizer_state(bound.workload, bound.params, None)
    for _ in range(3):
        state = bound.step(form, state)
    return loss_of(bound, form.eval_params(bound.params, state)), loss_of(bound, bound.params)


def test_another_model_cannot_follow(conv_norm):
    bound = Bound(conv_norm, "pytorch")
    form = bound.form(eval_params=lambda params, _: torch.nn.BatchNorm2d(8))
    state = form.init_optimizer_state(bound.workload, bound.params, None)
    with pytest.raises(errors.UserError, match="a module with 1 batch norms, expected the model's"):
        form.eval_params(bound.params, state)


def test_what_checks_parameters_sees_statistics(bound):
    backend, checks = bound.backend, []
    for change in (None, 1.0, np.nan):
        values = dict(bound.values)
        if change is not None:
            values["block_0/batch_norm/var"] = values["block_0/batch_norm/var"] + change
        params, state = bound.workload.state_from_neutral(values)
        checks.append((backend.checksum(params, state), backend.is_finite(params, state)))
    assert len({checksum for checksum, _ in checks}) == 3
    assert [finite for _, finite in checks] == [True, True, False]
    signature = backend.signature(params, state)
    prefix, dtype = ("batch_stats/", "") if backend.name == "jax" else ("", "torch.")
    leaf = "var" if backend.name == "jax" else "running_var"
    name = f"{prefix}block_0/batch_norm/{leaf}"
    name = name if backend.name == "jax" else name.replace("/", ".")
    assert signature[name] == ((8,), f"{dtype}float32")


def test_frozen_parameters_leave_the_statistics_what_they_are(conv_norm, framework):
    """Under a technique what is frozen are parameters; statistics are updated as ever."""
    scale = dataclasses.replace(conv_norm.scales["mini"], trainable="head")
    definition = dataclasses.replace(conv_norm, scales={"mini": scale})
    bound = Bound(definition, framework)
    assert set(bound.workload.parameters) == {"head/kernel", "head/bias"}
    fresh, state = bound.workload.init_model_fn(bound.backend.random_state((1, 2)))
    bound.params, bound.state = fresh, state
    first = bound.statistics()
    assert {name: set(value.tolist()) for name, value in first.items()} == {
        name: {float(name.endswith("var"))} for name in first
    }
    bound.trained(1)
    after = bound.statistics()
    assert all((after[name] != first[name]).any() for name in first)
    assert not bound.workload.changed_frozen(bound.params, bound.state)


def test_fresh_statistics_are_zero_and_one_again(bound):
    bound.forward()
    bound.params, bound.state = bound.workload.init_model_fn(bound.backend.random_state((1, 2)))
    for name, value in bound.statistics().items():
        assert set(value.tolist()) == {float(name.endswith("var"))}
    counts = [each.num_batches_tracked.item() for each in torch_batch_norm.layers(bound.params)
              ] if bound.backend.name == "pytorch" else [0]  # fmt: skip
    assert set(counts) == {0}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_compiled_model_updates_once(conv_norm, checkpoint, monkeypatch):
    """Traced, differentiated and cut as for a device; the C++ compiler at the end is left out."""
    compiler = functools.partial(torch.compile, backend="aot_eager_decomp_partition")
    monkeypatch.setattr(torch, "compile", compiler)
    computation = Computation(checkpoint_activations=checkpoint)
    found = Bound(conv_norm, "pytorch", computation, compile_model=True)
    expected = Bound(conv_norm, "pytorch")
    for each in (found, expected):
        each.trained()
    assert_near(found.statistics(), expected.statistics(), 1e-4, 1e-5)
    before = found.statistics()
    found.forward(update=False)
    ours, theirs = (each.forward(EVAL, update=False) for each in (found, expected))
    assert same(found.statistics(), before)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


TWO_DEVICES = """
import importlib.util, sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from algoperf import spec
from algoperf.submission.older.jax_device_axis import DeviceAxis
from algoperf.submission.older.workload import OlderWorkload
sys.path.insert(0, {folder!r})
import conv_norm
from test_model_state import ROWS, Bound

bound = Bound(conv_norm.WORKLOAD, "jax")
assert len(bound.batch["inputs"].sharding.device_set) == jax.local_device_count() == 2
given = jax.tree.map(np.asarray, bound.state)
rows = {{name: np.asarray(value) for name, value in bound.batch.items()}}
bound.forward()
for name, value in bound.statistics().items():
    print(name, *value.tolist())

axis, update = DeviceAxis(), []
older = OlderWorkload(bound.workload, None, axis)
state, params = axis.add(given), axis.add(jax.tree.map(np.asarray, bound.params))

def step(params, state, batch):
    return older.model_fn(
        params, batch, state, spec.ForwardPassMode.TRAIN, jax.random.PRNGKey(0), True, 0.0)[1]

state = jax.pmap(step, axis_name="batch")(params, state, axis.cut(rows))
for device in range(2):
    mean = state["batch_stats"]["first_batch_norm"]["mean"][device]
    print("device", device, *mean.tolist())
print("evaluated", *axis.first_state(state)["batch_stats"]["first_batch_norm"]["mean"].tolist())
"""


def test_devices_have_the_statistics_of_the_global_batch(conv_norm, tmp_path):
    """And under the older contract each those of its rows, of which evaluation takes the mean."""
    here = Path(__file__)
    folder = here.parents[2] / "workloads"
    script = TWO_DEVICES.format(folder=str(folder)).replace(
        "import conv_norm\n", f"import conv_norm\nsys.path.insert(0, {str(here.parent)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    *statistics, first, second, evaluated = lines
    expected = Bound(conv_norm, "jax")
    halves = [{key: value[part] for key, value in expected.batch.items()}
              for part in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))]  # fmt: skip
    expected.forward()
    found = {name: np.float32(values) for name, *values in statistics}
    assert_near(found, expected.statistics())
    means = []
    for half, (_, _, *values) in zip(halves, (first, second), strict=True):
        alone = Bound(conv_norm, "jax")
        alone.forward(batch=half)
        means.append(np.float32(values))
        np.testing.assert_allclose(
            means[-1], alone.statistics()["first_batch_norm/mean"], rtol=1e-5, atol=1e-6
        )
    assert np.abs(means[0] - means[1]).max() > 1e-3
    np.testing.assert_allclose(np.float32(evaluated[1:]), np.mean(means, 0), rtol=1e-5, atol=1e-6)

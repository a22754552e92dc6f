"""What an optimizer-form submission may return: optax states, PyTorch optimizers and schedulers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_optimizer
import schedulefree
import torch
from optax import contrib

from algoperf import backends, errors, spec
from algoperf.backends import jax_computation
from algoperf.backends.computation import Computation
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.data.loading import load_data
from algoperf.run_folder import state
from algoperf.trial.scalars import ScalarBuffer
from algoperf.workload import catalogue, parameters

DIGITS = catalogue.find("digits")
MINI = DIGITS.scales["mini"]
SEED = (7, 8)
SHAPES = {"dense/kernel": (3, 2), "dense/bias": (2,)}


class Bowl:
    """A workload whose loss is sum(w^4) / 12 + g . w, for the g that a batch brings."""

    metrics_logger = None
    parameters = parameters.describe(SHAPES, lambda name: False)

    def model_fn(self, params, batch, model_state, *_):
        return jax.tree.leaves(params), model_state

    def mean_loss(self, targets, logits, weights, smoothing):
        pairs = zip(jax.tree.leaves(targets), logits, strict=True)
        return sum((w**4 / 12 + g * w).sum() for g, w in pairs)


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {
        "dense": {
            "kernel": jnp.array(rng.normal(0.5, 1, (3, 2)), jnp.float32),
            "bias": jnp.array(rng.normal(0.5, 1, 2), jnp.float32),
        }
    }


def average():
    """Descent whose state has an average that starts as the parameters, and one array twice."""

    def init(params):
        zero = jnp.zeros(())
        return {"average": params, "zeros": (zero, zero), "key": jax.random.key(0)}

    def update(updates, state, params):
        mean = jax.tree.map(lambda a, p: (a + p) / 2, state["average"], params)
        return jax.tree.map(lambda g: -0.1 * g, updates), {**state, "average": mean}

    return optax.GradientTransformation(init, update)


SHARING = {
    "lbfgs": optax.lbfgs,
    "prodigy": contrib.prodigy,
    "dog": contrib.dog,
    "dowg": contrib.dowg,
    "mechanize": lambda: contrib.mechanize(optax.sgd(0.1)),
    "cocob": contrib.cocob,
    "an average": average,
}


def form_of(backend, make, settings=StepSettings()):  # noqa: B008
    functions = OptimizerFunctions(make, lambda params, state: params, lambda step: None, 1)
    return backend.optimizer_form(functions, settings)


@pytest.mark.parametrize("name", SHARING)
def test_an_optax_state_may_begin_with_the_parameters(name):
    """Two donating steps are those of plain optax, which donates nothing."""
    workload, backend = Bowl(), backends.load("jax")
    form = form_of(backend, lambda params, hyperparameters: SHARING[name]())
    params, batch = drawn(1), {"targets": drawn(2)}
    kept = form.init_optimizer_state(workload, params, None)
    plain = optax.with_extra_args_support(SHARING[name]())
    expected = drawn(1)
    plain_state = plain.init(expected)

    def value_fn(params):
        return workload.mean_loss(batch["targets"], jax.tree.leaves(params), None, 0)

    @jax.jit
    def plain_step(expected, plain_state):
        value, gradient = jax.value_and_grad(value_fn)(expected)
        updates, plain_state = plain.update(
            gradient, plain_state, expected, value=value, grad=gradient, value_fn=value_fn
        )
        return optax.apply_updates(expected, updates), plain_state

    for step in range(2):
        kept, params, _ = form.update_params(workload, params, None, batch, kept, step, None)
        expected, plain_state = plain_step(expected, plain_state)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert not np.array_equal(ours, drawn(1)["dense"]["bias"])
    tree = {"params": params, "state": kept}
    arrays, structure = state.to_arrays(tree)
    fresh = drawn(1)
    first = form.init_optimizer_state(workload, fresh, None)
    resumed = state.restore(arrays, structure, {"params": fresh, "state": first})
    after = [
        form.update_params(workload, each["params"], None, batch, each["state"], 2, None)[1]
        for each in (tree, resumed)
    ]
    for one, other in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_first_state_has_memory_of_its_own():
    """Also in the full form, whose own step may donate what its own initialisation returned."""
    array, key = jnp.arange(3.0), jax.random.key(3)
    view = jax.device_put(array, jax.devices()[0])  # another object on the same memory
    shared = {"a": array, "b": view, "keys": [key, key], "n": 4, "own": jnp.ones(3)}
    settled = backends.load("jax").settle(shared, {"w": array})
    leaves = [leaf for leaf in jax.tree.leaves((settled, array)) if isinstance(leaf, jax.Array)]
    places = [place for leaf in leaves for place in jax_computation._pointers(leaf)]
    assert len(places) == len(set(places)) == 6
    np.testing.assert_array_equal(settled["b"], [0, 1, 2])
    assert (jax.random.key_data(settled["keys"][1]) == jax.random.key_data(key)).all()
    assert settled["own"].unsafe_buffer_pointer() == shared["own"].unsafe_buffer_pointer()
    assert settled["n"] == 4


def probing():
    """Keeps what the step's value_fn says, at the parameters and its gradient's largest value."""

    def init(params):
        return {"value": jnp.zeros(()), "again": jnp.zeros(()), "off": jnp.zeros(())}

    def update(updates, state, params, *, value, grad, value_fn, **_):
        again, gradient = jax.value_and_grad(value_fn)(params)
        apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), gradient, grad)
        state = {"value": value, "again": again, "off": optax.tree.max(apart)}
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_value_fn_is_the_loss_of_the_step(accumulate):
    """With the same rows, weights and dropout, and of micro-batches their sum."""
    backend = backends.load("jax", computation=Computation(accumulate=accumulate))
    one = Digits("jax", lambda params: probing(), backend=backend, dropout_rate=0.5)
    batch = a_batch(8)
    one.step({**batch, "weights": np.array([1, 1, 0, 1, 1, 0, 0, 1], np.float32)})
    probed = backend.fetch(one.state)
    np.testing.assert_allclose(probed["again"], probed["value"], rtol=1e-6)
    assert probed["value"] > 1
    assert probed["off"] < 1e-6


def test_extra_arguments_go_to_those_that_take_them():
    """contrib.sam names grad_fn alone; contrib.sophia wants the loss as obj_fn."""
    seen = {}

    def update(updates, state, params, *, grad_fn, obj_fn):
        seen["value"] = obj_fn(params)
        seen["gradients"] = grad_fn(params, 0)
        return jax.tree.map(jnp.zeros_like, updates), {"value": seen["value"]}

    only = optax.GradientTransformationExtraArgs(lambda params: {"value": jnp.zeros(())}, update)
    form = form_of(backends.load("jax"), lambda params, hyperparameters: only)
    params, batch, workload = drawn(1), {"targets": drawn(2)}, Bowl()
    state = form.init_optimizer_state(workload, params, None)
    expected = workload.mean_loss(batch["targets"], jax.tree.leaves(params), None, 0)
    state, _, _ = form.update_params(workload, params, None, batch, state, 0, None)
    np.testing.assert_allclose(state["value"], expected, rtol=1e-6)
    assert jax.tree.structure(seen["gradients"]) == jax.tree.structure(drawn(1))


@functools.cache
def digits():
    return load_data(DIGITS, MINI, "builtin")


def a_batch(rows=16, start=0):
    train = digits().splits["train"]
    return {key: array[start : start + rows].copy() for key, array in train.items()}


class Digits:
    """A submission's optimizers at work on the model of digits."""

    def __init__(self, framework, make, *, backend=None, dropout_rate=0.0, settings=None):
        self.backend = backend or backends.load(framework)
        scale = dataclasses.replace(MINI, dropout_rate=dropout_rate)
        self.workload = self.backend.workload(DIGITS, scale, "builtin", digits())
        self.workload.metrics_logger = self.buffer = ScalarBuffer()
        self.form = form_of(
            self.backend, lambda params, hyperparameters: make(params), settings or StepSettings()
        )
        self.params, self.model_state = self.workload.init_model_fn(self.backend.random_state(SEED))
        self.backend.seed(SEED)
        self.state = self.form.init_optimizer_state(self.workload, self.params, None)
        self.count = 0

    def step(self, batch):
        self.state, self.params, self.model_state = self.form.update_params(
            self.workload,
            self.params,
            self.model_state,
            self.backend.place(batch),
            self.state,
            self.count,
            self.backend.random_state(SEED),
        )
        self.count += 1

    def train(self, steps=3):
        for number in range(self.count, self.count + steps):
            self.step(a_batch(start=16 * number))
        return self

    def values(self):
        return self.workload.to_neutral(self.params)

    def rows(self):
        return [values for _, values in self.buffer.take(self.backend.fetch)]


def assert_same(one, other):
    for name, value in one.values().items():
        np.testing.assert_array_equal(value, other.values()[name], name)


def matrices(params):
    return params.tensors(lambda parameter: len(parameter.shape) > 1)


def vectors(params):
    return params.tensors(lambda parameter: len(parameter.shape) == 1)


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def two(params):
    """Two optimizers and their schedulers, in an order and a nesting of their own."""
    one = torch.optim.SGD(matrices(params), 0.2, momentum=0.5)
    other = torch.optim.SGD(vectors(params), 0.4)
    return [other, halving(one)], [one, None], halving(other)


def one_of_groups(params):
    """The same as two groups of one optimizer."""
    optimizer = torch.optim.SGD(
        [
            {"params": matrices(params), "lr": 0.2, "momentum": 0.5},
            {"params": vectors(params), "lr": 0.4},
        ]
    )
    return optimizer, halving(optimizer)


def test_several_optimizers_and_schedulers_are_those_of_one_with_groups():
    several, one = Digits("pytorch", two).train(), Digits("pytorch", one_of_groups).train()
    assert_same(several, one)
    assert several.form.notes == []
    rates = [each.param_groups[0]["lr"] for each in several.state["optimizer"]]
    assert rates == [0.4 / 8, 0.2 / 8]
    assert [row["learning_rate"] for row in several.rows()] == pytest.approx([0.4, 0.2, 0.1])


def muon_and_adamw(params):
    return torch.optim.Muon(matrices(params)), torch.optim.AdamW(vectors(params))


def lookahead(params):
    return pytorch_optimizer.Lookahead(torch.optim.AdamW(params.tensors()), k=2)


def sam(params):
    return pytorch_optimizer.SAM(params.tensors(), torch.optim.SGD, lr=0.1)


def conda(params):
    return pytorch_optimizer.Conda(params.tensors())


def schedule_free(params):
    return schedulefree.SGDScheduleFreeClosure(params.tensors(), lr=0.1)


def lbfgs(params):
    return torch.optim.LBFGS(params.tensors(), 0.1, max_iter=3)


@pytest.mark.parametrize("make", [two, muon_and_adamw, lookahead, sam, conda, schedule_free, lbfgs])
def test_optimizers_of_every_kind_go_on_where_they_were_saved(make):
    undisturbed = Digits("pytorch", make).train(3)
    tree = {"params": undisturbed.params, "state": undisturbed.state}
    arrays, structure = state.to_arrays(tree)
    resumed = Digits("pytorch", make)
    restored = state.restore(arrays, structure, {"params": resumed.params, "state": resumed.state})
    resumed.state, resumed.count = restored["state"], 3
    assert_same(undisturbed.train(2), resumed.train(2))


class Both:
    """A module that is neither."""


def adam(params):
    return torch.optim.Adam(params.tensors(), 0.1)


def twice(params):
    optimizer = adam(params)
    return optimizer, halving(optimizer), optimizer


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda params: torch.optim.Adam, "returned type, not a torch.optim.Optimizer, or a tuple"),
        (lambda params: None, "returned NoneType, not"),
        (lambda params: (adam(params), Both()), "a tuple of Adam, Both, and Both among it, not"),
        (lambda params: [adam(params), torch.optim.SGD], "and the class SGD among it"),
        (lambda params: {"adam": adam(params)}, "returned dict, not"),
        (lambda params: halving(adam(params)), "returned StepLR, with no optimizer among it"),
        (lambda params: (), "returned a tuple of nothing, with no optimizer"),
        (twice, "the same Adam twice"),
        (
            lambda params: (adam(params), torch.optim.SGD(vectors(params), 0.1)),
            "gives hidden_0/bias to two optimizers, Adam and SGD",
        ),
        (
            lambda params: (torch.optim.SGD(vectors(params)), torch.optim.LBFGS(matrices(params))),
            "returned 2 optimizers, and LBFGS needs a closure",
        ),
    ],
)
def test_what_torch_optimizer_returns_else_is_refused_by_name(make, says):
    with pytest.raises(errors.UserError, match=says.replace("(", r"\(")):
        Digits("pytorch", make)


def test_what_jax_optimizer_returns_else_is_refused_by_name():
    says = "returned a tuple of GradientTransformationExtraArgs, int, not an optax.Gradient"
    with pytest.raises(errors.UserError, match=says):
        Digits("jax", lambda params: (optax.sgd(0.1), 3))


def test_a_parameter_without_an_optimizer_is_told_and_leaves_the_others_alone():
    """Its gradients do not add up from step to step, in the norm or in what is clipped by it."""
    clipped = StepSettings(grad_clip=0.5)
    runs = [
        Digits("pytorch", lambda params: torch.optim.SGD(matrices(params), 0.0), settings=clipped),
        Digits("pytorch", lambda params: torch.optim.SGD(params.tensors(), 0.0), settings=clipped),
    ]
    for run in runs:
        for _ in range(3):
            run.step(a_batch())
    norms = [[row["gradient_norm"] for row in run.rows()] for run in runs]
    assert norms[0] == norms[1]
    assert runs[0].form.notes == [
        "torch_optimizer gives no optimizer hidden_0/bias, hidden_1/bias, head/bias (3 of 6 "
        "parameters), which will not train"
    ]


def test_reduce_on_plateau_steps_by_the_training_loss():
    def make(params):
        optimizer = torch.optim.SGD(params.tensors(), 0.0)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        return optimizer, plateau(optimizer, patience=1, eps=0.0)

    run = Digits("pytorch", make)
    for _ in range(4):
        run.step(a_batch())
    scheduler = run.state["scheduler"]
    assert scheduler.best == pytest.approx(run.rows()[0]["loss"])
    assert scheduler.num_bad_epochs == 1  # two made it wait: it reduced, and then one more


def test_a_scheduler_that_needs_something_else_is_refused():
    class ByEpoch:
        def step(self, epoch):
            raise AssertionError

    with pytest.raises(errors.UserError, match="scheduler ByEpoch, whose step needs epoch; it may"):
        Digits("pytorch", lambda params: (adam(params), ByEpoch()))


def by_hand(optimizer_of, steps=3):
    """Training by an optimizer that calls a closure, written out; no dropout."""
    run = Digits("pytorch", adam)
    model, optimizer = run.params, optimizer_of(list(run.params.parameters()))
    for number in range(steps):
        batch = run.backend.place(a_batch(start=16 * number))

        @torch.enable_grad()
        def closure(batch=batch):
            optimizer.zero_grad()
            logits, _ = run.workload.model_fn(
                model, batch, None, spec.ForwardPassMode.TRAIN, None, True, 0.0
            )
            loss = torch.nn.functional.cross_entropy(logits, batch["targets"].long())
            loss.backward()
            return loss

        if isinstance(optimizer, Sharpness):
            closure()
        optimizer.step(closure)
    return run


class Sharpness(torch.optim.SGD):
    """Descends by the gradient a way up the slope, and says as pytorch_optimizer's do that it needs
    a closure.
    """

    class NoClosureError(Exception):
        pass

    @torch.no_grad()
    def step(self, closure=None):
        if closure is None:
            raise self.NoClosureError("Sharpness requires closure.")
        before = [value.clone() for value in self.param_groups[0]["params"]]
        for value in self.param_groups[0]["params"]:
            value.add_(value.grad, alpha=0.1)
        closure()
        for value, old in zip(self.param_groups[0]["params"], before, strict=True):
            value.copy_(old)
        super().step()


@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda tensors: torch.optim.LBFGS(tensors, 0.5, max_iter=3),
        lambda tensors: Sharpness(tensors, 0.1),
    ],
    ids=["LBFGS", "sharpness"],
)
def test_an_optimizer_that_needs_a_closure_gets_one(optimizer_of):
    def make(params):
        optimizer = optimizer_of(params.tensors())
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    ours = Digits("pytorch", make).train()
    assert_same(ours, by_hand(optimizer_of))
    assert len(ours.rows()) == 3


class Repeats(torch.optim.Optimizer):
    """Moves nothing, and keeps the losses of its closure."""

    def __init__(self, tensors, losses):
        super().__init__(tensors, {})
        self.losses = losses

    def step(self, closure):
        self.losses += [float(closure()), float(torch.rand(())), float(closure())]


def test_a_closure_repeats_its_dropout_and_nothing_else():
    losses = []
    run = Digits("pytorch", lambda params: Repeats(params.tensors(), losses), dropout_rate=0.5)
    passes, model_fn = [], run.workload.model_fn
    run.workload.model_fn = lambda *arguments: (passes.append(1), model_fn(*arguments))[1]
    run.train(2)
    assert losses[0] == losses[2] != losses[3] == losses[5]
    assert losses[1] != losses[4]
    assert len(passes) == 4  # those of the closure, and none before
    assert [row["loss"] for row in run.rows()] == [losses[0], losses[3]]


def test_a_closure_has_no_loss_scaling():
    backend = backends.load("pytorch", computation=Computation(precision="fp16"))
    with pytest.raises(errors.UserError, match="LBFGS needs a closure, which --precision fp16"):
        Digits("pytorch", lambda params: torch.optim.LBFGS(params.tensors()), backend=backend)


def test_loss_scaling_leaves_out_the_step_of_all_optimizers():
    backend = backends.load("pytorch", computation=Computation(precision="fp16"))
    run = Digits("pytorch", two, backend=backend)
    before = run.values()
    scaler = run.state["scaler"]
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**126})
    run.step(a_batch())
    for name, value in run.values().items():
        np.testing.assert_array_equal(value, before[name])
    assert [each.last_epoch for each in run.state["scheduler"]] == [0, 0]
    scaler.load_state_dict(scaler.state_dict() | {"scale": 1.0})
    run.step(a_batch())
    assert all((value != before[name]).any() for name, value in run.values().items())
    assert [each.last_epoch for each in run.state["scheduler"]] == [1, 1]

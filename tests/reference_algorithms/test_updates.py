"""Twenty updates from fixed gradients: JAX, PyTorch, and the papers' formulas in float64 agree."""

import importlib
import math

import numpy as np
import pytest

import reference_algorithms
from algoperf import spec

STEPS = 20
INFO = spec.TrainingInfo(step_hint=24, loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY, budget_s=60.0)
SHAPES = {
    "embed/embedding": (7, 5),
    "block/dense/kernel": (5, 9),
    "block/dense/bias": (9,),
    "block/norm/scale": (9,),
    "head/kernel": (9, 1),
    "head/bias": (1,),
}
# Warm-up 20 % of 24 steps, so that 20 updates see the rise, the fall and (linear) the flat end.
POINTS = {
    "adamw": {"one_minus_beta1": 0.1, "beta2": 0.98, "weight_decay": 0.3},
    "nadamw": {"one_minus_beta1": 0.05, "beta2": 0.98, "weight_decay": 0.3},
    "momentum": {"one_minus_beta1": 0.1, "weight_decay": 0.2},
    "nesterov": {"one_minus_beta1": 0.1, "weight_decay": 0.2},
}
COMMON = {"learning_rate": 0.03, "warmup_factor": 0.2}
LINEAR = {"decay_steps_factor": 0.6, "end_factor": 0.05}


def make(name):
    module = importlib.import_module(f"reference_algorithms.{name}")
    extra = LINEAR if "end_factor" in module.DEFAULTS else {}
    return module, {**COMMON, **extra, **POINTS[name]}


def initial_and_gradients():
    rng = np.random.default_rng(7)
    initial = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    gradients = [
        {name: rng.normal(0.3, 1.0, shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(STEPS)
    ]
    return initial, gradients


def as_parameters(tensors):
    return spec.Parameters(
        spec.Parameter(name, spec.ParameterType.WEIGHT, shape, False, tensors.get(name))
        for name, shape in SHAPES.items()
    )


def run_jax(module, point, initial, gradients):
    import jax
    import optax

    parameters = as_parameters({})
    transformation = module.jax_optimizer(spec.make_hyperparameters(point), INFO)
    weights = parameters.tree(lambda p: jax.numpy.asarray(initial[p.name]))
    state = transformation.init(weights)

    @jax.jit
    def step(weights, state, gradient):
        updates, state = transformation.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    for gradient in gradients:
        weights, state = step(weights, state, parameters.tree(lambda p, g=gradient: g[p.name]))
    flat = {}
    for name in SHAPES:
        node = weights
        for key in name.split("/"):
            node = node[key]
        flat[name] = np.asarray(node)
    return flat


def run_torch(module, point, initial, gradients):
    import torch

    tensors = {
        name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in initial.items()
    }
    optimizer, scheduler = module.torch_optimizer(
        as_parameters(tensors), spec.make_hyperparameters(point), INFO
    )
    for gradient in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(gradient[name].copy())
        optimizer.step()
        scheduler.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def rate_by_hand(step, point):
    """Warm-up over 5 updates, then cosine over 19 or linear over 11."""
    update = step + 1
    if update <= 5:
        return point["learning_rate"] * update / 5
    if "end_factor" in point:
        left = max(0.0, 1 - (update - 5) / 11)
        return point["learning_rate"] * (point["end_factor"] + (1 - point["end_factor"]) * left)
    cosine = (1 + math.cos(math.pi * (update - 5) / 19)) / 2
    return point["learning_rate"] * max(0.01, cosine)


def adam_direction(gradients, t, point, nesterov):
    """Kingma and Ba's algorithm 1, or Dozat's m-bar with constant mu; the averages as sums."""
    b1, b2 = 1 - point["one_minus_beta1"], point["beta2"]

    def first(steps):
        return sum((1 - b1) * b1 ** (steps - i) * gradients[i - 1] for i in range(1, steps + 1))

    second = sum((1 - b2) * b2 ** (t - i) * gradients[i - 1] ** 2 for i in range(1, t + 1))
    if nesterov:
        mean = b1 * first(t) / (1 - b1 ** (t + 1)) + (1 - b1) * gradients[t - 1] / (1 - b1**t)
    else:
        mean = first(t) / (1 - b1**t)
    return mean / (np.sqrt(second / (1 - b2**t)) + 1e-8)


def run_formula(name, point, initial, gradients):
    """The papers' formulas in float64, one parameter at a time."""
    final = {}
    for key in SHAPES:
        weight = initial[key].astype(np.float64)
        history = [gradient[key].astype(np.float64) for gradient in gradients]
        velocity, m = np.zeros_like(weight), 1 - point["one_minus_beta1"]
        for step in range(STEPS):
            rate, decay = rate_by_hand(step, point), point["weight_decay"]
            if name in ("adamw", "nadamw"):
                direction = adam_direction(history, step + 1, point, name == "nadamw")
                weight = weight - rate * (direction + decay * weight)
                continue
            total = history[step] + decay * weight
            velocity = m * velocity + total
            weight = weight - rate * (total + m * velocity if name == "nesterov" else velocity)
        final[key] = weight
    return final


def difference(ours, others, initial):
    """Norm of the difference over the norm of the update, all parameters together."""
    return math.sqrt(
        sum(np.sum((ours[key].astype(np.float64) - others[key]) ** 2) for key in SHAPES)
        / sum(np.sum((others[key].astype(np.float64) - initial[key]) ** 2) for key in SHAPES)
    )


@pytest.mark.parametrize("name", ["adamw", "nadamw", "momentum", "nesterov"])
def test_frameworks_and_formula_agree(name):
    module, point = make(name)
    initial, gradients = initial_and_gradients()
    in_jax = run_jax(module, point, initial, gradients)
    in_torch = run_torch(module, point, initial, gradients)
    by_hand = run_formula(name, point, initial, gradients)
    assert difference(in_jax, in_torch, initial) < 1e-5
    assert difference(in_jax, by_hand, initial) < 1e-5
    assert difference(in_torch, by_hand, initial) < 1e-5


def test_every_algorithm_is_covered():
    assert sorted(POINTS) == reference_algorithms.names()


@pytest.mark.parametrize("name", ["adamw", "nadamw", "momentum", "nesterov"])
def test_one_update_by_hand(name):
    """The first update for gradient 1, weight 1 and no decay, at a fifth of the rate of 0.03."""
    module, point = make(name)
    point["weight_decay"] = 0.0
    ones = {key: np.ones(shape, np.float32) for key, shape in SHAPES.items()}
    m = 1 - point["one_minus_beta1"]
    expected = {
        "adamw": 1.0,
        "nadamw": 1.0 + m / (1 + m),  # g-hat (1 - m) is 1; m (1 - m) / (1 - m^2) is m / (1 + m)
        "momentum": 1.0,
        "nesterov": 1.0 + m,
    }[name]
    for run in (run_jax, run_torch):
        final = run(module, point, ones, [ones])
        np.testing.assert_allclose(1 - final["head/kernel"], 0.006 * expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "momentum", "nesterov"])
def test_torch_resumes_from_saved_state(name, tmp_path):
    """Ten steps, save, load into a fresh optimizer, ten more: bit for bit as twenty."""
    import torch

    module, point = make(name)
    initial, gradients = initial_and_gradients()
    tensors = {key: torch.nn.Parameter(torch.from_numpy(v.copy())) for key, v in initial.items()}

    def fresh():
        hyperparameters = spec.make_hyperparameters(point)
        return module.torch_optimizer(as_parameters(tensors), hyperparameters, INFO)

    optimizer, scheduler = fresh()
    for step, gradient in enumerate(gradients):
        if step == 10:
            file = tmp_path / "state.pt"
            torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
            optimizer, scheduler = fresh()
            saved = torch.load(file, weights_only=True)
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
        for key, tensor in tensors.items():
            tensor.grad = torch.from_numpy(gradient[key].copy())
        optimizer.step()
        scheduler.step()
    whole = run_torch(module, point, initial, gradients)
    for key in SHAPES:
        np.testing.assert_array_equal(tensors[key].detach().numpy(), whole[key])

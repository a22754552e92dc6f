"""SAM by hand: two passes a step on a bowl whose gradient is known."""

import numpy as np
import pytest

from algoperf import spec
from reference_algorithms import sam

CURVATURE = np.array([1.0, 3.0, 0.2])
START = np.array([1.0, -2.0, 0.5])
STEPS = 12
POINT = {
    "learning_rate": 0.05,
    "one_minus_beta1": 0.1,
    "beta2": 0.98,
    "weight_decay": 0.3,
    "warmup_factor": 0.2,
    "grad_clip": 2.0,
    "rho": 0.5,
}


class Bowl:
    """The loss is sum(targets w^2) / 2; the model's state counts what updated it."""

    step_hint = 24
    loss_type = spec.LossType.MEAN_SQUARED_ERROR
    max_allowed_runtime_sec = 60.0

    def __init__(self):
        self.metrics_logger = self
        self.logged = {}

    def model_fn(self, params, batch, state, mode, rng, update_batch_norm):
        weight = params["w"] if isinstance(params, dict) else params.w
        assert mode is spec.ForwardPassMode.TRAIN
        return weight, state + 1 if update_batch_norm else state

    def mean_loss(self, targets, logits, mask):
        return (targets * logits**2).sum() / 2

    def append_scalar_metrics(self, scalars, step, **_):
        self.logged[step] = {name: float(value) for name, value in scalars.items()}


def by_hand():
    """AdamW on the gradient at w + rho g / |g|, clipped to a norm of 2."""
    weight, mean, square = START, 0.0, 0.0
    for t in range(1, STEPS + 1):
        gradient = CURVATURE * weight
        worst = weight + POINT["rho"] * gradient / np.linalg.norm(gradient)
        gradient = CURVATURE * worst
        gradient = gradient * min(1.0, 2.0 / np.linalg.norm(gradient))
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.98 * square + 0.02 * gradient**2
        direction = (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.98**t)) + 1e-8)
        cosine = (1 + np.cos(np.pi * (t - 5) / 19)) / 2
        rate = 0.05 * (t / 5 if t <= 5 else cosine)
        weight = weight - rate * (direction + 0.3 * weight)
    return weight


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_two_passes_a_step(framework):
    workload = Bowl()
    if framework == "jax":
        import jax.numpy as jnp

        params, targets = {"w": jnp.array(START, jnp.float32)}, jnp.array(CURVATURE, jnp.float32)
    else:
        import torch

        params = torch.nn.Module()
        params.w = torch.nn.Parameter(torch.tensor(START, dtype=torch.float32))
        targets = torch.tensor(CURVATURE, dtype=torch.float32)
    point = spec.make_hyperparameters(POINT)
    state, count = sam.init_optimizer_state(workload, params, point), 0
    for step in range(STEPS):
        state, params, count = sam.update_params(
            workload, params, count, point, {"targets": targets}, state, step, None
        )
    final = params["w"] if framework == "jax" else params.w.detach()
    np.testing.assert_allclose(np.asarray(final), by_hand(), rtol=1e-5)
    assert int(count) == STEPS  # once a step, in the first pass
    assert sorted(workload.logged) == [0, 10]
    # The loss and the gradient of the first pass: (1 + 12 + 0.05) / 2, |(1, -6, 0.1)|.
    assert workload.logged[0]["loss"] == pytest.approx(6.525)
    assert workload.logged[0]["gradient_norm"] == pytest.approx(37.01**0.5)
    assert not spec.unread(point)


def test_both_passes_drop_the_same_units_in_torch():
    import torch

    drawn = []

    class Noisy(Bowl):
        def model_fn(self, params, *rest):
            drawn.append(float(torch.rand(())))
            return super().model_fn(params, *rest)

    params = torch.nn.Module()
    params.w = torch.nn.Parameter(torch.tensor(START))
    workload, point = Noisy(), spec.make_hyperparameters(POINT)
    state = sam.init_optimizer_state(workload, params, point)
    for step in range(2):
        batch = {"targets": torch.tensor(CURVATURE)}
        sam.update_params(workload, params, 0, point, batch, state, step, None)
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3] != drawn[0]

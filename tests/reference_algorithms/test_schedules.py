"""The schedules against hand-worked values, on Python numbers and inside jit."""

import types

import numpy as np
import pytest

from algoperf import spec
from reference_algorithms import schedules

INFO = spec.TrainingInfo(
    step_hint=100, loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY, budget_s=60.0
)
COSINE = schedules.warmup_cosine(types.SimpleNamespace(learning_rate=2.0, warmup_factor=0.2), INFO)
LINEAR = schedules.warmup_linear(
    types.SimpleNamespace(
        learning_rate=2.0, warmup_factor=0.2, decay_steps_factor=0.5, end_factor=0.1
    ),
    INFO,
)

CONSTANT = schedules.warmup_constant(
    types.SimpleNamespace(learning_rate=2.0, warmup_factor=0.2), INFO
)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1),  # the first of 20 warm-up updates: 2 / 20, not 0
        (9, 1.0),
        (19, 2.0),  # the peak, at update 20
        (39, 2 * 0.8535533905932737),  # a quarter of the decay: (1 + cos 45 degrees) / 2
        (59, 1.0),
        (79, 2 * 0.14644660940672627),
        (99, 0.02),  # the floor, 1 %
        (5000, 0.02),
    ],
)
def test_cosine(step, rate):
    assert COSINE(step) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (19, 2.0), (29, 1.55), (39, 1.1), (59, 0.2), (60, 0.2), (5000, 0.2)],
)
def test_linear(step, rate):
    assert LINEAR(step) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (9, 1.0), (19, 2.0), (20, 2.0), (5000, 2.0)])
def test_constant(step, rate):
    assert CONSTANT(step) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR, CONSTANT])
def test_same_inside_jit(schedule):
    import jax

    steps = np.arange(130, dtype=np.int32)
    inside = np.asarray(jax.jit(jax.vmap(schedule))(steps))
    outside = [schedule(int(step)) for step in steps]
    np.testing.assert_allclose(inside, outside, rtol=2e-6)
    np.testing.assert_allclose(schedule(steps), outside, rtol=1e-12)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR, CONSTANT])
def test_one_rise_then_only_falls(schedule):
    changes = np.diff([schedule(step) for step in range(130)])
    assert (changes[:19] > 0).all()
    assert (changes[19:] <= 0).all()


def test_no_warm_up_and_a_step_hint_of_one():
    point = types.SimpleNamespace(
        learning_rate=2.0, warmup_factor=0.0, decay_steps_factor=1.0, end_factor=0.1
    )
    assert schedules.warmup_cosine(point, INFO)(0) == 2.0
    one_step = spec.TrainingInfo(step_hint=1, loss_type=INFO.loss_type, budget_s=60.0)
    for make in (schedules.warmup_cosine, schedules.warmup_linear, schedules.warmup_constant):
        assert make(point, one_step)(0) == 2.0


def test_torch_scheduler_sets_the_rate():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedules.for_torch(optimizer, COSINE)
    for step in range(110):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(COSINE(step), rel=1e-12)
        assert type(optimizer.param_groups[0]["lr"]) is float  # so that a saved state loads
        optimizer.step()
        scheduler.step()

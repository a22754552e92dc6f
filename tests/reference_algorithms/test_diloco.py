"""DiLoCo with one worker by hand: constant gradients, of which each AdamW step is the rate long."""

import numpy as np
import pytest
import update_agreement as runs

from reference_algorithms import diloco

NAME = "block/dense/bias"
POINT = {
    **diloco.DEFAULTS,
    "learning_rate": 0.1,
    "warmup_factor": 0.5,  # over 12 updates: rates of 0.1 / 12, 0.2 / 12, ...
    "weight_decay": 0.0,
    "inner_steps": 3,
    "outer_momentum": 0.9,
}


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_two_outer_steps(framework):
    run = runs.RUNS[framework](diloco, POINT, {NAME: np.zeros(2, np.float32)})
    values = []
    for _ in range(7):
        run.step({NAME: np.array([2.0, -0.5], np.float32)})
        values.append(run.values()[NAME] * 120)
    # In units of 0.1 / 12: ways of 1 + 2 + 3 = 6 and 4 + 5 + 6 = 15.
    first = 0.7 * (6 + 0.9 * 6)
    second = first + 0.7 * (15 + 0.9 * (0.9 * 6 + 15))
    ways = [1, 3, first, first + 4, first + 9, second, second + 7]
    np.testing.assert_allclose(values, [[-way, way] for way in ways], rtol=1e-5)


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_without_momentum_and_with_whole_steps_it_is_the_inner_optimizer(framework):
    initial, gradients = runs.initial_and_gradients(runs.SHAPES)
    adamw = runs.point_of("adamw")
    for inner_steps in (1, 4):
        outer = {"inner_steps": inner_steps, "outer_learning_rate": 1.0, "outer_momentum": 0.0}
        one = runs.RUNS[framework](diloco, {**adamw, **outer}, initial)
        other = runs.RUNS[framework](runs.load("adamw"), adamw, initial)
        for gradient in gradients:
            one.step(gradient)
            other.step(gradient)
        assert runs.difference(one.values(), other.values(), initial) < 1e-6


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_with_a_rate_of_a_half_it_is_lookahead(framework):
    """Zhang et al. 2019: half of the way back after every three steps."""
    point = {**POINT, "outer_learning_rate": 0.5, "outer_momentum": 0.0}
    run = runs.RUNS[framework](diloco, point, {NAME: np.zeros(1, np.float32)})
    for _ in range(6):
        run.step({NAME: np.ones(1, np.float32)})
    np.testing.assert_allclose(run.values()[NAME] * 120, [-(6 / 2 + 15 / 2)], rtol=1e-5)


def test_a_parameter_without_gradients_is_left_alone_in_torch():
    import torch

    from algoperf import spec

    tensors = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    kind = spec.ParameterType.BIAS
    named = spec.Parameters(
        spec.Parameter(name, kind, (2,), False, tensor)
        for name, tensor in zip("ab", tensors, strict=True)
    )
    optimizer, _ = diloco.torch_optimizer(named, spec.make_hyperparameters(POINT), runs.INFO)
    for _ in range(3):
        tensors[0].grad = torch.ones(2)
        optimizer.step()
    assert (tensors[0] < 1).all()
    assert (tensors[1] == 1).all()

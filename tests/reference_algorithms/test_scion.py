"""Scion by hand: each step is the farthest point of its layer's ball."""

import numpy as np
import pytest
import update_agreement as runs

from algoperf import spec
from reference_algorithms import scion

POINT = {
    **scion.DEFAULTS,
    "learning_rate": 1.0,
    "warmup_factor": 0.0,
    "weight_decay": 0.0,
    "one_minus_beta1": 0.25,
}


def step(framework, gradients, point=POINT):
    """The first step's change of each parameter, against which the gradient points."""
    initial = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    run = runs.RUNS[framework](scion, point, initial)
    run.step(gradients)
    return {name: -value for name, value in run.values().items()}


def draw(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def quintic(value):
    """Five Newton-Schulz steps of one singular value."""
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    return value


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_the_steps_of_each_norm(framework):
    gradients = {
        "block/dense/kernel": np.diag([3.0, 4.0, 0.0])[:2].astype(np.float32),
        "block/dense/bias": np.array([3.0, -4.0], np.float32),
        "embed/embedding": np.array([[6.0, 8.0], [0.0, 0.0], [0.0, 1e-3]], np.float32),
        "head/kernel": np.array([[0.5, -2.0], [0.0, 3.0], [1.0, 1.0], [-1e-4, 0.0]], np.float32),
        "head/embedding": np.array([[0.5, -2.0], [0.0, 3.0], [1.0, 1.0]], np.float32),
    }
    steps = step(framework, gradients)
    # Singular values 3 and 4 of a norm of 5; two inputs and three outputs.
    hidden = np.sqrt(3 / 2) * np.diag([quintic(0.6), quintic(0.8), 0.0])[:2]
    np.testing.assert_allclose(steps["block/dense/kernel"], hidden, rtol=1e-5, atol=1e-6)
    # A root mean square of 1 over two entries is a length of sqrt(2).
    np.testing.assert_allclose(
        steps["block/dense/bias"], np.sqrt(2) * np.array([0.6, -0.8]), rtol=1e-5
    )
    np.testing.assert_allclose(
        steps["embed/embedding"],
        np.sqrt(2) * np.array([[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]),
        rtol=1e-4,
    )
    # 16 over four inputs, and over a table's width of two.
    np.testing.assert_array_equal(
        steps["head/kernel"], 4 * np.array([[1, -1], [0, 1], [1, 1], [-1, 0]])
    )
    np.testing.assert_array_equal(steps["head/embedding"], 8 * np.array([[1, -1], [0, 1], [1, 1]]))


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_hidden_steps_are_as_long_as_the_ball_is_wide(framework):
    """All singular values within the quintic's 0.68 to 1.14, times sqrt(outputs / inputs)."""
    for shape in ((6, 24), (24, 6), (8, 8)):
        gradient = draw(*shape)
        made = step(framework, {"block/dense/kernel": gradient})["block/dense/kernel"]
        values = np.linalg.svd(made, compute_uv=False) / np.sqrt(shape[1] / shape[0])
        assert ((values > 0.68) & (values < 1.14)).sum() >= min(shape) - 1, values
        # Along d it goes about as far as the nuclear norm, the dual one, says.
        reached = (made * gradient).sum() / np.sqrt(shape[1] / shape[0])
        assert reached == pytest.approx(np.linalg.norm(gradient, "nuc"), rel=0.2)


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
@pytest.mark.parametrize("module", ["convolution", "transposed"])
def test_a_convolution_is_a_matrix_of_its_outputs(framework, module):
    """With a window of 2 x 3: the matrix' step, over six."""
    gradient = draw(2, 3, 5, 4)
    made = step(framework, {f"{module}/kernel": gradient})[f"{module}/kernel"]
    matrix = step("jax", {"block/dense/kernel": gradient.reshape(-1, 4)})["block/dense/kernel"]
    # A matrix of 30 inputs has the scale sqrt(4 / 30), the convolution sqrt(4 / 5) / 6.
    expected = matrix.reshape(gradient.shape) * np.sqrt(30 / 5) / 6
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_number_alone_steps_by_its_sign(framework):
    steps = step(framework, {"norm/scale": np.array(-3.0, np.float32)})
    assert steps["norm/scale"] == pytest.approx(-1)


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_weights_stay_in_a_ball_of_the_decays_inverse(framework):
    """With a decay of 4 a vector goes to a root mean square of 1/4, from inside."""
    point = {**POINT, "learning_rate": 0.05, "weight_decay": 4.0}
    run = runs.RUNS[framework](scion, point, {"block/dense/bias": np.zeros(2, np.float32)})
    for _ in range(20):
        run.step({"block/dense/bias": np.array([3.0, -4.0], np.float32)})
        assert np.sqrt((run.values()["block/dense/bias"] ** 2).mean()) < 0.25
    np.testing.assert_allclose(
        run.values()["block/dense/bias"], -0.25 * np.sqrt(2) * np.array([0.6, -0.8]), rtol=0.2
    )


@pytest.mark.parametrize(
    ("name", "shape", "is_output", "norm"),
    [
        ("block/dense/kernel", (2, 3), False, "hidden"),
        ("convolution/kernel", (3, 3, 2, 3), False, "hidden"),
        ("transposed_1/kernel", (3, 3, 2, 3), False, "transposed"),
        ("token/embedding", (5, 3), False, "table"),
        ("token/embedding", (5, 3), True, "shared table"),
        ("head/kernel", (2, 3), True, "output"),
        ("head/bias", (3,), True, "vector"),
        ("norm/scale", (), False, "vector"),
    ],
)
def test_norms(name, shape, is_output, norm):
    kind = spec.ParameterType.EMBEDDING if "embedding" in name else spec.ParameterType.WEIGHT
    assert scion.norm_of(spec.Parameter(name, kind, shape, is_output)) == norm

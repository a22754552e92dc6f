"""NorMuon by hand: every neuron's update has one size."""

import numpy as np
import pytest
import update_agreement as runs

from reference_algorithms import normuon

NAME = "block/dense/kernel"  # (inputs, outputs): a neuron is a column
# Orthogonal columns, so that the singular vectors are the axes and the columns' directions.
FIRST = np.array([[3.0, 0.0], [0.0, 1.0], [4.0, 0.0]], np.float32)
SECOND = np.array([[0.0, 2.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
POINT = {
    **normuon.DEFAULTS,
    "learning_rate": 1.0,
    "warmup_factor": 0.0,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "neuron_beta2": 0.9,
}


def updates(framework, gradients):
    """The matrix' change by each update, over its learning rate."""
    run = runs.RUNS[framework](normuon, POINT, {NAME: np.zeros((3, 2), np.float32)})
    before, rates = np.zeros((3, 2)), []
    for gradient in gradients:
        run.step({NAME: gradient})
        after = run.values()[NAME].astype(np.float64)
        rates.append(before - after)
        before = after
    return rates


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_every_neuron_moves_alike(framework):
    """In the first step: 0.2 by root mean square, though the gradients are 5 and 1 long."""
    (update,) = updates(framework, [FIRST])
    # The columns point along (0.6, 0, 0.8) and (0, 1, 0); a root mean square of 0.2 over three
    # entries is a length of 0.2 sqrt(3).
    expected = 0.2 * np.sqrt(3) * np.array([[0.6, 0.0], [0.0, 1.0], [0.8, 0.0]])
    np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_neuron_that_rests_keeps_its_average(framework):
    """In the second step one neuron moves, with the whole matrix' root mean square of 0.2."""
    _, update = updates(framework, [FIRST, SECOND])
    rate = 0.99534  # of the cosine, sin^2 (pi / 2 * 22 / 23)
    expected = np.zeros((3, 2))
    expected[0, 1] = 0.2 * np.sqrt(6) * rate
    np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)


def test_an_average_weighs_neurons():
    """Means of squares of 4 and 1 before, 1 and 1 now, with a decay of 0.5: 2.5 and 1."""
    orthogonal = np.ones((2, 2))
    update, square = normuon.normalized(orthogonal, np.array([[4.0, 1.0]]), 0.5, 0)
    np.testing.assert_allclose(square, [[2.5, 1.0]])
    # The rows become 1 / sqrt(2.5) and 1, whose mean square is 0.7: times 0.2 / sqrt(0.7).
    np.testing.assert_allclose(update, 0.2 / np.sqrt(0.7) * np.array([[0.4**0.5, 1.0]] * 2))


def test_a_matrix_without_gradients_rests():
    update, square = normuon.normalized(np.zeros((2, 3)), np.zeros((2, 1)), 0.9, 1)
    assert not update.any()
    assert not square.any()

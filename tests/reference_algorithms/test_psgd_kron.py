"""PSGD Kron: the factors whiten gradients of a known covariance, and stay sound."""

import numpy as np
import pytest

from reference_algorithms import psgd_kron

LEFT = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]])
RIGHT = np.array([[0.1, 0.02], [0.02, 0.04]])


def start(rows, columns):
    return [np.eye(rows), np.eye(columns), np.zeros(()), np.zeros(())]


def covariance_after(factors):
    """Of the whitened gradients' entries, where a gradient is LEFT Z RIGHT with a white Z."""
    left, right = (factor @ factor for factor in factors[:2])
    both = np.kron(right @ RIGHT, left @ LEFT)
    return both @ both.T


def test_gradients_become_white():
    """E[g g'] is the Kronecker product of RIGHT^2 and LEFT^2: not white by a factor of 400."""
    rng = np.random.default_rng(5)
    factors = start(3, 2)
    before = covariance_after(factors)
    assert np.linalg.cond(before) > 400
    products = []
    for count in range(4000):
        factors = psgd_kron.fit(LEFT @ rng.normal(size=(3, 2)) @ RIGHT, factors)
        if count >= 1000:
            products.append(covariance_after(factors))
    average = np.mean(products, axis=0)
    np.testing.assert_allclose(average, np.eye(6), atol=0.15)


def test_a_white_gradient_leaves_the_factors():
    """G G' = 2 I and G' G = 3 I cannot both hold, but of a square matrix G G' = G' G = n I can."""
    gradient = np.array([[1.0, 1.0], [1.0, -1.0]])
    factors = psgd_kron.fit(gradient, start(2, 2))
    for factor in factors[:2]:
        np.testing.assert_allclose(factor, np.eye(2), atol=1e-6)


def test_one_fit_by_hand():
    """Of diag(3, 1), whose covariance is diag(9, 1) on either side; the damping is 1e-7 of it."""
    factors = psgd_kron.fit(np.diag([3.0, 1.0]), start(2, 2))
    # A bound of 9 + 2, a half of a rate of 0.1 twice, and covariances less 2 of 7 and -1.
    once = np.array([1 - 0.05 / 11 * 7, 1 + 0.05 / 11])
    for factor in factors[:2]:
        np.testing.assert_allclose(factor, np.diag(once**2), rtol=1e-6)
    np.testing.assert_allclose(factors[2:], 11, rtol=1e-6)


def test_the_bound_falls_slowly_and_rises_at_once():
    factors = psgd_kron.fit(np.diag([3.0, 1.0]), start(2, 2))
    left, right, *bounds = psgd_kron.fit(np.zeros((2, 2)), factors)
    np.testing.assert_allclose(bounds, 0.9 * 11 + 0.1 * 2, rtol=1e-6)
    bounds = psgd_kron.fit(np.diag([300.0, 1.0]), [left, right, *bounds])[2:]
    # 300 between factors of 0.968^2 and 1.0099^2, each of them four times.
    np.testing.assert_allclose(bounds, (300 * (0.96818 * 1.0099) ** 8) ** 2, rtol=1e-3)


def test_factors_stay_balanced_symmetric_and_positive():
    rng = np.random.default_rng(6)
    factors = start(3, 2)
    for _ in range(50):
        factors = psgd_kron.fit(100 * rng.normal(size=(3, 2)), factors)
        left, right = factors[:2]
        assert np.abs(left).max() == pytest.approx(np.abs(right).max())
        for factor in (left, right):
            np.testing.assert_array_equal(factor, factor.T)
            assert np.linalg.eigvalsh(factor).min() > 0


def test_gradients_of_zeros_let_the_factors_grow_to_a_bound():
    """To what whitens noise of 1e-8: 1e8, of a single entry the square of the factors' product."""
    factors = start(1, 1)
    for _ in range(500):
        factors = psgd_kron.fit(np.zeros((1, 1)), factors)
    assert (factors[0] @ factors[1]).item() ** 2 == pytest.approx(1e8, rel=1e-3)


def test_what_is_preconditioned_is_clipped():
    factors = [np.diag([2.0, 1.0]), np.eye(2), 0.0, 0.0]
    small = psgd_kron.precondition(np.array([[0.1, 0.2], [0.1, 0.0]]), factors)
    np.testing.assert_allclose(small, [[0.4, 0.8], [0.1, 0.0]])
    large = psgd_kron.precondition(np.full((2, 2), 7.0), factors)
    assert np.sqrt((large**2).mean()) == pytest.approx(1.1)


def test_fits_grow_rarer():
    due = [count for count in range(5000) if psgd_kron.is_due(count)]
    assert due[:500] == list(range(500))
    for first, last, every in (
        *((500, 1200, 2), (1200, 1900, 4), (1900, 2600, 8)),
        *((2600, 3300, 16), (3300, 5000, 32)),
    ):
        assert [count for count in due if first <= count < last] == [
            count for count in range(first, last) if count % every == 0
        ]


def test_both_frameworks_fit_at_the_same_updates():
    import jax
    import jax.numpy as jnp

    in_jax = jax.jit(psgd_kron.is_due)(jnp.arange(4000))
    assert in_jax.tolist() == [psgd_kron.is_due(count) for count in range(4000)]

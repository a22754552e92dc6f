"""Our dropout in JAX is flax's where the rate is a number, and takes one that is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout

VALUES = jnp.arange(1.0, 401.0).reshape(4, 100)
KEY = jax.random.key(3)


def ours(rate, values=VALUES):
    return Dropout(rate, True, name="d").apply({}, values, rngs={"dropout": KEY})


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0, 1])
def test_the_same_values_as_flax(rate):
    flax = nn.Dropout(rate, deterministic=False, name="d").apply({}, VALUES, rngs={"dropout": KEY})
    np.testing.assert_array_equal(ours(rate), flax)
    np.testing.assert_array_equal(Dropout(rate, False).apply({}, VALUES), VALUES)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
@pytest.mark.parametrize(("kind", "rtol"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
def test_a_traced_rate(rate, kind, rtol):
    values = VALUES.astype(kind)
    traced = jax.jit(lambda rate: ours(rate, values))(rate)
    assert traced.dtype == kind
    fixed = ours(rate, values)
    np.testing.assert_allclose(np.float32(traced), np.float32(fixed), rtol=rtol)
    assert abs(float((traced == 0).mean()) - rate) < 0.1
    strong = jax.jit(lambda rate: ours(rate, values))(jnp.float32(rate))
    assert strong.dtype == kind


def test_whole_channels_are_dropped():
    values = 1 + jnp.arange(2 * 3 * 4 * 50.0).reshape(2, 3, 4, 50)
    layer = Dropout(0.25, True, (1, 2), name="d")
    after = layer.apply({}, values, rngs={"dropout": KEY})
    dropped = np.asarray((after == 0).all((1, 2), keepdims=True))
    np.testing.assert_array_equal(after, np.where(dropped, 0, values / 0.75))
    assert 0.1 < dropped.mean() < 0.4
    assert (dropped[0] != dropped[1]).any()

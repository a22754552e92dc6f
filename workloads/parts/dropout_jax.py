"""Dropout in flax whose rate may be traced: AlgoPerf's submissions pass it as an argument of their
jitted step. (`nn.Dropout` asks whether it is 0, which a traced value cannot answer.)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


def dropped(module: nn.Module, values: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Set a share `rate` of the values to 0 and scale up the rest. The keys are those of the
    module's stream 'dropout', which a rate of the number 0 does not need.
    """
    if not isinstance(rate, jax.Array):
        if rate == 0:
            return values
        if rate == 1:
            return jnp.zeros_like(values)
    kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, values.shape)
    scale = 1 - rate if not isinstance(rate, jax.Array) else (1 - rate).astype(values.dtype)
    return jnp.where(kept, values / scale, 0)


class Dropout(nn.Module):
    """`dropped`, while training."""

    rate: float | jax.Array
    train: bool

    def __call__(self, values: jax.Array) -> jax.Array:
        """Return values of the same shape."""
        return dropped(self, values, self.rate) if self.train else values

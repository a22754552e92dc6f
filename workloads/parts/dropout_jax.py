"""Dropout in flax whose rate may be a traced value.

AlgoPerf's submissions pass the rate as an argument of their jitted step. `nn.Dropout` asks whether
the rate is 0, which a traced value cannot answer.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


def dropped(
    module: nn.Module, values: jax.Array, rate: float | jax.Array, whole: tuple[int, ...] = ()
) -> jax.Array:
    """Set a random share of the values to 0 and scale up the rest.

    Args:
        module: The module whose random stream 'dropout' gives the keys. A rate that is the Python
            number 0 or 1 needs none.
        values: The values, of any shape.
        rate: The share of values to drop.
        whole: The axes along which all values are dropped or none.
    """
    if not isinstance(rate, jax.Array):
        if rate == 0:
            return values
        if rate == 1:
            return jnp.zeros_like(values)
    shape = tuple(1 if axis in whole else size for axis, size in enumerate(values.shape))
    kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, shape)
    scale = 1 - rate if not isinstance(rate, jax.Array) else (1 - rate).astype(values.dtype)
    return jnp.where(kept, values / scale, 0)


class Dropout(nn.Module):
    """A layer that drops values while training (see `dropped`).

    Attributes:
        rate: The share of values to drop.
        train: Whether the model is training; otherwise values pass unchanged.
        whole: The axes along which all values are dropped or none.
    """

    rate: float | jax.Array
    train: bool
    whole: tuple[int, ...] = ()

    def __call__(self, values: jax.Array) -> jax.Array:
        """Return the values, of the same shape, with a random share set to 0 while training."""
        return dropped(self, values, self.rate, self.whole) if self.train else values

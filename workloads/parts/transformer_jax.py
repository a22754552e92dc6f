"""Building blocks of the transformers of all workloads, in flax.

Shapes: B batch, Q queries, T keys, D width, H heads, K width of a head.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.products_jax import Dense


def split_heads(hidden_BTD: jax.Array, heads: int) -> jax.Array:
    """Split the last axis into heads: (B, T, D) becomes (B, H, T, K)."""
    return hidden_BTD.reshape(*hidden_BTD.shape[:-1], heads, -1).swapaxes(1, 2)


def attend(
    q_BHQK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask_BHQT: jax.Array | None = None,
    dropout: Callable[[jax.Array], jax.Array] = lambda weights: weights,
    temperature: float = 1.0,
    scores_dtype: Any = None,
) -> jax.Array:
    """Return scaled dot-product attention (Vaswani et al. 2017), with the heads side by side.

    Args:
        q_BHQK: The queries.
        k_BHTK: The keys.
        v_BHTK: The values.
        mask_BHQT: True where a query sees a key, or an array that broadcasts to that; None hides
            nothing.
        dropout: A function that drops some of the attention weights.
        temperature: The number that scores are divided by, in addition to the square root of K.
        scores_dtype: The type of the scores; None: that of the queries.

    Returns:
        Array (B, Q, D).
    """
    divisor = temperature * q_BHQK.shape[-1] ** 0.5
    products_BHQT = jnp.einsum(
        "bhqk,bhtk->bhqt", q_BHQK, k_BHTK, preferred_element_type=scores_dtype
    )
    scores_BHQT = products_BHQT / divisor
    if mask_BHQT is not None:
        scores_BHQT = jnp.where(mask_BHQT, scores_BHQT, jnp.finfo(scores_BHQT.dtype).min)
    weights_BHQT = dropout(nn.softmax(scores_BHQT).astype(v_BHTK.dtype))
    mixed_BQHK = jnp.einsum("bhqt,bhtk->bqhk", weights_BHQT, v_BHTK)
    return mixed_BQHK.reshape(*mixed_BQHK.shape[:2], -1)


def causal_mask(length: int) -> jax.Array:
    """Return a mask (length, length), True where a position sees itself or an earlier one."""
    return jnp.tril(jnp.ones((length, length), bool))


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed beforehand.

    Attributes:
        width: The width D of inputs and outputs.
        heads: The number H of heads.
        temperature: The number that scores are divided by, in addition to the square root of K.
        bias: Whether the layers have biases.
    """

    width: int
    heads: int
    temperature: float = 1.0
    bias: bool = True

    def setup(self) -> None:
        """Create the layers."""
        self.query, self.key, self.value, self.attention_out = (
            Dense(self.width, use_bias=self.bias) for _ in range(4)
        )

    def keys_values(self, hidden_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the keys and the values, each (B, H, T, K), for the positions to attend to."""
        return (
            split_heads(self.key(hidden_BTD), self.heads),
            split_heads(self.value(hidden_BTD), self.heads),
        )

    def __call__(
        self,
        hidden_BQD: jax.Array,
        keys_values: tuple[jax.Array, jax.Array],
        mask_BHQT: jax.Array | None = None,
    ) -> jax.Array:
        """Return the attention's contribution to the residual stream, (B, Q, D).

        Args:
            hidden_BQD: The positions that attend.
            keys_values: The result of `keys_values` for the positions to attend to. Where it has
                fewer rows than `hidden_BQD`, groups of neighbouring rows (the beams of one source)
                share their keys.
            mask_BHQT: True where a query sees a key, or an array that broadcasts to that.
        """
        rows = len(keys_values[0])
        queries_BQD = self.query(hidden_BQD).reshape(rows, -1, self.width)
        queries_BHQK = split_heads(queries_BQD, self.heads)
        mixed_BQD = attend(queries_BHQK, *keys_values, mask_BHQT, temperature=self.temperature)
        return self.attention_out(mixed_BQD).reshape(hidden_BQD.shape)

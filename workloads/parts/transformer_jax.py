"""What the transformers of all workloads are built of, in flax.

Shapes: B batch, Q queries, T keys, D width, H heads, K width of a head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def split_heads(hidden_BTD: jax.Array, heads: int) -> jax.Array:
    """Return the same numbers as (B, H, T, K)."""
    return hidden_BTD.reshape(*hidden_BTD.shape[:-1], heads, -1).swapaxes(1, 2)


def attend(
    q_BHQK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    mask_BHQT: jax.Array | None = None,
    dropout: Callable[[jax.Array], jax.Array] = lambda weights: weights,
    temperature: float = 1.0,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017), the heads side by side: (B, Q, D).

    `mask_BHQT`, or what broadcasts to it, is true where a query sees a key; `dropout` applies to
    the weights. The scores are divided by the temperature, too.
    """
    divisor = temperature * q_BHQK.shape[-1] ** 0.5
    scores_BHQT = jnp.einsum("bhqk,bhtk->bhqt", q_BHQK, k_BHTK) / divisor
    if mask_BHQT is not None:
        scores_BHQT = jnp.where(mask_BHQT, scores_BHQT, jnp.finfo(scores_BHQT.dtype).min)
    weights_BHQT = dropout(nn.softmax(scores_BHQT))
    mixed_BQHK = jnp.einsum("bhqt,bhtk->bqhk", weights_BHQT, v_BHTK)
    return mixed_BQHK.reshape(*mixed_BQHK.shape[:2], -1)


def causal_mask(length: int) -> jax.Array:
    """True where a position sees itself or an earlier one, (T, T)."""
    return jnp.tril(jnp.ones((length, length), bool))


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be made beforehand."""

    width: int
    heads: int
    temperature: float = 1.0

    def setup(self) -> None:
        """Make the layers."""
        self.query, self.key, self.value, self.attention_out = (
            nn.Dense(self.width) for _ in range(4)
        )

    def keys_values(self, hidden_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return what is attended to, k_BHTK and v_BHTK."""
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

        Where there are fewer rows of keys than of queries, groups of neighbouring rows (the beams
        of one source) share their keys.
        """
        rows = len(keys_values[0])
        queries_BQD = self.query(hidden_BQD).reshape(rows, -1, self.width)
        queries_BHQK = split_heads(queries_BQD, self.heads)
        mixed_BQD = attend(queries_BHQK, *keys_values, mask_BHQT, temperature=self.temperature)
        return self.attention_out(mixed_BQD).reshape(hidden_BQD.shape)

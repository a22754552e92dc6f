"""Sparse attention in JAX (see `workloads.parts.window`).

Shapes: B batch, T positions, D width, H heads, K width of a head; N blocks, C queries of a block, J
keys of a block's neighbourhood, G global keys.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.transformer_jax import attend, causal_mask
from workloads.parts.window import Window


def attend_causally(
    q_BHTK: jax.Array,
    k_BHTK: jax.Array,
    v_BHTK: jax.Array,
    window: int | None = None,
    global_tokens: int = 0,
    dropout: Callable[[jax.Array], jax.Array] = lambda weights: weights,
    temperature: float = 1.0,
    scores_dtype: Any = None,
) -> jax.Array:
    """Return attention to earlier positions: to all of them, or to those of a window.

    Args:
        q_BHTK: The queries.
        k_BHTK: The keys.
        v_BHTK: The values.
        window: The latest positions that a query sees; None: all.
        global_tokens: The first positions, which every query sees besides.
        dropout: A function that drops some of the attention weights.
        temperature: The number that scores are divided by, in addition to the square root of K.
        scores_dtype: The type of the scores; None: that of the queries.

    Returns:
        Array (B, T, D).
    """
    T = q_BHTK.shape[2]
    seen = Window(T, T if window is None else window, global_tokens)
    if seen.is_whole:
        mask_TT = causal_mask(T)
        return attend(q_BHTK, k_BHTK, v_BHTK, mask_TT, dropout, temperature, scores_dtype)
    divisor = temperature * q_BHTK.shape[-1] ** 0.5
    q_BHNCK = _blocks(q_BHTK, seen)
    k_BHNJK, v_BHNJK = (_neighbourhoods(each, seen) for each in (k_BHTK, v_BHTK))
    k_BHGK, v_BHGK = (each[:, :, :global_tokens] for each in (k_BHTK, v_BHTK))

    def product(equation: str, keys: jax.Array) -> jax.Array:
        return jnp.einsum(equation, q_BHNCK, keys, preferred_element_type=scores_dtype)

    near, far = product("bhnck,bhnjk->bhncj", k_BHNJK), product("bhnck,bhgk->bhncg", k_BHGK)
    scores = jnp.concatenate([near, far], -1) / divisor
    visible = jnp.concatenate(seen.visible(jnp.arange), -1)
    scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
    weights = dropout(nn.softmax(scores).astype(v_BHTK.dtype))
    near, far = jnp.split(weights, [near.shape[-1]], axis=-1)
    mixed = jnp.einsum("bhncj,bhnjk->bnchk", near, v_BHNJK)
    mixed += jnp.einsum("bhncg,bhgk->bnchk", far, v_BHGK)
    return mixed.reshape(len(mixed), -1, q_BHTK.shape[1] * q_BHTK.shape[3])[:, :T]


def _blocks(values_BHTK: jax.Array, seen: Window) -> jax.Array:
    """(B, H, T, K) in blocks, (B, H, N, C, K); the last is filled up with 0."""
    B, H, _, K = values_BHTK.shape
    padded = jnp.pad(values_BHTK, ((0, 0), (0, 0), (0, seen.missing), (0, 0)))
    return padded.reshape(B, H, seen.blocks, seen.block, K)


def _neighbourhoods(values_BHTK: jax.Array, seen: Window) -> jax.Array:
    """What each block reads, its own values last: (B, H, N, J, K)."""
    none = ((0, 0), (0, 0), (seen.before, 0), (0, 0), (0, 0))
    padded = jnp.pad(_blocks(values_BHTK, seen), none)
    shifted = [padded[:, :, start : start + seen.blocks] for start in range(seen.before + 1)]
    return jnp.concatenate(shifted, 3)

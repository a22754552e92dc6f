"""A decoder without an encoder in flax up to its last block, without an output head.

By its style it is GPT-2's (Radford et al. 2019), or a later one.

Shapes: B batch, T tokens, D width, H heads, K width of a head.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts import rotary
from workloads.parts.dropout_jax import Dropout
from workloads.parts.products_jax import Dense, Embed
from workloads.parts.style import SMALLEST_NORM, DecoderStyle, residual, scaled
from workloads.parts.style_jax import activate, norm
from workloads.parts.transformer_jax import split_heads
from workloads.parts.window_jax import attend_causally


class Attention(nn.Module):
    """Causal multi-head self-attention.

    Attributes:
        heads: The number H of attention heads.
        style: What is attended to, and how.
        dtype: The type of matrix products; None: that of their inputs.
    """

    heads: int
    style: DecoderStyle
    dtype: Any

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return the attention's contribution to the residual stream, (B, T, D)."""
        D, style = hidden_BTD.shape[-1], self.style
        dense = functools.partial(Dense, use_bias=style.has_biases, dtype=self.dtype)
        qkv_BTE = dense(3 * D, name="qkv")(hidden_BTD)
        q_BHTK, k_BHTK, v_BHTK = (
            split_heads(part, self.heads) for part in jnp.split(qkv_BTE, 3, axis=-1)
        )
        temperature = style.attention_temperature
        if style.normalises_queries:
            temperature *= q_BHTK.shape[-1] ** -0.5  # which `attend` multiplies by
            scale = self.param("scale", nn.initializers.ones, ())
            q_BHTK, k_BHTK = unit(q_BHTK) * scale, unit(k_BHTK)
        if style.is_rotary:
            q_BHTK, k_BHTK = rotated(q_BHTK), rotated(k_BHTK)
        mixed_BTD = attend_causally(
            q_BHTK.astype(v_BHTK.dtype),
            k_BHTK.astype(v_BHTK.dtype),
            v_BHTK,
            style.attention_window,
            style.global_tokens,
            dropout,
            temperature,
            scores_dtype=jnp.float32 if style.adds_in_float32 else None,
        )
        return dropout(dense(D, name="attention_out")(mixed_BTD))


def unit(values_BHTK: jax.Array) -> jax.Array:
    """Return the vectors of the last axis divided by their Euclidean norms, in float32."""
    values_BHTK = values_BHTK.astype(jnp.float32)
    squared = jnp.square(values_BHTK).sum(-1, keepdims=True)
    return values_BHTK * jax.lax.rsqrt(squared + SMALLEST_NORM**2)


def rotated(values_BHTK: jax.Array) -> jax.Array:
    """Return the values rotated by their positions, in float32 (see `workloads.parts.rotary`)."""
    cosines, sines = rotary.tables(*values_BHTK.shape[2:])
    even, odd = values_BHTK[..., 0::2], values_BHTK[..., 1::2]
    pairs = [even * cosines - odd * sines, even * sines + odd * cosines]
    return jnp.stack(pairs, -1).reshape(values_BHTK.shape)


class Block(nn.Module):
    """One layer of the decoder: attention, then a feed-forward layer of four times the width.

    Attributes:
        heads: The number H of attention heads.
        style: Activation, norms, attention and scales.
        has_norm: Whether the feed-forward layer has a norm.
        dtype: The type of matrix products; None: that of their inputs.
    """

    heads: int
    style: DecoderStyle
    has_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return the residual stream (B, T, D) after the block."""
        width, style = hidden_BTD.shape[-1], self.style
        dense = functools.partial(Dense, use_bias=style.has_biases, dtype=self.dtype)

        def feed_forward(hidden_BTD: jax.Array) -> jax.Array:
            if style.is_gated and style.fuses_gate:
                up, gated = jnp.split(dense(8 * width, name="up")(hidden_BTD), 2, axis=-1)
                inner = activate(style, up, lambda: gated)
            else:
                gate = functools.partial(dense(4 * width, name="gate"), hidden_BTD)
                inner = activate(style, dense(4 * width, name="up")(hidden_BTD), gate)
            return dropout(dense(width, name="down")(inner))

        attention = Attention(self.heads, style, self.dtype, name="attention")
        first, last = (
            norm(style, name, present, style.norm_epsilon)
            for name, present in (("norm_1", True), ("norm_2", self.has_norm))
        )
        attend = functools.partial(attention, dropout=dropout)
        hidden_BTD = residual(style, first, hidden_BTD, attend)
        return residual(style, last, hidden_BTD, feed_forward)


class Decoder(nn.Module):
    """Embeddings and blocks. A subclass adds the output head in its `__call__`.

    Attributes:
        vocab_size: The number of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number H of attention heads.
        pad_id: The token that pads rows.
        style: Activation, norms, attention and scales.
    """

    vocab_size: int
    positions: int
    width: int
    layers: int
    heads: int
    pad_id: int
    style: DecoderStyle

    def blocks(self, tokens_BT: jax.Array, dropout: Dropout) -> tuple[Embed, jax.Array]:
        """Return the token embedding layer, and the hidden states (B, T, D) after the last block.

        A fine-tuning technique may put embeddings of its own (a prompt) before the tokens'; the
        first positions of the hidden states are then of these.

        Args:
            tokens_BT: Token ids.
            dropout: The dropout layer.
        """
        style = self.style
        if not style.drops:
            dropout = Dropout(0.0, False, name="no_dropout")
        token = Embed(self.vocab_size, self.width, name="token")
        hidden_BTD = scaled(token(tokens_BT), style.embedding_scale)
        dtype = None
        if style.adds_in_float32:
            dtype, hidden_BTD = hidden_BTD.dtype, hidden_BTD.astype(jnp.float32)
        if not style.is_rotary:
            positions_T = jnp.arange(hidden_BTD.shape[1])
            position_TD = Embed(self.positions, self.width, name="position")(positions_T)
            hidden_BTD = hidden_BTD + scaled(position_TD, style.position_scale)
        hidden_BTD = dropout(hidden_BTD)
        for layer in range(self.layers):
            has_norm = style.has_feed_forward_norm(layer, self.layers)
            block = Block(self.heads, style, has_norm, dtype, name=f"block_{layer}")
            hidden_BTD = block(hidden_BTD, dropout)
        return token, hidden_BTD

    def final_norm(self, hidden_BTD: jax.Array) -> jax.Array:
        """Return the hidden states after the final norm, ready for the head."""
        style = self.style
        return norm(style, "final_norm", style.has_final_norm, style.norm_epsilon)(hidden_BTD)

    def next_token(self, tokens_BT: jax.Array, dropout: Dropout) -> jax.Array:
        """Return the logits (B, T, V) of the token after each position, by an output layer that
        shares the weights of the token embeddings.

        Args:
            tokens_BT: Token ids.
            dropout: The dropout layer.
        """
        token, hidden_BTD = self.blocks(tokens_BT, dropout)
        hidden_BTD = self.final_norm(hidden_BTD[:, -tokens_BT.shape[1] :])
        logits_BTV = token.attend(hidden_BTD.astype(token.embedding.dtype))
        return scaled(logits_BTV, self.style.output_scale)

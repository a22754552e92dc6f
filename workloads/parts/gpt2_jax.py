"""GPT-2 (Radford et al. 2019) in flax up to its last block, without an output head.

Shapes: B batch, T tokens, D width, H heads, K width of a head.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.products_jax import Dense, Embed
from workloads.parts.style import TransformerStyle, residual, scaled
from workloads.parts.style_jax import activate, norm
from workloads.parts.transformer_jax import attend, causal_mask, split_heads


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    heads: int
    style: TransformerStyle

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return the attention's contribution to the residual stream, (B, T, D)."""
        T, D = hidden_BTD.shape[1:]
        qkv_BTE = Dense(3 * D, name="qkv")(hidden_BTD)
        q_BHTK, k_BHTK, v_BHTK = (
            split_heads(part, self.heads) for part in jnp.split(qkv_BTE, 3, axis=-1)
        )
        temperature = self.style.attention_temperature
        mixed_BTD = attend(q_BHTK, k_BHTK, v_BHTK, causal_mask(T), dropout, temperature)
        return dropout(Dense(D, name="attention_out")(mixed_BTD))


class Block(nn.Module):
    """One layer of GPT-2: attention, then a feed-forward layer of four times the width.

    Attributes:
        heads: The number H of attention heads.
        style: Activation, norms and scales.
        has_norm: Whether the feed-forward layer has a norm.
    """

    heads: int
    style: TransformerStyle
    has_norm: bool

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return the residual stream (B, T, D) after the block."""
        width, style = hidden_BTD.shape[-1], self.style

        def feed_forward(hidden_BTD: jax.Array) -> jax.Array:
            gate = functools.partial(Dense(4 * width, name="gate"), hidden_BTD)
            inner = activate(style, Dense(4 * width, name="up")(hidden_BTD), gate)
            return dropout(Dense(width, name="down")(inner))

        attention = Attention(self.heads, style, name="attention")
        hidden_BTD = residual(
            style, norm(style, "norm_1"), hidden_BTD, functools.partial(attention, dropout=dropout)
        )
        last = norm(style, "norm_2", self.has_norm)
        return residual(style, last, hidden_BTD, feed_forward)


class Decoder(nn.Module):
    """Token and position embeddings, and blocks. A subclass adds the output head in its `__call__`.

    Attributes:
        vocab_size: The number of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number H of attention heads.
        pad_id: The token that pads rows.
        style: Activation, norms and scales.
    """

    vocab_size: int
    positions: int
    width: int
    layers: int
    heads: int
    pad_id: int
    style: TransformerStyle

    def blocks(self, tokens_BT: jax.Array, dropout: Dropout) -> tuple[Embed, jax.Array]:
        """Return the token embedding layer, and the hidden states (B, T, D) after the last block.

        A fine-tuning technique may put embeddings of its own (a prompt) before the tokens'; the
        first positions of the hidden states are then of these.

        Args:
            tokens_BT: Token ids.
            dropout: The dropout layer.
        """
        style = self.style
        token = Embed(self.vocab_size, self.width, name="token")
        hidden_BTD = scaled(token(tokens_BT), style.embedding_scale)
        positions_T = jnp.arange(hidden_BTD.shape[1])
        position_TD = Embed(self.positions, self.width, name="position")(positions_T)
        hidden_BTD = dropout(hidden_BTD + scaled(position_TD, style.position_scale))
        for layer in range(self.layers):
            has_norm = style.has_feed_forward_norm(layer, self.layers)
            block = Block(self.heads, style, has_norm, name=f"block_{layer}")
            hidden_BTD = block(hidden_BTD, dropout)
        return token, hidden_BTD

    def final_norm(self, hidden_BTD: jax.Array) -> jax.Array:
        """Return the hidden states after the final norm, ready for the head."""
        return norm(self.style, "final_norm", self.style.has_final_norm)(hidden_BTD)

"""GPT-2 (Radford et al. 2019) with a classification head on the last real token, in flax.

Shapes: B batch, T tokens, D width, H heads, K width of a head, C classes.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.transformer_jax import attend, causal_mask, layer_norm, split_heads


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    heads: int

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: nn.Dropout) -> jax.Array:
        """Return the attention's contribution to the residual stream, (B, T, D)."""
        T, D = hidden_BTD.shape[1:]
        qkv_BTE = nn.Dense(3 * D, name="qkv")(hidden_BTD)
        q_BHTK, k_BHTK, v_BHTK = (
            split_heads(part, self.heads) for part in jnp.split(qkv_BTE, 3, axis=-1)
        )
        mixed_BTD = attend(q_BHTK, k_BHTK, v_BHTK, causal_mask(T), dropout)
        return dropout(nn.Dense(D, name="attention_out")(mixed_BTD))


class Block(nn.Module):
    """Pre-norm attention and a feed-forward layer of four times the width."""

    heads: int

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: nn.Dropout) -> jax.Array:
        """Return the next residual stream."""
        width = hidden_BTD.shape[-1]
        hidden_BTD += Attention(self.heads, name="attention")(
            layer_norm("norm_1")(hidden_BTD), dropout
        )
        inner = nn.gelu(
            nn.Dense(4 * width, name="up")(layer_norm("norm_2")(hidden_BTD)), approximate=True
        )
        return hidden_BTD + dropout(nn.Dense(width, name="down")(inner))


class Classifier(nn.Module):
    """Token and position embeddings, blocks, a final norm, and the head on the last real token."""

    vocab_size: int
    positions: int
    width: int
    layers: int
    heads: int
    classes: int
    pad_id: int

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return logits_BC."""
        dropout = nn.Dropout(dropout_rate, deterministic=not train, name="dropout")
        B, T = tokens_BT.shape
        positions_T = jnp.arange(T)
        hidden_BTD = nn.Embed(self.vocab_size, self.width, name="token")(tokens_BT)
        hidden_BTD = dropout(
            hidden_BTD + nn.Embed(self.positions, self.width, name="position")(positions_T)
        )
        for layer in range(self.layers):
            hidden_BTD = Block(self.heads, name=f"block_{layer}")(hidden_BTD, dropout)
        last_B = jnp.where(tokens_BT != self.pad_id, positions_T, 0).max(-1)
        last_BD = layer_norm("final_norm")(hidden_BTD[jnp.arange(B), last_B])
        return nn.Dense(self.classes, use_bias=False, name="head")(last_BD)


build = Classifier

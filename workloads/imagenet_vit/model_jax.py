"""The vision transformer in flax (Dosovitskiy et al. 2021), without a class token and with fixed
positions, as Beyer et al. 2022 have it.

Shapes: N rows, H height, W width, C channels, T patches, D width, K classes.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.patches_jax import PatchEmbedding
from workloads.parts.pixels_jax import normalised
from workloads.parts.products_jax import Dense
from workloads.parts.style import ImageTransformerStyle, residual, scaled
from workloads.parts.style_jax import FUNCTIONS, norm
from workloads.parts.transformer_jax import Attention, attend, split_heads

NORM_EPSILON = 1e-6


class FeedForward(nn.Module):
    """Two layers; gated, a third one multiplies the inner values.

    Attributes:
        width: The width of the inner layer.
        style: The activation; 'glu' is GELU whose values a linear layer of theirs multiplies.
    """

    width: int
    style: ImageTransformerStyle

    @nn.compact
    def __call__(self, hidden_NTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return (N, T, D)."""
        activation = "gelu_tanh" if self.style.is_gated else self.style.activation
        inner = FUNCTIONS[activation](Dense(self.width, name="up")(hidden_NTD))
        if self.style.is_gated:
            inner = inner * Dense(self.width, name="gate")(inner)
        return Dense(hidden_NTD.shape[-1], name="down")(dropout(inner))


class Block(nn.Module):
    """Attention, then a feed-forward layer."""

    heads: int
    feed_forward: int
    style: ImageTransformerStyle
    has_last_norm: bool

    @nn.compact
    def __call__(self, hidden_NTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return the residual stream (N, T, D) after the block."""
        style, D = self.style, hidden_NTD.shape[-1]
        attention = Attention(D, self.heads, style.attention_temperature, name="attention")
        feed_forward = FeedForward(self.feed_forward, style, name="feed_forward")
        normed = functools.partial(norm, style, epsilon=NORM_EPSILON)
        hidden_NTD = residual(
            style,
            normed("norm_1"),
            hidden_NTD,
            lambda values: dropout(attention(values, attention.keys_values(values))),
        )
        return residual(
            style,
            normed("norm_2", self.has_last_norm),
            hidden_NTD,
            lambda values: dropout(feed_forward(values, dropout)),
        )


class ProbeAttention(nn.Module):
    """Attention of one learned query to all patches."""

    heads: int

    @nn.compact
    def __call__(self, probe_N1D: jax.Array, hidden_NTD: jax.Array) -> jax.Array:
        """Return (N, 1, D)."""
        D = hidden_NTD.shape[-1]
        query_N1D = Dense(D, name="query")(probe_N1D)
        key_value = jnp.split(Dense(2 * D, name="key_value")(hidden_NTD), 2, axis=-1)
        heads = [split_heads(each, self.heads) for each in (query_N1D, *key_value)]
        return Dense(D, name="attention_out")(attend(*heads))


class MapHead(nn.Module):
    """Pooling by a learned probe (Zhai et al. 2022): its attention, and a feed-forward layer."""

    heads: int
    feed_forward: int
    style: ImageTransformerStyle

    @nn.compact
    def __call__(self, hidden_NTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return (N, D)."""
        N, _, D = hidden_NTD.shape
        probe_11D = self.param("probe", nn.initializers.zeros, (1, 1, D))
        probe_N1D = jnp.tile(probe_11D, (N, 1, 1)).astype(hidden_NTD.dtype)
        pooled_N1D = ProbeAttention(self.heads, name="attention")(probe_N1D, hidden_NTD)
        normed_N1D = norm(self.style, "norm", epsilon=NORM_EPSILON)(pooled_N1D)
        feed_forward = FeedForward(self.feed_forward, self.style, name="feed_forward")
        return (pooled_N1D + feed_forward(normed_N1D, dropout))[:, 0]


class VisionTransformer(nn.Module):
    """Embedded patches, blocks, pooling, and two layers at the end.

    Attributes:
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number of attention heads.
        feed_forward: The width of the blocks' inner layers.
        patch: The side of a patch in pixels.
        classes: The number K of classes.
        style: Activation, norms, pooling and scales.
    """

    width: int
    layers: int
    heads: int
    feed_forward: int
    patch: int
    classes: int
    style: ImageTransformerStyle

    @nn.compact
    def __call__(
        self, inputs_NHWC: jax.Array, train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return logits_NK."""
        style, dropout = self.style, Dropout(dropout_rate, train)
        patches = PatchEmbedding(self.width, self.patch, name="patches")
        hidden_NTD = dropout(patches(normalised(inputs_NHWC)))
        for layer in range(self.layers):
            has_norm = style.has_feed_forward_norm(layer, self.layers)
            block = Block(self.heads, self.feed_forward, style, has_norm, name=f"block_{layer}")
            hidden_NTD = block(hidden_NTD, dropout)
        hidden_NTD = norm(style, "final_norm", style.has_final_norm, NORM_EPSILON)(hidden_NTD)
        if style.pooling == "map":
            head = MapHead(self.heads, self.feed_forward, style, name="map_head")
            pooled_ND = head(hidden_NTD, dropout)
        else:
            pooled_ND = hidden_NTD.mean(1)
        pooled_ND = nn.tanh(Dense(self.width, name="pre_logits")(pooled_ND))
        return scaled(Dense(self.classes, name="head")(pooled_ND), style.output_scale)


build = VisionTransformer

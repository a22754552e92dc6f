"""The conformer in flax (Gulati et al. 2020, arXiv:2005.08100), as AlgoPerf has it.

Legend: B utterances, T frames after subsampling, D width, V tokens.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.log_mel import FrontEnd
from workloads.parts.positions import sine_positions
from workloads.parts.products_jax import Dense
from workloads.parts.speech_jax import (
    Inputs,
    LayerNorm,
    MaskedBatchNorm,
    Subsampling,
    model_features,
)
from workloads.parts.style import ConformerStyle, scaled
from workloads.parts.style_jax import FUNCTIONS
from workloads.parts.transformer_jax import attend, split_heads

QUERY_SCALE = 1.442695041  # 1 / softplus(0)


class FeedForward(nn.Module):
    """A norm and two layers, with dropout after each."""

    inner: int
    style: ConformerStyle

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, dropout: Dropout) -> jax.Array:
        """Return what is added to the residual stream, before it is halved."""
        normed = LayerNorm(name="norm")(hidden_BTD)
        inner = FUNCTIONS[self.style.activation](Dense(self.inner, name="up")(normed))
        return dropout(Dense(hidden_BTD.shape[-1], name="down")(dropout(inner)))


class QueryScale(nn.Module):
    """A learned factor of each number of a query, 1 at first."""

    @nn.compact
    def __call__(self, query_BHTK: jax.Array) -> jax.Array:
        """Return the scaled queries, of heads of that width."""
        scale = self.param("scale", nn.initializers.zeros, query_BHTK.shape[-1:])
        return query_BHTK * (QUERY_SCALE * nn.softplus(scale))


class Attention(nn.Module):
    """Attention among an utterance's own frames, after a norm."""

    heads: int
    style: ConformerStyle

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, mask_BT: jax.Array, dropout: Dropout) -> jax.Array:
        """Return what is added to the residual stream."""
        D = hidden_BTD.shape[-1]
        normed = LayerNorm(name="norm")(hidden_BTD)
        query, key, value = (
            split_heads(Dense(D, name=name)(normed), self.heads)
            for name in ("query", "key", "value")
        )
        query = QueryScale(name="query_scale")(query)
        mixed_BTD = attend(query, key, value, mask_BT[:, None, None] > 0)
        mixed_BTD = scaled(mixed_BTD, self.style.attention_output_scale)
        return dropout(Dense(D, name="attention_out")(mixed_BTD))


class Depthwise(nn.Module):
    """A convolution of each number over the frames, as a sum of shifted products: XLA's own is
    slower on a CPU.
    """

    window: int

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array) -> jax.Array:
        """Return (B, T, D)."""
        T, D = hidden_BTD.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.window, 1, D))
        before = (self.window - 1) // 2
        padded = jnp.pad(hidden_BTD, ((0, 0), (before, self.window - 1 - before), (0, 0)))
        shifted = (padded[:, k : k + T] * kernel[k] for k in range(self.window))
        return sum(shifted, jnp.zeros((), hidden_BTD.dtype))


class Convolution(nn.Module):
    """A gated layer, a convolution of each number over the frames, batch norm and a layer."""

    window: int
    momentum: float
    style: ConformerStyle

    @nn.compact
    def __call__(
        self, hidden_BTD: jax.Array, mask_BT: jax.Array, dropout: Dropout, use_running_average: bool
    ) -> jax.Array:
        """Return what is added to the residual stream."""
        D = hidden_BTD.shape[-1]
        normed = LayerNorm(name="norm")(hidden_BTD)
        gate = nn.sigmoid(Dense(D, name="gate")(normed))
        gated_BTD = Dense(D, name="linear")(normed) * gate * mask_BT[..., None]
        mixed_BTD = Depthwise(self.window, name="depthwise")(gated_BTD)
        batch_norm = MaskedBatchNorm(
            self.momentum, self.style.BATCH_NORM_EPSILON, name="batch_norm"
        )
        mixed_BTD = batch_norm(mixed_BTD, mask_BT, use_running_average)
        return dropout(Dense(D, name="down")(FUNCTIONS[self.style.activation](mixed_BTD)))


class Block(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer, and a norm."""

    heads: int
    feed_forward: int
    window: int
    momentum: float
    style: ConformerStyle

    @nn.compact
    def __call__(
        self, hidden: jax.Array, mask_BT: jax.Array, dropout: Dropout, use_running_average: bool
    ) -> jax.Array:
        """Return the residual stream (B, T, D) after the block."""
        style = self.style
        hidden += 0.5 * FeedForward(self.feed_forward, style, name="feed_forward_0")(
            hidden, dropout
        )
        hidden += Attention(self.heads, style, name="attention")(hidden, mask_BT, dropout)
        convolution = Convolution(self.window, self.momentum, style, name="convolution")
        hidden += convolution(hidden, mask_BT, dropout, use_running_average)
        hidden += 0.5 * FeedForward(self.feed_forward, style, name="feed_forward_1")(
            hidden, dropout
        )
        return LayerNorm(name="norm")(hidden) if style.has_block_norm else hidden


class Conformer(nn.Module):
    """The front end, subsampling, blocks, a norm and the output layer.

    Attributes:
        rate: Samples a second.
        mean: The mean of each bin of the front end.
        std: The standard deviation of each bin.
        frequency_masks: How many of an utterance's masks are of bins.
        vocabulary: The number V of tokens, the blank among them.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number of attention heads.
        feed_forward: The width of the blocks' inner layers.
        kernel: The frames that a block's convolution sees.
        batch_norm_momentum: The weight of a batch in batch norm's running statistics.
        style: Activation, norms and scales.
    """

    rate: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frequency_masks: int
    vocabulary: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    kernel: int
    batch_norm_momentum: float
    style: ConformerStyle

    @nn.compact
    def __call__(
        self,
        inputs: Inputs,
        train: bool,
        dropout_rate: float | jax.Array,
        use_running_average: bool = True,
    ) -> tuple[jax.Array, jax.Array]:
        """Return logits_BTV and paddings_BT, 1 beyond an utterance's frames."""
        style, dropout = self.style, Dropout(dropout_rate, train)
        front = FrontEnd(self.rate, self.mean, self.std)
        features = model_features(self, front, self.frequency_masks, inputs, train)
        subsampling = Subsampling(self.width, nn.relu, name="subsampling")
        hidden_BTD, mask_BT = subsampling(*features)
        positions_TD = sine_positions(*hidden_BTD.shape[1:])
        hidden_BTD = dropout(hidden_BTD + positions_TD.astype(hidden_BTD.dtype))
        for layer in range(self.layers):
            block = Block(
                self.heads,
                self.feed_forward,
                self.kernel,
                self.batch_norm_momentum,
                style,
                name=f"block_{layer}",
            )
            hidden_BTD = block(hidden_BTD, mask_BT, dropout, use_running_average)
        hidden_BTD = LayerNorm(name="final_norm")(hidden_BTD)
        logits_BTV = Dense(self.vocabulary, name="head")(hidden_BTD)
        return scaled(logits_BTV, style.output_scale), 1 - mask_BT


build = Conformer

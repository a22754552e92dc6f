"""A network of bidirectional LSTM layers in flax (after Deep Speech 2, Amodei et al. 2016), as
AlgoPerf has it.

Legend: B utterances, T frames after subsampling, D width, H width of a direction, V tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.log_mel import FrontEnd
from workloads.parts.products_jax import Dense
from workloads.parts.speech_jax import (
    Inputs,
    LayerNorm,
    MaskedBatchNorm,
    Subsampling,
    model_features,
)
from workloads.parts.style import RecurrentStyle, scaled
from workloads.parts.style_jax import FUNCTIONS

DIRECTIONS = ("forward", "backward")


class Norm(nn.Module):
    """Batch norm of the frames that count, or layer norm; each under its own name."""

    momentum: float
    style: RecurrentStyle

    @nn.compact
    def __call__(
        self, hidden_BTD: jax.Array, mask_BT: jax.Array, use_running_average: bool
    ) -> jax.Array:
        """Return the normalised array."""
        if self.style.norm != "batch":
            return LayerNorm(name="norm")(hidden_BTD)
        epsilon = self.style.BATCH_NORM_EPSILON
        batch_norm = MaskedBatchNorm(self.momentum, epsilon, name="batch_norm")
        return batch_norm(hidden_BTD, mask_BT, use_running_average)


class Kernel(nn.Module):
    """The weights of a layer alone."""

    shape: tuple[int, int]

    @nn.compact
    def __call__(self) -> jax.Array:
        """Return the weights."""
        return self.param("kernel", nn.initializers.lecun_normal(), self.shape)


class Bidirectional(nn.Module):
    """An LSTM layer in both directions (Hochreiter and Schmidhuber 1997), from zeros at each end of
    an utterance, with one bias for each gate; gates come in the order input, forget, cell, output.

    One loop over the frames has both directions: the backward one starts with the last frame of the
    batch, and its state is 0 until an utterance's own frames begin.
    """

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """Return (B, T, D), 0 beyond an utterance's frames."""
        B, _, D = hidden_BTD.shape
        H = D // 2
        given = [Dense(4 * H, name=f"{name}_input")(hidden_BTD) for name in DIRECTIONS]
        kernels = [Kernel((H, 4 * H), name=f"{name}_recurrent")() for name in DIRECTIONS]
        kernel_2HG = jnp.stack(kernels)
        given_T2BG = jnp.stack([given[0], given[1][:, ::-1]]).transpose(2, 0, 1, 3)
        mask_T2B1 = jnp.stack([mask_BT, mask_BT[:, ::-1]]).transpose(2, 0, 1)[..., None]

        def step(carry: Any, frame: Any) -> tuple[Any, jax.Array]:
            output_2BH, cell_2BH = carry
            given_2BG, mask_2B1 = frame
            gates_2BG = given_2BG + jnp.einsum("zbh,zhg->zbg", output_2BH, kernel_2HG)
            enter, keep, new, leave = jnp.split(gates_2BG, 4, -1)
            cell_2BH = nn.sigmoid(keep) * cell_2BH + nn.sigmoid(enter) * nn.tanh(new)
            cell_2BH = cell_2BH * mask_2B1
            output_2BH = nn.sigmoid(leave) * nn.tanh(cell_2BH)
            return (output_2BH, cell_2BH), output_2BH

        start = jnp.zeros((2, B, H), given_T2BG.dtype)
        _, outputs_T2BH = jax.lax.scan(step, (start, start), (given_T2BG, mask_T2B1))
        forward_TBH, backward_TBH = outputs_T2BH[:, 0], outputs_T2BH[::-1, 1]
        return jnp.concatenate([forward_TBH, backward_TBH], -1).swapaxes(0, 1)


class Block(nn.Module):
    """A norm and an LSTM layer, added to what comes in."""

    momentum: float
    style: RecurrentStyle

    @nn.compact
    def __call__(
        self, hidden_BTD: jax.Array, mask_BT: jax.Array, use_running_average: bool
    ) -> jax.Array:
        """Return (B, T, D)."""
        normalise = Norm(self.momentum, self.style, name="normalise")
        normed = normalise(hidden_BTD, mask_BT, use_running_average)
        outputs = Bidirectional(name="lstm")(normed, mask_BT)
        return hidden_BTD + outputs if self.style.has_skip_connections else outputs


class FeedForward(nn.Module):
    """A norm, a layer and dropout, added to what comes in."""

    momentum: float
    style: RecurrentStyle

    @nn.compact
    def __call__(
        self, hidden_BTD: jax.Array, mask_BT: jax.Array, dropout: Dropout, use_running_average: bool
    ) -> jax.Array:
        """Return (B, T, D)."""
        normalise = Norm(self.momentum, self.style, name="normalise")
        normed = normalise(hidden_BTD, mask_BT, use_running_average)
        outputs = Dense(hidden_BTD.shape[-1], name="dense")(normed)
        outputs = FUNCTIONS[self.style.activation](outputs) * mask_BT[..., None]
        outputs = dropout(outputs)
        return hidden_BTD + outputs if self.style.has_skip_connections else outputs


class DeepSpeech(nn.Module):
    """The front end, subsampling, LSTM layers, feed-forward layers and the output layer.

    Attributes:
        rate: Samples a second.
        mean: The mean of each bin of the front end.
        std: The standard deviation of each bin.
        frequency_masks: How many of an utterance's masks are of bins.
        vocabulary: The number V of tokens, the blank among them.
        width: The width D.
        layers: The number of LSTM layers.
        feed_forward_layers: The number of feed-forward layers.
        batch_norm_momentum: The weight of a batch in batch norm's running statistics.
        style: Activation, norms and residual connections.
    """

    rate: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frequency_masks: int
    vocabulary: int
    width: int
    layers: int
    feed_forward_layers: int
    batch_norm_momentum: float
    style: RecurrentStyle

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
        subsampling = Subsampling(self.width, FUNCTIONS[style.activation], name="subsampling")
        hidden_BTD, mask_BT = subsampling(*features)
        hidden_BTD = dropout(hidden_BTD)
        momentum = self.batch_norm_momentum
        for layer in range(self.layers):
            block = Block(momentum, style, name=f"block_{layer}")
            hidden_BTD = block(hidden_BTD, mask_BT, use_running_average)
        for layer in range(self.feed_forward_layers):
            feed_forward = FeedForward(momentum, style, name=f"feed_forward_{layer}")
            hidden_BTD = feed_forward(hidden_BTD, mask_BT, dropout, use_running_average)
        if style.has_last_norm:
            hidden_BTD = LayerNorm(name="final_norm")(hidden_BTD)
        logits_BTV = Dense(self.vocabulary, name="head")(hidden_BTD)
        return scaled(logits_BTV, style.output_scale), 1 - mask_BT


build = DeepSpeech

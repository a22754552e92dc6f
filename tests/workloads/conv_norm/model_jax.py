"""The convolutional network in flax.

Shapes: N rows, H height, W width, C channels, K classes.
"""

import jax
from flax import linen as nn

from workloads.parts.batch_norm_jax import BatchNorm
from workloads.parts.dropout_jax import Dropout

PADDING = ((1, 1), (1, 1))


class Block(nn.Module):
    """Convolution, batch norm and rectifier, added to what comes in."""

    channels: int

    @nn.compact
    def __call__(self, hidden_NHWC: jax.Array, use_running_average: bool) -> jax.Array:
        """Return hidden_NHWC."""
        conv = nn.Conv(self.channels, (3, 3), padding=PADDING, use_bias=False, name="conv")
        inner_NHWC = BatchNorm(self.channels, name="batch_norm")(
            conv(hidden_NHWC), use_running_average
        )
        return hidden_NHWC + nn.relu(inner_NHWC)


class Network(nn.Module):
    """A first convolution, blocks, the mean over positions, and a linear head."""

    channels: int
    blocks: int
    classes: int

    @nn.compact
    def __call__(
        self,
        inputs_NHWC: jax.Array,
        train: bool,
        dropout_rate: float | jax.Array,
        use_running_average: bool = True,
    ) -> jax.Array:
        """Return logits_NK."""
        first = nn.Conv(self.channels, (3, 3), padding=PADDING, use_bias=False, name="first")
        norm = BatchNorm(self.channels, name="first_batch_norm")
        hidden_NHWC = nn.relu(norm(first(inputs_NHWC), use_running_average))
        for number in range(self.blocks):
            block = Block(self.channels, name=f"block_{number}")
            hidden_NHWC = block(hidden_NHWC, use_running_average)
        pooled_NC = Dropout(dropout_rate, train)(hidden_NHWC.mean((1, 2)))
        return nn.Dense(self.classes, name="head")(pooled_NC)


build = Network

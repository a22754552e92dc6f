"""The U-Net of the fastmri workload in flax (Ronneberger et al. 2015, as fastMRI has it).

Shapes: B batch, H height, W width, C channels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.fastmri.unet import EPSILONS
from workloads.parts.dropout_jax import Dropout
from workloads.parts.style import UNetStyle, scaled
from workloads.parts.style_jax import FUNCTIONS

SPACE = (1, 2)


def conv(channels: int, name: str, window: int = 3, use_bias: bool = False) -> nn.Conv:
    """A convolution that keeps height and width."""
    return nn.Conv(channels, (window, window), padding="SAME", use_bias=use_bias, name=name)


class Norm(nn.Module):
    """The norm of a convolution's output over a row's pixels.

    Attributes:
        kind: 'instance' normalises each channel and has no parameters (Ulyanov et al. 2016).
            'layer' normalises all channels together, and has a scale and a bias for each.
    """

    kind: str

    @nn.compact
    def __call__(self, hidden_BHWC: jax.Array) -> jax.Array:
        """Return hidden_BHWC."""
        axes = SPACE if self.kind == "instance" else (*SPACE, 3)
        centred_BHWC = hidden_BHWC - hidden_BHWC.mean(axes, keepdims=True)
        variance = jnp.square(centred_BHWC).mean(axes, keepdims=True)
        normalised_BHWC = centred_BHWC * jax.lax.rsqrt(variance + EPSILONS[self.kind])
        if self.kind == "instance":
            return normalised_BHWC
        shape = hidden_BHWC.shape[-1:]
        scale_C = self.param("scale", nn.initializers.ones, shape)
        return normalised_BHWC * scale_C + self.param("bias", nn.initializers.zeros, shape)


class Block(nn.Module):
    """Two convolutions, each with norm, activation and dropout of whole channels."""

    channels: int
    style: UNetStyle

    @nn.compact
    def __call__(
        self, hidden_BHWC: jax.Array, train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return hidden_BHWC with as many channels as the block has."""
        for layer in range(2):
            hidden_BHWC = conv(self.channels, f"conv_{layer}")(hidden_BHWC)
            hidden_BHWC = Norm(self.style.norm, name=f"norm_{layer}")(hidden_BHWC)
            hidden_BHWC = FUNCTIONS[self.style.activation](hidden_BHWC)
            hidden_BHWC = Dropout(dropout_rate, train, SPACE)(hidden_BHWC)
        return hidden_BHWC


class Transposed(nn.Module):
    """A transposed convolution with a window of 2 by 2 and a stride of 2: a dense layer of each
    pixel that makes four of it.
    """

    channels: int

    @nn.compact
    def __call__(self, hidden_BHWC: jax.Array) -> jax.Array:
        """Return hidden_BHWC with twice the height and width."""
        batch, height, width, inputs = hidden_BHWC.shape
        shape = (2, 2, inputs, self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        four = jnp.einsum("bhwc,ijcd->bhiwjd", hidden_BHWC, kernel)
        return four.reshape(batch, 2 * height, 2 * width, self.channels)


class UNet(nn.Module):
    """Blocks on the way down, each at half the size of the one before, and on the way up.

    Attributes:
        width: The channels of the first block; each block down has twice as many.
        levels: How many times the size is halved.
        style: Activation, norm and output scale.
    """

    width: int
    levels: int
    style: UNetStyle

    @nn.compact
    def __call__(
        self, images_BHW: jax.Array, train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return images_BHW.

        Args:
            images_BHW: Normalised images, with sizes that 2^levels divides.
            train: Whether to apply dropout.
            dropout_rate: The share of channels to drop while training.
        """
        hidden_BHWC, skipped = images_BHW[..., None], []
        for level in range(self.levels):
            block = Block(self.width << level, self.style, name=f"block_{level}")
            skipped.append(block(hidden_BHWC, train, dropout_rate))
            hidden_BHWC = nn.avg_pool(skipped[-1], (2, 2), (2, 2))
        bottom = Block(self.width << self.levels, self.style, name=f"block_{self.levels}")
        hidden_BHWC = bottom(hidden_BHWC, train, dropout_rate)
        for number, level in enumerate(reversed(range(self.levels))):
            channels = self.width << level
            hidden_BHWC = Transposed(channels, name=f"transposed_{number}")(hidden_BHWC)
            hidden_BHWC = FUNCTIONS[self.style.activation](Norm("instance")(hidden_BHWC))
            hidden_BHWC = jnp.concatenate([hidden_BHWC, skipped.pop()], -1)
            block = Block(channels, self.style, name=f"block_{self.levels + 1 + number}")
            hidden_BHWC = block(hidden_BHWC, train, dropout_rate)
        output_BHWC = conv(1, "head", window=1, use_bias=True)(hidden_BHWC)
        return scaled(output_BHWC[..., 0], self.style.output_scale)


build = UNet

"""The residual network in flax, ResNet-50 at full scale (He et al. 2016, with the stride on the
3x3 convolution as of Goyal et al. 2017).

Shapes: N rows, H height, W width, C channels, K classes.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.norms_jax import norm
from workloads.parts.pixels_jax import normalised
from workloads.parts.pooling_jax import max_pool
from workloads.parts.products_jax import Dense, pointwise
from workloads.parts.style import ResidualConvolutionStyle, scaled
from workloads.parts.style_jax import FUNCTIONS

EXPANSION = 4  # of a block's last convolution


def conv(channels: int, size: int, stride: int, name: str) -> nn.Conv:
    """Return a convolution without a bias, padded alike on all sides."""
    return nn.Conv(
        channels,
        (size, size),
        (stride, stride),
        padding=2 * ((size // 2, size // 2),),
        use_bias=False,
        conv_general_dilated=pointwise if size == 1 else None,
        name=name,
    )


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with norms, added to what comes in.

    Attributes:
        width: The channels of the inner convolutions.
        stride: The stride of the 3x3 convolution.
        style: Activation and norms.
    """

    width: int
    stride: int
    style: ResidualConvolutionStyle

    @nn.compact
    def __call__(self, hidden_NHWC: jax.Array, use_running_average: bool) -> jax.Array:
        """Return (N, H / stride, W / stride, 4 width)."""
        activate = FUNCTIONS[self.style.activation]
        channels = EXPANSION * self.width

        def normed(position: str, values_NHWC: jax.Array) -> jax.Array:
            return norm(self.style.norm, position, values_NHWC, use_running_average)

        inner_NHWC = activate(normed("1", conv(self.width, 1, 1, "conv_1")(hidden_NHWC)))
        inner_NHWC = activate(normed("2", conv(self.width, 3, self.stride, "conv_2")(inner_NHWC)))
        inner_NHWC = normed("3", conv(channels, 1, 1, "conv_3")(inner_NHWC))
        if hidden_NHWC.shape != inner_NHWC.shape:
            projected_NHWC = conv(channels, 1, self.stride, "projection")(hidden_NHWC)
            hidden_NHWC = normed("projection", projected_NHWC)
        return activate(hidden_NHWC + inner_NHWC)


class ResNet(nn.Module):
    """A stem, stages of blocks, the mean over positions, and a linear head.

    Attributes:
        width: The inner channels of the first stage, which double from stage to stage.
        stages: The number of blocks of each stage.
        stem: The size of the first convolution; from 7 on a pooling follows it.
        stem_stride: Its stride.
        classes: The number K of classes.
        style: Activation, norms and the output's scale.
    """

    width: int
    stages: tuple[int, ...]
    stem: int
    stem_stride: int
    classes: int
    style: ResidualConvolutionStyle

    @nn.compact
    def __call__(
        self,
        inputs_NHWC: jax.Array,
        train: bool,
        dropout_rate: float | jax.Array,
        use_running_average: bool = True,
    ) -> jax.Array:
        """Return logits_NK."""
        activate: Callable[[jax.Array], jax.Array] = FUNCTIONS[self.style.activation]
        hidden_NHWC = normalised(inputs_NHWC)
        hidden_NHWC = conv(self.width, self.stem, self.stem_stride, "stem")(hidden_NHWC)
        hidden_NHWC = activate(norm(self.style.norm, "stem", hidden_NHWC, use_running_average))
        if self.stem >= 7:
            hidden_NHWC = max_pool(hidden_NHWC, window=3, stride=2)
        number = 0
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                width = self.width * 2**stage
                hidden_NHWC = Bottleneck(width, stride, self.style, name=f"block_{number}")(
                    hidden_NHWC, use_running_average
                )
                number += 1
        pooled_NC = Dropout(dropout_rate, train)(hidden_NHWC.mean((1, 2)))
        return scaled(Dense(self.classes, name="head")(pooled_NC), self.style.output_scale)


build = ResNet

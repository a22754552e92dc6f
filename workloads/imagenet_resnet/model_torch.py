"""The residual network in PyTorch, ResNet-50 at full scale (He et al. 2016, with the stride on the
3x3 convolution as of Goyal et al. 2017).

Shapes: N rows, H height, W width, C channels, K classes.
"""

import torch
from torch import nn
from torch.nn import functional

from workloads.parts import norms
from workloads.parts.norms_torch import norm
from workloads.parts.pixels_torch import normalised
from workloads.parts.style import ResidualConvolutionStyle, scaled
from workloads.parts.style_torch import OVERWRITING

EXPANSION = 4  # of a block's last convolution
INPUT_CHANNELS = 3


def conv(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    """Return a convolution without a bias, padded alike on all sides."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with norms, added to what comes in.

    Args:
        inputs: The channels that come in.
        width: The channels of the inner convolutions.
        stride: The stride of the 3x3 convolution.
        style: Activation and norms.
    """

    def __init__(
        self, inputs: int, width: int, stride: int, style: ResidualConvolutionStyle
    ) -> None:
        super().__init__()
        self.style = style
        channels = EXPANSION * width
        self.conv_1 = conv(inputs, width, 1, 1)
        self.conv_2 = conv(width, width, 3, stride)
        self.conv_3 = conv(width, channels, 1, 1)
        self.projects = inputs != channels or stride > 1
        norm_channels = {"1": width, "2": width, "3": channels}
        if self.projects:
            self.projection = conv(inputs, channels, 1, stride)
            norm_channels["projection"] = channels
        for position, count in norm_channels.items():
            self.add_module(norms.name(style.norm, position), norm(style.norm, count))

    def forward(self, hidden_NCHW: torch.Tensor) -> torch.Tensor:
        """Return (N, 4 width, H / stride, W / stride)."""
        activate = OVERWRITING[self.style.activation]
        inner_NCHW = activate(self._normed("1", self.conv_1(hidden_NCHW)))
        inner_NCHW = activate(self._normed("2", self.conv_2(inner_NCHW)))
        inner_NCHW = self._normed("3", self.conv_3(inner_NCHW))
        if self.projects:
            hidden_NCHW = self._normed("projection", self.projection(hidden_NCHW))
        return activate(inner_NCHW.add_(hidden_NCHW))

    def _normed(self, position: str, values_NCHW: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(norms.name(self.style.norm, position))(values_NCHW)


class ResNet(nn.Module):
    """A stem, stages of blocks, the mean over positions, and a linear head.

    Args:
        width: The inner channels of the first stage, which double from stage to stage.
        stages: The number of blocks of each stage.
        stem: The size of the first convolution; from 7 on a pooling follows it.
        stem_stride: Its stride.
        classes: The number K of classes.
        style: Activation, norms and the output's scale.
    """

    def __init__(
        self,
        width: int,
        stages: tuple[int, ...],
        stem: int,
        stem_stride: int,
        classes: int,
        style: ResidualConvolutionStyle,
    ) -> None:
        super().__init__()
        self.style = style
        self.pools = stem >= 7
        self.stem = conv(INPUT_CHANNELS, width, stem, stem_stride)
        self.stem_norm = norms.name(style.norm, "stem")
        self.add_module(self.stem_norm, norm(style.norm, width))
        channels, self.blocks = width, sum(stages)
        strides = [2 if stage > 0 and block == 0 else 1
                   for stage, blocks in enumerate(stages) for block in range(blocks)]  # fmt: skip
        for number, stride in enumerate(strides):
            inner = width * 2 ** sum(each - 1 for each in strides[: number + 1])
            self.add_module(f"block_{number}", Bottleneck(channels, inner, stride, style))
            channels = EXPANSION * inner
        self.head = nn.Linear(channels, classes)

    def forward(self, inputs_NHWC: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_NK."""
        hidden_NCHW = self.stem(normalised(inputs_NHWC))
        hidden_NCHW = self.get_submodule(self.stem_norm)(hidden_NCHW)
        hidden_NCHW = OVERWRITING[self.style.activation](hidden_NCHW)
        if self.pools:
            hidden_NCHW = functional.max_pool2d(hidden_NCHW, 3, stride=2, padding=1)
        for number in range(self.blocks):
            hidden_NCHW = self.get_submodule(f"block_{number}")(hidden_NCHW)
        pooled_NC = functional.dropout(hidden_NCHW.mean((2, 3)), dropout_rate, self.training)
        return scaled(self.head(pooled_NC), self.style.output_scale)


build = ResNet

"""The U-Net of the fastmri workload in PyTorch (Ronneberger et al. 2015, as fastMRI has it).

Shapes: B batch, H height, W width, C channels.
"""

import torch
from torch import nn
from torch.nn import functional

from workloads.fastmri.unet import EPSILONS
from workloads.parts.style import UNetStyle, scaled
from workloads.parts.style_torch import OVERWRITING


def conv(inputs: int, channels: int) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, channels, 3, padding=1, bias=False)


class Norm(nn.Module):
    """The norm of a convolution's output over a row's pixels.

    Args:
        kind: 'instance' normalises each channel and has no parameters (Ulyanov et al. 2016).
            'layer' normalises all channels together, and has a scale and a bias for each.
        channels: The number C of channels.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "layer":
            self.scale = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden_BCHW: torch.Tensor) -> torch.Tensor:
        """Return hidden_BCHW."""
        epsilon = EPSILONS[self.kind]
        if self.kind == "instance":
            # Of as many groups as channels: the same numbers in two thirds of instance_norm's time.
            return functional.group_norm(hidden_BCHW, hidden_BCHW.shape[1], eps=epsilon)
        return functional.group_norm(hidden_BCHW, 1, self.scale, self.bias, epsilon)


class Block(nn.Module):
    """Two convolutions, each with norm, activation and dropout of whole channels."""

    def __init__(self, inputs: int, channels: int, style: UNetStyle) -> None:
        super().__init__()
        self.style = style
        for layer in range(2):
            before = channels if layer else inputs
            self.add_module(f"conv_{layer}", conv(before, channels))
            self.add_module(f"norm_{layer}", Norm(style.norm, channels))

    def forward(self, hidden_BCHW: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return hidden_BCHW with as many channels as the block has."""
        for layer in range(2):
            hidden_BCHW = _call(self, f"conv_{layer}", hidden_BCHW)
            hidden_BCHW = _call(self, f"norm_{layer}", hidden_BCHW)
            hidden_BCHW = OVERWRITING[self.style.activation](hidden_BCHW)
            hidden_BCHW = functional.dropout2d(hidden_BCHW, dropout_rate, self.training)
        return hidden_BCHW


class UNet(nn.Module):
    """Blocks on the way down, each at half the size of the one before, and on the way up.

    Args:
        width: The channels of the first block; each block down has twice as many.
        levels: How many times the size is halved.
        style: Activation, norm and output scale.
    """

    def __init__(self, width: int, levels: int, style: UNetStyle) -> None:
        super().__init__()
        self.style = style
        self.levels = levels
        self.between = Norm("instance", width)
        for level in range(levels + 1):
            inputs = width << level - 1 if level else 1
            self.add_module(f"block_{level}", Block(inputs, width << level, style))
        for number, level in enumerate(reversed(range(levels))):
            channels = width << level
            transposed = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False)
            self.add_module(f"transposed_{number}", transposed)
            block = Block(2 * channels, channels, style)
            self.add_module(f"block_{levels + 1 + number}", block)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images_BHW: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return images_BHW.

        Args:
            images_BHW: Normalised images, with sizes that 2^levels divides.
            dropout_rate: The share of channels to drop while training.
        """
        hidden_BCHW, skipped = images_BHW[:, None], []
        for level in range(self.levels):
            skipped.append(_call(self, f"block_{level}", hidden_BCHW, dropout_rate))
            hidden_BCHW = functional.avg_pool2d(skipped[-1], 2)
        hidden_BCHW = _call(self, f"block_{self.levels}", hidden_BCHW, dropout_rate)
        for number in range(self.levels):
            hidden_BCHW = self.between(_call(self, f"transposed_{number}", hidden_BCHW))
            hidden_BCHW = OVERWRITING[self.style.activation](hidden_BCHW)
            hidden_BCHW = torch.cat([hidden_BCHW, skipped.pop()], 1)
            name = f"block_{self.levels + 1 + number}"
            hidden_BCHW = _call(self, name, hidden_BCHW, dropout_rate)
        return scaled(self.head(hidden_BCHW)[:, 0], self.style.output_scale)


def _call(module: nn.Module, name: str, *arguments: object) -> torch.Tensor:
    called: torch.Tensor = module.get_submodule(name)(*arguments)
    return called


build = UNet

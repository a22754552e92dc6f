"""The convolutional network in PyTorch.

Shapes: N rows, H height, W width, C channels, K classes.
"""

import torch
from torch import nn
from torch.nn import functional

from workloads.parts.batch_norm_torch import BatchNorm

INPUT_CHANNELS = 3


class Block(nn.Module):
    """Convolution, batch norm and rectifier, added to what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.batch_norm = BatchNorm(channels)

    def forward(self, hidden_NCHW: torch.Tensor) -> torch.Tensor:
        """Return hidden_NCHW."""
        return hidden_NCHW + functional.relu(self.batch_norm(self.conv(hidden_NCHW)))


class Network(nn.Module):
    """A first convolution, blocks, the mean over positions, and a linear head."""

    def __init__(self, channels: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(INPUT_CHANNELS, channels, 3, padding=1, bias=False)
        self.first_batch_norm = BatchNorm(channels)
        self.blocks = blocks
        for number in range(blocks):
            self.add_module(f"block_{number}", Block(channels))
        self.head = nn.Linear(channels, classes)

    def forward(self, inputs_NHWC: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_NK."""
        inputs_NCHW = inputs_NHWC.permute(0, 3, 1, 2)
        hidden_NCHW = functional.relu(self.first_batch_norm(self.first(inputs_NCHW)))
        for number in range(self.blocks):
            hidden_NCHW = self.get_submodule(f"block_{number}")(hidden_NCHW)
        pooled_NC = functional.dropout(hidden_NCHW.mean((2, 3)), dropout_rate, self.training)
        return self.head(pooled_NC)


build = Network

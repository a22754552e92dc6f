"""Norms of convolutional models in PyTorch; `workloads.parts.norms` says which there are.

Shapes: N rows, H height, W width, C channels.
"""

import torch
from torch import nn

from workloads.parts import norms
from workloads.parts.batch_norm_torch import BatchNorm


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm, of channels that lie side by side as well.

    There PyTorch takes the mean of squares less the squared mean, which in float32 is wrong by half
    at mean 1000 (findings/torch_group_norm_channels_last.sh).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (N, C, H, W), normalised."""
        return super().forward(input.contiguous())


def norm(kind: str, channels: int) -> nn.Module:
    """Return a norm of (N, C, H, W).

    Args:
        kind: One of `norms.KINDS`.
        channels: The number C of channels.
    """
    if kind == "batch":
        return BatchNorm(channels)
    return GroupNorm(norms.group_count(kind, channels), channels, eps=norms.EPSILON)

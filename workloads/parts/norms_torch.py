"""Norms of convolutional models in PyTorch; `workloads.parts.norms` says which there are.

Shapes: N rows, H height, W width, C channels.
"""

from torch import nn

from workloads.parts import norms
from workloads.parts.batch_norm_torch import BatchNorm


def norm(kind: str, channels: int) -> nn.Module:
    """Return a norm of (N, C, H, W).

    Args:
        kind: One of `norms.KINDS`.
        channels: The number C of channels.
    """
    if kind == "batch":
        return BatchNorm(channels)
    return nn.GroupNorm(norms.group_count(kind, channels), channels, eps=norms.EPSILON)

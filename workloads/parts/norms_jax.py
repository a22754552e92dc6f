"""Norms of convolutional models in flax; `workloads.parts.norms` says which there are.

Shapes: N rows, H height, W width, C channels.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from workloads.parts import norms
from workloads.parts.batch_norm_jax import BatchNorm


class GroupNorm(nn.Module):
    """Layer or group norm of (N, H, W, C).

    Attributes:
        groups: The number of groups of channels; one is layer norm.
    """

    groups: int

    @nn.compact
    def __call__(self, hidden_NHWC: jax.Array) -> jax.Array:
        """Return the normalised array, of the same shape."""
        N, H, W, C = hidden_NHWC.shape
        scale_C = self.param("scale", nn.initializers.ones, (C,))
        bias_C = self.param("bias", nn.initializers.zeros, (C,))
        grouped = hidden_NHWC.astype(scale_C.dtype).reshape(N, H, W, self.groups, -1)
        centred = grouped - grouped.mean((1, 2, 4), keepdims=True)
        variance = (centred * centred).mean((1, 2, 4), keepdims=True)
        normalised = (centred * jax.lax.rsqrt(variance + norms.EPSILON)).reshape(N, H, W, C)
        return (normalised * scale_C + bias_C).astype(hidden_NHWC.dtype)


def norm(kind: str, position: str, hidden_NHWC: jax.Array, use_running_average: bool) -> jax.Array:
    """Return the normalised array, within a compact module.

    Args:
        kind: One of `norms.KINDS`.
        position: What tells the norm from others of its module.
        hidden_NHWC: What is normalised.
        use_running_average: Whether batch norm normalises by its running statistics.
    """
    channels, name = hidden_NHWC.shape[-1], norms.name(kind, position)
    if kind == "batch":
        normalised: jax.Array = BatchNorm(channels, name=name)(hidden_NHWC, use_running_average)
        return normalised
    group_norm: Callable[[jax.Array], jax.Array] = GroupNorm(
        norms.group_count(kind, channels), name=name
    )
    return group_norm(hidden_NHWC)

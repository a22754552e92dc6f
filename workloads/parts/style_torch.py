"""The activations and norms that a model's style chooses between, in PyTorch."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from workloads.parts import style
from workloads.parts.style import Style

NORM_EPSILON = 1e-5
Layer = Callable[[torch.Tensor], torch.Tensor]
FUNCTIONS: dict[str, Layer] = {
    "relu": torch.relu,
    "leaky_relu": functools.partial(functional.leaky_relu, negative_slope=style.LEAKY_SLOPE),
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
# The same where nothing else needs what they get, such as the output of a convolution's norm: those
# whose gradient their output tells overwrite it, which spares a pass over the memory.
OVERWRITING: dict[str, Layer] = {
    **FUNCTIONS,
    "relu": torch.relu_,
    "leaky_relu": functools.partial(
        functional.leaky_relu, negative_slope=style.LEAKY_SLOPE, inplace=True
    ),
    "tanh": torch.tanh_,
}


def norm(
    chosen: Style, width: int, present: bool = True, epsilon: float = NORM_EPSILON
) -> nn.Module:
    """Return the norm layer that the style chooses, or an identity layer where there is none.

    Args:
        chosen: The style.
        width: The size of the last axis, over which the layer normalises.
        present: Whether there is a norm at this place.
        epsilon: What is added to the variance.
    """
    if chosen.norm == "none" or not present:
        return nn.Identity()
    kind = nn.RMSNorm if chosen.norm == "rms" else nn.LayerNorm
    return kind(width, eps=epsilon)


def activate(chosen: Style, inner: torch.Tensor, gate: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return the activation of a feed-forward layer (see `style.activate`)."""
    activated: torch.Tensor = style.activate(chosen, FUNCTIONS, inner, gate)
    return activated

"""The activations and norms that a model's style chooses between, in flax."""

import functools
from collections.abc import Callable

import jax
from flax import linen as nn

from workloads.parts import style
from workloads.parts.style import Style

NORM_EPSILON = 1e-5  # This is PyTorch's default for layer norms; flax's would be 1e-6.
Layer = Callable[[jax.Array], jax.Array]
FUNCTIONS: dict[str, Layer] = {
    "relu": nn.relu,
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=style.LEAKY_SLOPE),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
}


def norm(
    chosen: Style, name: str | None = None, present: bool = True, epsilon: float = NORM_EPSILON
) -> Layer:
    """Return the norm layer that the style chooses, or the identity function where there is none.

    Args:
        chosen: The style.
        name: The name of the layer's parameters; None leaves it to flax.
        present: Whether there is a norm at this place.
        epsilon: What is added to the variance.
    """
    if chosen.norm == "none" or not present:
        return lambda hidden: hidden
    kind = nn.RMSNorm if chosen.norm == "rms" else nn.LayerNorm
    layer: Layer = kind(epsilon=epsilon, name=name)
    return layer


def activate(chosen: Style, inner: jax.Array, gate: Callable[[], jax.Array]) -> jax.Array:
    """Return the activation of a feed-forward layer (see `style.activate`)."""
    activated: jax.Array = style.activate(chosen, FUNCTIONS, inner, gate)
    return activated

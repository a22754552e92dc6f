"""A convolution and a pooling in forms whose gradients XLA computes faster on the CPU.

Shapes: N rows, H height, W width, C channels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def pointwise(
    images_NHWC: jax.Array, kernel_11CD: jax.Array, strides: Sequence[int], *_: Any, **__: Any
) -> jax.Array:
    """Return what `jax.lax.conv_general_dilated` does for a window of one pixel, as the matrix
    product that it is; flax takes it in its place.

    Args:
        images_NHWC: The images.
        kernel_11CD: The kernel.
        strides: Of the rows and of the columns.

    Returns:
        Images of D channels, (N, H / stride, W / stride, D).
    """
    rows, columns = strides
    images: jax.Array = images_NHWC[:, ::rows, ::columns] @ kernel_11CD[0, 0]
    return images


def max_pool(images_NHWC: jax.Array, window: int, stride: int) -> jax.Array:
    """Return the largest value of each channel in windows that are centred on every `stride`-th
    pixel.

    The gradient goes to the first of equal values, row by row, as in PyTorch.

    Args:
        images_NHWC: The images, to which nothing is added at their edges.
        window: The side of a window in pixels, an odd number.
        stride: Its step in pixels.

    Returns:
        Images (N, ceil(H / stride), ceil(W / stride), C).
    """
    margin = window // 2
    around = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded_NHWC = jnp.pad(images_NHWC, around, constant_values=-jnp.inf)
    height, width = images_NHWC.shape[1:3]
    largest_NHWC: jax.Array | None = None
    for row in range(window):
        for column in range(window):
            shifted_NHWC = padded_NHWC[
                :, row : row + height : stride, column : column + width : stride
            ]
            if largest_NHWC is None:
                largest_NHWC = shifted_NHWC
            else:
                larger_NHWC = shifted_NHWC > largest_NHWC
                largest_NHWC = jnp.where(larger_NHWC, shifted_NHWC, largest_NHWC)
    assert largest_NHWC is not None
    return largest_NHWC

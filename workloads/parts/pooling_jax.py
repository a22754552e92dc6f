"""Pooling in a form whose gradient XLA computes faster on the CPU than its own.

Shapes: N rows, H height, W width, C channels.
"""

import jax
import jax.numpy as jnp


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

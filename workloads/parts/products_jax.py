"""Layers of flax whose matrix products have two axes a side, whatever their inputs have.

A product over the last axis of (B, T, C) has a gradient by the kernel that is summed over both B
and T. XLA on the CPU transposes one of its factors for that, which may take longer than the
product: from 256 channels to 8,000 classes the gradients take 181 ms of a processor, and 75 ms as
the product of (B T, C). Parameters and values are those of flax's layers.

Shapes: N rows, H height, W width, C channels, D channels of the output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn


def over_rows(function: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
    """Return a function's values for each row of the last axis.

    Args:
        function: From (rows, C) to (rows, D).
        values: (..., C).

    Returns:
        (..., D).
    """
    rows = function(values.reshape(-1, values.shape[-1]))
    return rows.reshape(*values.shape[:-1], rows.shape[-1])


def product(values: jax.Array, kernel_CD: jax.Array, *dimensions: Any, **options: Any) -> jax.Array:
    """Return `jax.lax.dot_general` of the last axis of values and the first of a kernel; flax takes
    it in its place.
    """
    sides = (((1,), (0,)), ((), ()))
    return over_rows(lambda rows: jax.lax.dot_general(rows, kernel_CD, sides, **options), values)


class Dense(nn.Dense):
    """flax's layer, of (..., C)."""

    dot_general: Any = product


class Embed(nn.Embed):
    """flax's table of embeddings."""

    def attend(self, query: jax.Array) -> jax.Array:
        """Return each vector's products with all embeddings, (..., C) -> (..., embeddings)."""
        return over_rows(super().attend, query)


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
        (N, H / stride, W / stride, D).
    """
    rows, columns = strides
    return product(images_NHWC[:, ::rows, ::columns], kernel_11CD[0, 0])

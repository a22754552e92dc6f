"""The normalisation of pixels in JAX.

Shapes: N rows, H height, W width, C channels.
"""

import jax
import jax.numpy as jnp

from workloads.parts import pixels


def normalised(inputs_NHWC: jax.Array, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Return pixels from 0 to 255 less their means, over their standard deviations.

    Args:
        inputs_NHWC: The pixels, integers or floats; floats keep their type.
        dtype: The type of the result where the pixels are integers.
    """
    if not jnp.issubdtype(inputs_NHWC.dtype, jnp.floating):
        inputs_NHWC = inputs_NHWC.astype(dtype)
    mean_C, std_C = (jnp.asarray(each, inputs_NHWC.dtype) for each in (pixels.MEAN_C, pixels.STD_C))
    return (inputs_NHWC - mean_C) / std_C

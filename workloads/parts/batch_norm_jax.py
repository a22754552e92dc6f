"""Batch norm (Ioffe and Szegedy 2015, arXiv:1502.03167) in flax.

The convention, in both frameworks: a batch is normalised by its mean and its biased variance
(algorithm 1), over all axes but the channels'. The running statistics that evaluation uses take in
the mean and the unbiased variance, n / (n - 1) times the biased one (algorithm 2, step 10), as
PyTorch's do; flax's own layer and AlgoPerf's JAX models keep the biased one. `momentum` is
the batch's weight: running = (1 - momentum) running + momentum batch, which is PyTorch's meaning;
flax's own layer calls 1 - momentum so. The variance is the mean of squared deviations from the
mean, in two passes: the mean of squares less the squared mean, flax's default, is 0 in float32 at
mean 1e4 and standard deviation 0.1. Statistics are float32 in every precision. All rows of a batch
count, whatever weight the loss gives them, since a model sees the inputs alone; where a batch is
cut into micro-batches, each is normalised by its own statistics and updates the running ones in
turn. In JAX the statistics are those of the global batch on any number of devices.

Shapes: N rows, C channels, and any number of positions between them.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

MOMENTUM, EPSILON = 0.1, 1e-5


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last: (N, C), (N, L, C), (N, H, W, C), ...

    Parameters are `scale` and `bias`, running statistics `mean` and `var` of the collection
    `batch_stats`.

    Args:
        features: the number of channels, C.
        momentum: the weight of a batch in the running statistics.
        epsilon: what is added to the variance.
    """

    features: int
    momentum: float = MOMENTUM
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, inputs: jax.Array, use_running_average: bool) -> jax.Array:
        """Return the normalised inputs, in their type. The batch's statistics, where they are used,
        go into the running ones if the collection `batch_stats` is mutable.

        Raises:
            ValueError: where a channel has one value alone, as PyTorch does: it has no variance.
        """
        shape = (self.features,)
        scale_C = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias_C = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        values = inputs.astype(jnp.float32)
        if use_running_average:
            mean_C, var_C = running_mean.value, running_var.value
            centred = values - mean_C
        else:
            count = inputs.size // self.features
            if count < 2:
                raise ValueError(
                    f"batch statistics of an input of shape {inputs.shape}: expected more than one "
                    "value per channel"
                )
            axes = tuple(range(inputs.ndim - 1))
            mean_C = values.mean(axes)
            centred = values - mean_C
            var_C = jnp.square(centred).mean(axes)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                kept = 1 - self.momentum
                unbiased_C = var_C * (count / (count - 1))
                running_mean.value = kept * running_mean.value + self.momentum * mean_C
                running_var.value = kept * running_var.value + self.momentum * unbiased_C
        normalised = centred * (jax.lax.rsqrt(var_C + self.epsilon) * scale_C) + bias_C
        return normalised.astype(inputs.dtype)

"""What JAX and optax have for the losses of `algoperf.losses`."""

import jax
import optax

from algoperf import losses

OPS = losses.Ops(
    log_softmax=jax.nn.log_softmax,
    softplus=jax.nn.softplus,
    softmax=jax.nn.softmax,
    sigmoid=jax.nn.sigmoid,
    cross_entropy=optax.softmax_cross_entropy_with_integer_labels,
    ctc=optax.ctc_loss,
)

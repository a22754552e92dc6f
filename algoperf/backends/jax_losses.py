"""What JAX and optax have for the losses of `algoperf.losses`."""

import jax
import jax.numpy as jnp
import optax

from algoperf import losses


def _ctc(
    logits_BTV: jax.Array, paddings_BT: jax.Array, labels_BN: jax.Array, paddings_BN: jax.Array
) -> jax.Array:
    """Optax's loss, but 0 where the frames cannot hold the labels, of which optax's is some 1e5."""
    loss_B: jax.Array = optax.ctc_loss(logits_BTV, paddings_BT, labels_BN, paddings_BN)
    repeats_B = ((labels_BN[:, 1:] == labels_BN[:, :-1]) & (paddings_BN[:, 1:] == 0)).sum(1)
    frames_B, needed_B = (1 - paddings_BT).sum(1), (1 - paddings_BN).sum(1) + repeats_B
    return jnp.where(frames_B >= needed_B, loss_B, 0)


OPS = losses.Ops(
    log_softmax=jax.nn.log_softmax,
    softplus=jax.nn.softplus,
    softmax=jax.nn.softmax,
    sigmoid=jax.nn.sigmoid,
    cross_entropy=optax.softmax_cross_entropy_with_integer_labels,
    ctc=_ctc,
)

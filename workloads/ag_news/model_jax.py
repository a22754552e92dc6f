"""GPT-2 (Radford et al. 2019) with a classification head on the last real token, in flax.

Shapes: B batch, T tokens, D width, C classes.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts.decoder_jax import Decoder
from workloads.parts.dropout_jax import Dropout
from workloads.parts.style import scaled


class Classifier(Decoder):
    """GPT-2's decoder with a final norm and a classification head on the last real token.

    Attributes:
        classes: The number C of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return the logits (B, C) of the classes.

        Args:
            tokens_BT: Token ids, padded on the right.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        dropout = Dropout(dropout_rate, train, name="dropout")
        B, T = tokens_BT.shape
        _, hidden_BTD = self.blocks(tokens_BT, dropout)
        last_B = jnp.where(tokens_BT != self.pad_id, jnp.arange(T), 0).max(-1)
        before = hidden_BTD.shape[1] - T
        last_BD = self.final_norm(hidden_BTD[jnp.arange(B), before + last_B])
        logits_BC = nn.Dense(self.classes, use_bias=False, name="head")(last_BD)
        return scaled(logits_BC, self.style.output_scale)


build = Classifier

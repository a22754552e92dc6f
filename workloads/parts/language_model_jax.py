"""A decoder as a language model in flax.

Shapes: B batch, T tokens, V vocabulary.
"""

import jax
from flax import linen as nn

from workloads.parts.decoder_jax import Decoder
from workloads.parts.dropout_jax import Dropout


class LanguageModel(Decoder):
    """The decoder with a final norm and an output layer tied to the token embeddings."""

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return the logits (B, T, V) of the token after each position.

        Args:
            tokens_BT: Token ids.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        return self.next_token(tokens_BT, Dropout(dropout_rate, train, name="dropout"))


build = LanguageModel

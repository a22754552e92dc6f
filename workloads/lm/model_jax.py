"""GPT-2 (Radford et al. 2019) as a language model in flax.

The output layer shares the weights of the token embeddings.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import jax
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.gpt2_jax import Decoder
from workloads.parts.style import scaled


class LanguageModel(Decoder):
    """GPT-2's decoder with a final norm and an output layer tied to the token embeddings."""

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return the logits (B, T, V) of the token after each position.

        Args:
            tokens_BT: Token ids.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        dropout = Dropout(dropout_rate, train, name="dropout")
        token, hidden_BTD = self.blocks(tokens_BT, dropout)
        hidden_BTD = self.final_norm(hidden_BTD[:, -tokens_BT.shape[1] :])
        return scaled(token.attend(hidden_BTD), self.style.output_scale)


build = LanguageModel

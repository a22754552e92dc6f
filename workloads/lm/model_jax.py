"""GPT-2 (Radford et al. 2019) as a language model in flax: the output layer is the tokens'
embeddings.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import jax
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.gpt2_jax import Decoder
from workloads.parts.style import scaled


class LanguageModel(Decoder):
    """The decoder, a final norm, and each position's products with the tokens' embeddings."""

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return logits_BTV of the next token."""
        dropout = Dropout(dropout_rate, train, name="dropout")
        token, hidden_BTD = self.blocks(tokens_BT, dropout)
        hidden_BTD = self.final_norm(hidden_BTD[:, -tokens_BT.shape[1] :])
        return scaled(token.attend(hidden_BTD), self.style.output_scale)


build = LanguageModel

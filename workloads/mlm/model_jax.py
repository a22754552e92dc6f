"""RoBERTa (Liu et al. 2019) with its head for masked tokens, in flax, of BART's encoder layers.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import jax
from flax import linen as nn

from workloads.parts.bart_jax import Stack
from workloads.parts.style import TransformerStyle, scaled
from workloads.parts.style_jax import norm


class Bias(nn.Module):
    """A bias alone."""

    size: int

    @nn.compact
    def __call__(self, logits_BTV: jax.Array) -> jax.Array:
        """Return the sum."""
        return logits_BTV + self.param("bias", nn.initializers.zeros, (self.size,))


class MaskedLanguageModel(nn.Module):
    """The encoder; then a dense layer, GELU, a norm, and products with the tokens' embeddings."""

    vocab_size: int
    positions: int
    width: int
    encoder_layers: int
    heads: int
    feed_forward: int
    pad_id: int
    style: TransformerStyle

    def setup(self) -> None:
        """Make the layers."""
        self.token = nn.Embed(self.vocab_size, self.width)
        self.encoder = Stack(
            positions=self.positions,
            width=self.width,
            layers=self.encoder_layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            is_decoder=False,
            style=self.style,
        )
        self.transform = nn.Dense(self.width)
        self.transform_norm = norm(self.style)
        self.head = Bias(self.vocab_size)

    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return logits_BTV of the token at each position; padding is not attended to."""
        token_BTD = scaled(self.token(tokens_BT), self.style.embedding_scale)
        mask_BHTT = (tokens_BT != self.pad_id)[:, None, None, :]
        rate = dropout_rate if train else 0.0
        hidden_BTD = self.encoder(token_BTD, mask_BHTT, None, rate)
        hidden_BTD = self.transform(hidden_BTD[:, -tokens_BT.shape[1] :])
        hidden_BTD = self.transform_norm(nn.gelu(hidden_BTD, approximate=False))
        return scaled(self.head(self.token.attend(hidden_BTD)), self.style.output_scale)


build = MaskedLanguageModel

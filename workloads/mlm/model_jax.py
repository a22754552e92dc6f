"""RoBERTa (Liu et al. 2019) in flax, with its head for masked tokens.

It is built of BART's encoder layers.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import jax
from flax import linen as nn

from workloads.parts.bart_jax import Stack
from workloads.parts.products_jax import Dense, Embed
from workloads.parts.style import TransformerStyle, scaled
from workloads.parts.style_jax import norm


class Bias(nn.Module):
    """A layer that adds a learned bias.

    Attributes:
        size: The number of values of the bias.
    """

    size: int

    @nn.compact
    def __call__(self, logits_BTV: jax.Array) -> jax.Array:
        """Return the logits plus the bias."""
        return logits_BTV + self.param("bias", nn.initializers.zeros, (self.size,))


class MaskedLanguageModel(nn.Module):
    """RoBERTa's encoder and its head for masked tokens.

    The head is a dense layer, GELU, a norm, and products with the token embeddings, plus a bias.

    Attributes:
        vocab_size: The number V of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        encoder_layers: The number of blocks.
        heads: The number of attention heads.
        feed_forward: The width of the feed-forward layers' inner layers.
        pad_id: The token that pads rows.
        style: Activation, norms and scales.
    """

    vocab_size: int
    positions: int
    width: int
    encoder_layers: int
    heads: int
    feed_forward: int
    pad_id: int
    style: TransformerStyle

    def setup(self) -> None:
        """Create the layers."""
        self.token = Embed(self.vocab_size, self.width)
        self.encoder = Stack(
            positions=self.positions,
            width=self.width,
            layers=self.encoder_layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            is_decoder=False,
            style=self.style,
        )
        self.transform = Dense(self.width)
        self.transform_norm = norm(self.style)
        self.head = Bias(self.vocab_size)

    def __call__(self, tokens_BT: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return the logits (B, T, V) of the token at each position.

        Args:
            tokens_BT: Token ids; padding is not attended to.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        token_BTD = scaled(self.token(tokens_BT), self.style.embedding_scale)
        mask_BHTT = (tokens_BT != self.pad_id)[:, None, None, :]
        rate = dropout_rate if train else 0.0
        hidden_BTD = self.encoder(token_BTD, mask_BHTT, None, rate)
        hidden_BTD = self.transform(hidden_BTD[:, -tokens_BT.shape[1] :])
        hidden_BTD = self.transform_norm(nn.gelu(hidden_BTD, approximate=False))
        return scaled(self.head(self.token.attend(hidden_BTD)), self.style.output_scale)


build = MaskedLanguageModel

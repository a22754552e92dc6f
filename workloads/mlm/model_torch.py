"""RoBERTa (Liu et al. 2019) in PyTorch, with its head for masked tokens.

It is built of BART's encoder layers.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import torch
from torch import nn
from torch.nn import functional

from workloads.parts.bart_torch import Stack
from workloads.parts.style import TransformerStyle, scaled
from workloads.parts.style_torch import norm
from workloads.parts.transformer_torch import padding_mask


class Bias(nn.Module):
    """A learned bias, to be added to logits.

    Args:
        size: The number of values of the bias.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class MaskedLanguageModel(nn.Module):
    """RoBERTa's encoder and its head for masked tokens.

    The head is a dense layer, GELU, a norm, and products with the token embeddings, plus a bias.

    Args:
        vocab_size: The number V of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        encoder_layers: The number of blocks.
        heads: The number of attention heads.
        feed_forward: The width of the feed-forward layers' inner layers.
        pad_id: The token that pads rows.
        style: Activation, norms and scales.
    """

    def __init__(
        self,
        vocab_size: int,
        positions: int,
        width: int,
        encoder_layers: int,
        heads: int,
        feed_forward: int,
        pad_id: int,
        style: TransformerStyle,
    ) -> None:
        super().__init__()
        self.pad_id, self.style = pad_id, style
        self.token = nn.Embedding(vocab_size, width)
        self.encoder = Stack(positions, width, encoder_layers, heads, feed_forward, False, style)
        self.transform = nn.Linear(width, width)
        self.transform_norm = norm(style, width)
        self.head = Bias(vocab_size)

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the logits (B, T, V) of the token at each position.

        Args:
            tokens_BT: Token ids; padding is not attended to.
            dropout_rate: The share of values to drop while training.
        """
        token_BTD = scaled(self.token(tokens_BT), self.style.embedding_scale)
        mask_BHTT = padding_mask(tokens_BT == self.pad_id, token_BTD.dtype)
        hidden_BTD = self.encoder(token_BTD, mask_BHTT, None, dropout_rate)
        hidden_BTD = self.transform(hidden_BTD[:, -tokens_BT.shape[1] :])
        hidden_BTD = self.transform_norm(functional.gelu(hidden_BTD))
        logits_BTV = functional.linear(hidden_BTD, self.token.weight, self.head.bias)
        return scaled(logits_BTV, self.style.output_scale)


build = MaskedLanguageModel

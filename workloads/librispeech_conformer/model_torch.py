"""The conformer in PyTorch (Gulati et al. 2020, arXiv:2005.08100), as AlgoPerf has it.

Legend: B utterances, T frames after subsampling, D width, V tokens.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from workloads.parts.log_mel import FrontEnd
from workloads.parts.positions import sine_positions
from workloads.parts.speech_torch import LayerNorm, LogMel, MaskedBatchNorm, Subsampling
from workloads.parts.style import ConformerStyle, scaled
from workloads.parts.style_torch import FUNCTIONS
from workloads.parts.transformer_torch import attend, padding_mask, split_heads

Dropout = Callable[[torch.Tensor], torch.Tensor]
QUERY_SCALE = 1.442695041  # 1 / softplus(0)


class FeedForward(nn.Module):
    """A norm and two layers, with dropout after each."""

    def __init__(self, width: int, inner: int, style: ConformerStyle) -> None:
        super().__init__()
        self.activate = FUNCTIONS[style.activation]
        self.norm = LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, hidden_BTD: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """Return what is added to the residual stream, before it is halved."""
        inner = dropout(self.activate(self.up(self.norm(hidden_BTD))))
        return dropout(self.down(inner))


class QueryScale(nn.Module):
    """A learned factor of each number of a query, 1 at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, query_BTHK: torch.Tensor) -> torch.Tensor:
        """Return the scaled queries, of heads of that width."""
        return query_BTHK * (QUERY_SCALE * functional.softplus(self.scale))


class Attention(nn.Module):
    """Attention among an utterance's own frames, after a norm."""

    def __init__(self, width: int, heads: int, style: ConformerStyle) -> None:
        super().__init__()
        self.heads, self.style = heads, style
        self.norm = LayerNorm(width)
        self.query_scale = QueryScale(width // heads)
        for name in ("query", "key", "value", "attention_out"):
            self.add_module(name, nn.Linear(width, width))

    def forward(
        self, hidden_BTD: torch.Tensor, mask_B11T: torch.Tensor, dropout: Dropout
    ) -> torch.Tensor:
        """Return what is added to the residual stream."""
        normed = self.norm(hidden_BTD)
        query, key, value = (
            split_heads(layer(normed), self.heads) for layer in (self.query, self.key, self.value)
        )
        mixed_BTD = attend(self.query_scale(query), key, value, mask_B11T)
        return dropout(self.attention_out(scaled(mixed_BTD, self.style.attention_output_scale)))


class Convolution(nn.Module):
    """A gated layer, a convolution of each number over the frames, batch norm and a layer."""

    def __init__(self, width: int, kernel: int, momentum: float, style: ConformerStyle) -> None:
        super().__init__()
        self.activate = FUNCTIONS[style.activation]
        self.norm = LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding="same", groups=width, bias=False)
        self.batch_norm = MaskedBatchNorm(width, momentum, style.BATCH_NORM_EPSILON)
        self.down = nn.Linear(width, width)

    def forward(
        self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, dropout: Dropout
    ) -> torch.Tensor:
        """Return what is added to the residual stream."""
        normed = self.norm(hidden_BTD)
        gated_BTD = self.linear(normed) * torch.sigmoid(self.gate(normed)) * mask_BT[..., None]
        mixed_BTD = self.depthwise(gated_BTD.transpose(1, 2)).transpose(1, 2)
        return dropout(self.down(self.activate(self.batch_norm(mixed_BTD, mask_BT))))


class Block(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer, and a norm."""

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        kernel: int,
        momentum: float,
        style: ConformerStyle,
    ) -> None:
        super().__init__()
        self.feed_forward_0 = FeedForward(width, feed_forward, style)
        self.attention = Attention(width, heads, style)
        self.convolution = Convolution(width, kernel, momentum, style)
        self.feed_forward_1 = FeedForward(width, feed_forward, style)
        self.norm = LayerNorm(width) if style.has_block_norm else nn.Identity()

    def forward(
        self, hidden: torch.Tensor, mask_BT: torch.Tensor, hides: torch.Tensor, rate: float
    ) -> torch.Tensor:
        """Return the residual stream (B, T, D) after the block.

        Args:
            hidden: The residual stream.
            mask_BT: 1 at the frames that count.
            hides: What is added to attention's scores.
            rate: The dropout rate.
        """
        dropout = functools.partial(functional.dropout, p=rate, training=self.training)
        hidden = hidden + 0.5 * self.feed_forward_0(hidden, dropout)
        hidden = hidden + self.attention(hidden, hides, dropout)
        hidden = hidden + self.convolution(hidden, mask_BT, dropout)
        hidden = hidden + 0.5 * self.feed_forward_1(hidden, dropout)
        return self.norm(hidden)


class Conformer(nn.Module):
    """The front end, subsampling, blocks, a norm and the output layer.

    Args:
        rate: Samples a second.
        mean: The mean of each bin of the front end.
        std: The standard deviation of each bin.
        frequency_masks: How many of an utterance's masks are of bins.
        vocabulary: The number V of tokens, the blank among them.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number of attention heads.
        feed_forward: The width of the blocks' inner layers.
        kernel: The frames that a block's convolution sees.
        batch_norm_momentum: The weight of a batch in batch norm's running statistics.
        style: Activation, norms and scales.
    """

    def __init__(
        self,
        rate: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        frequency_masks: int,
        vocabulary: int,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        kernel: int,
        batch_norm_momentum: float,
        style: ConformerStyle,
    ) -> None:
        super().__init__()
        self.layers, self.style = layers, style
        self.log_mel = LogMel(FrontEnd(rate, mean, std), frequency_masks)
        self.subsampling = Subsampling(len(mean), width, torch.relu)
        for layer in range(layers):
            block = Block(width, heads, feed_forward, kernel, batch_norm_momentum, style)
            self.add_module(f"block_{layer}", block)
        self.final_norm = LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(
        self, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], dropout_rate: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits_BTV and paddings_BT, 1 beyond an utterance's frames."""
        hidden_BTD, mask_BT = self.subsampling(*self.log_mel(inputs))
        positions_TD = sine_positions(*hidden_BTD.shape[1:])
        hidden_BTD = hidden_BTD + torch.from_numpy(positions_TD).to(hidden_BTD)
        hidden_BTD = functional.dropout(hidden_BTD, dropout_rate, self.training)
        hides_B11T = padding_mask(mask_BT == 0, hidden_BTD.dtype)
        for layer in range(self.layers):
            block = self.get_submodule(f"block_{layer}")
            hidden_BTD = block(hidden_BTD, mask_BT, hides_B11T, dropout_rate)
        logits_BTV = self.head(self.final_norm(hidden_BTD))
        return scaled(logits_BTV, self.style.output_scale), 1 - mask_BT


build = Conformer

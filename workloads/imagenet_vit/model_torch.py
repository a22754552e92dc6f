"""The vision transformer in PyTorch (Dosovitskiy et al. 2021), without a class token and with fixed
positions, as Beyer et al. 2022 have it.

Shapes: N rows, H height, W width, C channels, T patches, D width, K classes.
"""

import functools

import torch
from torch import nn
from torch.nn import functional

from workloads.parts.patches_torch import PatchEmbedding
from workloads.parts.pixels_torch import normalised
from workloads.parts.style import ImageTransformerStyle, residual, scaled
from workloads.parts.style_torch import FUNCTIONS, norm
from workloads.parts.transformer_torch import Attention, attend, split_heads

NORM_EPSILON = 1e-6


class FeedForward(nn.Module):
    """Two layers; gated, a third one multiplies the inner values.

    Args:
        width: The width D of what comes in.
        inner: The width of the inner layer.
        style: The activation; 'glu' is GELU whose values a linear layer of theirs multiplies.
    """

    def __init__(self, width: int, inner: int, style: ImageTransformerStyle) -> None:
        super().__init__()
        self.activate = FUNCTIONS["gelu_tanh" if style.is_gated else style.activation]
        self.up = nn.Linear(width, inner)
        self.gate = nn.Linear(inner, inner) if style.is_gated else None
        self.down = nn.Linear(inner, width)

    def forward(self, hidden_NTD: torch.Tensor, dropped: float) -> torch.Tensor:
        """Return (N, T, D); `dropped` is the share of inner values to drop."""
        inner = self.activate(self.up(hidden_NTD))
        if self.gate is not None:
            inner = inner * self.gate(inner)
        return self.down(functional.dropout(inner, dropped))


class Block(nn.Module):
    """Attention, then a feed-forward layer."""

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        style: ImageTransformerStyle,
        has_last_norm: bool,
    ) -> None:
        super().__init__()
        self.style = style
        self.norm_1 = norm(style, width, epsilon=NORM_EPSILON)
        self.attention = Attention(width, heads, style.attention_temperature)
        self.norm_2 = norm(style, width, has_last_norm, NORM_EPSILON)
        self.feed_forward = FeedForward(width, feed_forward, style)

    def forward(self, hidden_NTD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the residual stream (N, T, D) after the block."""
        dropped = dropout_rate if self.training else 0.0
        dropout = functools.partial(functional.dropout, p=dropped)
        attention, feed_forward = self.attention, self.feed_forward
        hidden_NTD = residual(
            self.style,
            self.norm_1,
            hidden_NTD,
            lambda values: dropout(attention(values, attention.keys_values(values))),
        )
        return residual(
            self.style,
            self.norm_2,
            hidden_NTD,
            lambda values: dropout(feed_forward(values, dropped)),
        )


class ProbeAttention(nn.Module):
    """Attention of one learned query to all patches."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)

    def forward(self, probe_N1D: torch.Tensor, hidden_NTD: torch.Tensor) -> torch.Tensor:
        """Return (N, 1, D)."""
        key_value = self.key_value(hidden_NTD).chunk(2, -1)
        heads = [split_heads(each, self.heads) for each in (self.query(probe_N1D), *key_value)]
        return self.attention_out(attend(*heads))


class MapHead(nn.Module):
    """Pooling by a learned probe (Zhai et al. 2022): its attention, and a feed-forward layer."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, style: ImageTransformerStyle
    ) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = ProbeAttention(width, heads)
        self.norm = norm(style, width, epsilon=NORM_EPSILON)
        self.feed_forward = FeedForward(width, feed_forward, style)

    def forward(self, hidden_NTD: torch.Tensor, dropped: float) -> torch.Tensor:
        """Return (N, D)."""
        probe_N1D = self.probe.expand(len(hidden_NTD), -1, -1)
        pooled_N1D = self.attention(probe_N1D, hidden_NTD)
        return (pooled_N1D + self.feed_forward(self.norm(pooled_N1D), dropped))[:, 0]


class VisionTransformer(nn.Module):
    """Embedded patches, blocks, pooling, and two layers at the end.

    Args:
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number of attention heads.
        feed_forward: The width of the blocks' inner layers.
        patch: The side of a patch in pixels.
        classes: The number K of classes.
        style: Activation, norms, pooling and scales.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        patch: int,
        classes: int,
        style: ImageTransformerStyle,
    ) -> None:
        super().__init__()
        self.style, self.layers = style, layers
        self.patches = PatchEmbedding(width, patch)
        for layer in range(layers):
            has_norm = style.has_feed_forward_norm(layer, layers)
            self.add_module(f"block_{layer}", Block(width, heads, feed_forward, style, has_norm))
        self.final_norm = norm(style, width, style.has_final_norm, NORM_EPSILON)
        self.map_head = (
            MapHead(width, heads, feed_forward, style) if style.pooling == "map" else None
        )
        self.pre_logits = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs_NHWC: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_NK."""
        dropped = dropout_rate if self.training else 0.0
        hidden_NTD = functional.dropout(self.patches(normalised(inputs_NHWC)), dropped)
        for layer in range(self.layers):
            hidden_NTD = self.get_submodule(f"block_{layer}")(hidden_NTD, dropout_rate)
        hidden_NTD = self.final_norm(hidden_NTD)
        if self.map_head is not None:
            pooled_ND = self.map_head(hidden_NTD, dropped)
        else:
            pooled_ND = hidden_NTD.mean(1)
        pooled_ND = torch.tanh(self.pre_logits(pooled_ND))
        return scaled(self.head(pooled_ND), self.style.output_scale)


build = VisionTransformer

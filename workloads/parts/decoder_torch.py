"""A decoder without an encoder in PyTorch up to its last block, without an output head.

By its style it is GPT-2's (Radford et al. 2019), or a later one.

Shapes: B batch, T tokens, D width, H heads, K width of a head, P pairs of values of a head.
"""

import functools

import torch
from torch import nn
from torch.nn import functional

from workloads.parts import rotary
from workloads.parts.style import SMALLEST_NORM, DecoderStyle, residual, scaled
from workloads.parts.style_torch import activate, norm
from workloads.parts.transformer_torch import split_heads
from workloads.parts.window_torch import attend_causally

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, (T, P) each


class Attention(nn.Module):
    """Causal multi-head self-attention.

    Args:
        width: The width D of the residual stream.
        heads: The number H of attention heads.
        style: What is attended to, and how.
    """

    def __init__(self, width: int, heads: int, style: DecoderStyle) -> None:
        super().__init__()
        self.heads, self.style = heads, style
        self.qkv = nn.Linear(width, 3 * width, style.has_biases)
        self.attention_out = nn.Linear(width, width, style.has_biases)
        if style.normalises_queries:
            self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self, hidden_BTD: torch.Tensor, dropout_rate: float, rotation: Rotation | None
    ) -> torch.Tensor:
        """Return the attention's contribution to the residual stream, (B, T, D)."""
        dropped, style = dropout_rate if self.training else 0.0, self.style
        q_BHTK, k_BHTK, v_BHTK = (
            split_heads(part, self.heads) for part in self.qkv(hidden_BTD).chunk(3, dim=-1)
        )
        temperature = style.attention_temperature
        if style.normalises_queries:
            temperature *= q_BHTK.shape[-1] ** -0.5  # which `attend` multiplies by
            q_BHTK, k_BHTK = unit(q_BHTK) * self.scale, unit(k_BHTK)
        if rotation is not None:
            q_BHTK, k_BHTK = rotated(q_BHTK, rotation), rotated(k_BHTK, rotation)
        mixed_BTD = attend_causally(
            q_BHTK.to(v_BHTK.dtype),
            k_BHTK.to(v_BHTK.dtype),
            v_BHTK,
            style.attention_window,
            style.global_tokens,
            dropped,
            temperature,
        )
        return functional.dropout(self.attention_out(mixed_BTD), dropped)


def unit(values_BHTK: torch.Tensor) -> torch.Tensor:
    """Return the vectors of the last axis divided by their Euclidean norms, in float32."""
    values_BHTK = values_BHTK.float()
    squared = values_BHTK.square().sum(-1, keepdim=True)
    return values_BHTK * torch.rsqrt(squared + SMALLEST_NORM**2)


def rotated(values_BHTK: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Return the values rotated by their positions, in float32 (see `workloads.parts.rotary`)."""
    cosines, sines = rotation
    even, odd = values_BHTK[..., 0::2], values_BHTK[..., 1::2]
    pairs = [even * cosines - odd * sines, even * sines + odd * cosines]
    return torch.stack(pairs, -1).flatten(-2)


class Block(nn.Module):
    """One layer of the decoder: attention, then a feed-forward layer of four times the width.

    Args:
        width: The width D of the residual stream.
        heads: The number H of attention heads.
        style: Activation, norms, attention and scales.
        has_norm: Whether the feed-forward layer has a norm.
    """

    def __init__(self, width: int, heads: int, style: DecoderStyle, has_norm: bool) -> None:
        super().__init__()
        self.style = style
        self.norm_1 = norm(style, width, epsilon=style.norm_epsilon)
        self.attention = Attention(width, heads, style)
        self.norm_2 = norm(style, width, has_norm, style.norm_epsilon)
        self.is_fused = style.is_gated and style.fuses_gate
        self.up = nn.Linear(width, (8 if self.is_fused else 4) * width, style.has_biases)
        if style.is_gated and not self.is_fused:
            self.gate = nn.Linear(width, 4 * width, style.has_biases)
        self.down = nn.Linear(4 * width, width, style.has_biases)

    def forward(
        self, hidden_BTD: torch.Tensor, dropout_rate: float, rotation: Rotation | None
    ) -> torch.Tensor:
        """Return the residual stream (B, T, D) after the block."""

        def feed_forward(hidden_BTD: torch.Tensor) -> torch.Tensor:
            if self.is_fused:
                up, gated = self.up(hidden_BTD).chunk(2, dim=-1)
                inner = activate(self.style, up, lambda: gated)
            else:
                inner = activate(self.style, self.up(hidden_BTD), lambda: self.gate(hidden_BTD))
            return functional.dropout(self.down(inner), dropout_rate, self.training)

        attend = functools.partial(self.attention, dropout_rate=dropout_rate, rotation=rotation)
        hidden_BTD = residual(self.style, self.norm_1, hidden_BTD, attend)
        return residual(self.style, self.norm_2, hidden_BTD, feed_forward)


class Decoder(nn.Module):
    """Embeddings and blocks. A subclass adds the output head in its `forward`.

    Args:
        vocab_size: The number of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number H of attention heads.
        pad_id: The token that pads rows.
        style: Activation, norms, attention and scales.
    """

    def __init__(
        self,
        vocab_size: int,
        positions: int,
        width: int,
        layers: int,
        heads: int,
        pad_id: int,
        style: DecoderStyle,
    ) -> None:
        super().__init__()
        self.pad_id, self.style = pad_id, style
        self.token = nn.Embedding(vocab_size, width)
        if style.is_rotary:
            # No buffers, which a model's state would have.
            tables = rotary.tables(positions, width // heads)
            self.rotation = tuple(torch.from_numpy(table) for table in tables)
        else:
            self.position = nn.Embedding(positions, width)
        self.block_names = [f"block_{layer}" for layer in range(layers)]
        for layer, name in enumerate(self.block_names):
            has_norm = style.has_feed_forward_norm(layer, layers)
            self.add_module(name, Block(width, heads, style, has_norm))
        self.final_norm = norm(style, width, style.has_final_norm, style.norm_epsilon)

    def blocks(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the hidden states (B, T, D) after the last block.

        A fine-tuning technique may put embeddings of its own (a prompt) before the tokens'; the
        first positions of the hidden states are then of these.

        Args:
            tokens_BT: Token ids.
            dropout_rate: The share of values to drop while training.
        """
        style = self.style
        dropout_rate = dropout_rate if style.drops else 0.0
        hidden_BTD = scaled(self.token(tokens_BT), style.embedding_scale)
        T, rotation = hidden_BTD.shape[1], None
        if style.is_rotary:
            if self.rotation[0].device != hidden_BTD.device:
                self.rotation = tuple(table.to(hidden_BTD.device) for table in self.rotation)
            rotation = tuple(table[:T] for table in self.rotation)
        else:
            position_TD = self.position(torch.arange(T, device=tokens_BT.device))
            hidden_BTD = hidden_BTD + scaled(position_TD, style.position_scale)
        hidden_BTD = functional.dropout(hidden_BTD, dropout_rate, self.training)
        for name in self.block_names:
            hidden_BTD = self.get_submodule(name)(hidden_BTD, dropout_rate, rotation)
        return hidden_BTD

    def next_token(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the logits (B, T, V) of the token after each position, by an output layer that
        shares the weights of the token embeddings.

        Args:
            tokens_BT: Token ids.
            dropout_rate: The share of values to drop while training.
        """
        hidden_BTD = self.blocks(tokens_BT, dropout_rate)[:, -tokens_BT.shape[1] :]
        logits_BTV = functional.linear(self.final_norm(hidden_BTD), self.token.weight)
        return scaled(logits_BTV, self.style.output_scale)

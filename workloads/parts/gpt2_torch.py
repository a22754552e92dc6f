"""GPT-2 (Radford et al. 2019) in PyTorch up to its last block, without an output head.

Shapes: B batch, T tokens, D width, H heads, K width of a head.
"""

import functools

import torch
from torch import nn
from torch.nn import functional

from workloads.parts.style import TransformerStyle, residual, scaled
from workloads.parts.style_torch import activate, norm
from workloads.parts.transformer_torch import attend, split_heads


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, width: int, heads: int, temperature: float) -> None:
        super().__init__()
        self.heads, self.temperature = heads, temperature
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)

    def forward(self, hidden_BTD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the attention's contribution to the residual stream, (B, T, D)."""
        dropped = dropout_rate if self.training else 0.0
        q_BHTK, k_BHTK, v_BHTK = (
            split_heads(part, self.heads) for part in self.qkv(hidden_BTD).chunk(3, dim=-1)
        )
        mixed_BTD = attend(
            q_BHTK,
            k_BHTK,
            v_BHTK,
            causal=True,
            dropout_rate=dropped,
            temperature=self.temperature,
        )
        return functional.dropout(self.attention_out(mixed_BTD), dropped)


class Block(nn.Module):
    """One layer of GPT-2: attention, then a feed-forward layer of four times the width.

    Args:
        width: The width D of the residual stream.
        heads: The number H of attention heads.
        style: Activation, norms and scales.
        has_norm: Whether the feed-forward layer has a norm.
    """

    def __init__(self, width: int, heads: int, style: TransformerStyle, has_norm: bool) -> None:
        super().__init__()
        self.style = style
        self.norm_1 = norm(style, width)
        self.attention = Attention(width, heads, style.attention_temperature)
        self.norm_2 = norm(style, width, has_norm)
        self.up = nn.Linear(width, 4 * width)
        if style.is_gated:
            self.gate = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden_BTD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the residual stream (B, T, D) after the block."""

        def feed_forward(hidden_BTD: torch.Tensor) -> torch.Tensor:
            inner = activate(self.style, self.up(hidden_BTD), lambda: self.gate(hidden_BTD))
            return functional.dropout(self.down(inner), dropout_rate, self.training)

        attend = functools.partial(self.attention, dropout_rate=dropout_rate)
        hidden_BTD = residual(self.style, self.norm_1, hidden_BTD, attend)
        return residual(self.style, self.norm_2, hidden_BTD, feed_forward)


class Decoder(nn.Module):
    """Token and position embeddings, and blocks. A subclass adds the output head in its `forward`.

    Args:
        vocab_size: The number of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number H of attention heads.
        pad_id: The token that pads rows.
        style: Activation, norms and scales.
    """

    def __init__(
        self,
        vocab_size: int,
        positions: int,
        width: int,
        layers: int,
        heads: int,
        pad_id: int,
        style: TransformerStyle,
    ) -> None:
        super().__init__()
        self.pad_id, self.style = pad_id, style
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(positions, width)
        self.block_names = [f"block_{layer}" for layer in range(layers)]
        for layer, name in enumerate(self.block_names):
            has_norm = style.has_feed_forward_norm(layer, layers)
            self.add_module(name, Block(width, heads, style, has_norm))
        self.final_norm = norm(style, width, style.has_final_norm)

    def blocks(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the hidden states (B, T, D) after the last block.

        A fine-tuning technique may put embeddings of its own (a prompt) before the tokens'; the
        first positions of the hidden states are then of these.

        Args:
            tokens_BT: Token ids.
            dropout_rate: The share of values to drop while training.
        """
        hidden_BTD = scaled(self.token(tokens_BT), self.style.embedding_scale)
        positions_T = torch.arange(hidden_BTD.shape[1], device=tokens_BT.device)
        hidden_BTD = hidden_BTD + scaled(self.position(positions_T), self.style.position_scale)
        hidden_BTD = functional.dropout(hidden_BTD, dropout_rate, self.training)
        for name in self.block_names:
            hidden_BTD = self.get_submodule(name)(hidden_BTD, dropout_rate)
        return hidden_BTD

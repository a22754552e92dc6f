"""GPT-2 (Radford et al. 2019) with a classification head on the last real token, in PyTorch.

Shapes: B batch, T tokens, D width, H heads, K width of a head, C classes.
"""

import torch
from torch import nn
from torch.nn import functional

from workloads.transformer_torch import attend, layer_norm, split_heads


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)

    def forward(self, hidden_BTD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the attention's contribution to the residual stream, (B, T, D)."""
        dropped = dropout_rate if self.training else 0.0
        q_BHTK, k_BHTK, v_BHTK = (
            split_heads(part, self.heads) for part in self.qkv(hidden_BTD).chunk(3, dim=-1)
        )
        mixed_BTD = attend(q_BHTK, k_BHTK, v_BHTK, causal=True, dropout_rate=dropped)
        return functional.dropout(self.attention_out(mixed_BTD), dropped)


class Block(nn.Module):
    """Pre-norm attention and a feed-forward layer of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = layer_norm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = layer_norm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden_BTD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the next residual stream."""
        hidden_BTD = hidden_BTD + self.attention(self.norm_1(hidden_BTD), dropout_rate)
        inner = functional.gelu(self.up(self.norm_2(hidden_BTD)), approximate="tanh")
        return hidden_BTD + functional.dropout(self.down(inner), dropout_rate, self.training)


class Classifier(nn.Module):
    """Token and position embeddings, blocks, a final norm, and the head on the last real token."""

    def __init__(
        self,
        vocab_size: int,
        positions: int,
        width: int,
        layers: int,
        heads: int,
        classes: int,
        pad_id: int,
    ) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(positions, width)
        self.block_names = [f"block_{layer}" for layer in range(layers)]
        for name in self.block_names:
            self.add_module(name, Block(width, heads))
        self.final_norm = layer_norm(width)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_BC."""
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        hidden_BTD = self.token(tokens_BT) + self.position(positions_T)
        hidden_BTD = functional.dropout(hidden_BTD, dropout_rate, self.training)
        for name in self.block_names:
            hidden_BTD = self.get_submodule(name)(hidden_BTD, dropout_rate)
        last_B = torch.where(tokens_BT != self.pad_id, positions_T, 0).amax(-1)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return self.head(self.final_norm(hidden_BTD[rows_B, last_B]))


build = Classifier

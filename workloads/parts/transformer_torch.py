"""What the transformers of all workloads are built of, in PyTorch.

Shapes: B batch, Q queries, T keys, D width, H heads, K width of a head.
"""

import torch
from torch import nn
from torch.nn import functional


def split_heads(hidden_BTD: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the same numbers as (B, H, T, K)."""
    return hidden_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    q_BHQK: torch.Tensor,
    k_BHTK: torch.Tensor,
    v_BHTK: torch.Tensor,
    mask_BHQT: torch.Tensor | None = None,
    causal: bool = False,
    dropout_rate: float = 0.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017), the heads side by side: (B, Q, D).

    `mask_BHQT`, or what broadcasts to it, is added to the scores; the dropout applies to the
    weights. The scores are divided by the temperature, too.
    """
    mixed_BHQK = functional.scaled_dot_product_attention(
        q_BHQK,
        k_BHTK,
        v_BHTK,
        mask_BHQT,
        dropout_p=dropout_rate,
        is_causal=causal,
        scale=None if temperature == 1 else q_BHQK.shape[-1] ** -0.5 / temperature,
    )
    return mixed_BHQK.transpose(1, 2).flatten(2)


def padding_mask(hidden_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what hides the keys at those positions, (B, 1, 1, T).

    A mask of booleans would be converted by every attention anew.
    """
    mask_BT = torch.zeros_like(hidden_BT, dtype=dtype)
    return mask_BT.masked_fill_(hidden_BT, torch.finfo(dtype).min)[:, None, None]


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be made beforehand."""

    def __init__(self, width: int, heads: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = temperature
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_out = nn.Linear(width, width)

    def keys_values(self, hidden_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is attended to, k_BHTK and v_BHTK."""
        return (
            split_heads(self.key(hidden_BTD), self.heads),
            split_heads(self.value(hidden_BTD), self.heads),
        )

    def forward(
        self,
        hidden_BQD: torch.Tensor,
        keys_values: tuple[torch.Tensor, torch.Tensor],
        mask_BHQT: torch.Tensor | None = None,
        causal: bool = False,
    ) -> torch.Tensor:
        """Return the attention's contribution to the residual stream, (B, Q, D).

        Where there are fewer rows of keys than of queries, groups of neighbouring rows (the beams
        of one source) share their keys.
        """
        rows, width = len(keys_values[0]), hidden_BQD.shape[-1]
        queries_BQD = self.query(hidden_BQD).view(rows, -1, width)
        queries_BHQK = split_heads(queries_BQD, self.heads)
        mixed_BQD = attend(
            queries_BHQK, *keys_values, mask_BHQT, causal, temperature=self.temperature
        )
        return self.attention_out(mixed_BQD).view_as(hidden_BQD)

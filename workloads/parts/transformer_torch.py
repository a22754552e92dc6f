"""Building blocks of the transformers of all workloads, in PyTorch.

Shapes: B batch, Q queries, T keys, D width, H heads, K width of a head.
"""

import torch
from torch import nn
from torch.nn import functional


def split_heads(hidden_BTD: torch.Tensor, heads: int) -> torch.Tensor:
    """Split the last axis into heads: (B, T, D) becomes (B, H, T, K)."""
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
    """Return scaled dot-product attention (Vaswani et al. 2017), with the heads side by side.

    Args:
        q_BHQK: The queries.
        k_BHTK: The keys.
        v_BHTK: The values.
        mask_BHQT: Numbers to add to the scores, or a tensor that broadcasts to them; None hides
            nothing.
        causal: Whether a query sees only keys at its own and earlier positions.
        dropout_rate: The share of attention weights to drop. The caller passes 0 outside training.
        temperature: The number that scores are divided by, in addition to the square root of K.

    Returns:
        Tensor (B, Q, D).
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
    """Return a mask (B, 1, 1, T) to add to attention scores, which hides keys at some positions.

    Args:
        hidden_BT: True at the positions to hide.
        dtype: The type of the attention scores.
    """
    return hiding_mask(hidden_BT, dtype)[:, None, None]


def hiding_mask(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers to add to attention scores, of any shape: the lowest of the dtype where True.

    A mask of booleans would be converted again by every attention layer.
    """
    mask = torch.zeros_like(hidden, dtype=dtype)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed beforehand.

    Args:
        width: The width D of inputs and outputs.
        heads: The number H of heads.
        temperature: The number that scores are divided by, in addition to the square root of K.
        bias: Whether the layers have biases.
    """

    def __init__(self, width: int, heads: int, temperature: float = 1.0, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = temperature
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, width, bias)
        self.value = nn.Linear(width, width, bias)
        self.attention_out = nn.Linear(width, width, bias)

    def keys_values(self, hidden_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and the values, each (B, H, T, K), for the positions to attend to."""
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

        Args:
            hidden_BQD: The positions that attend.
            keys_values: The result of `keys_values` for the positions to attend to. Where it has
                fewer rows than `hidden_BQD`, groups of neighbouring rows (the beams of one source)
                share their keys.
            mask_BHQT: Numbers to add to the scores, or a tensor that broadcasts to them.
            causal: Whether a query sees only keys at its own and earlier positions.
        """
        rows, width = len(keys_values[0]), hidden_BQD.shape[-1]
        queries_BQD = self.query(hidden_BQD).view(rows, -1, width)
        queries_BHQK = split_heads(queries_BQD, self.heads)
        mixed_BQD = attend(
            queries_BHQK, *keys_values, mask_BHQT, causal, temperature=self.temperature
        )
        return self.attention_out(mixed_BQD).view_as(hidden_BQD)

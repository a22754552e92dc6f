"""Sparse attention in PyTorch (see `workloads.parts.window`).

Shapes: B batch, T positions, D width, H heads, K width of a head; N blocks, C queries of a block, J
keys of a block's neighbourhood, G global keys.
"""

import functools

import torch
from torch.nn import functional

from workloads.parts.transformer_torch import attend
from workloads.parts.window import Window


def attend_causally(
    q_BHTK: torch.Tensor,
    k_BHTK: torch.Tensor,
    v_BHTK: torch.Tensor,
    window: int | None = None,
    global_tokens: int = 0,
    dropout_rate: float = 0.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Return attention to earlier positions: to all of them, or to those of a window.

    Args:
        q_BHTK: The queries.
        k_BHTK: The keys.
        v_BHTK: The values.
        window: The latest positions that a query sees; None: all.
        global_tokens: The first positions, which every query sees besides.
        dropout_rate: The share of attention weights to drop. The caller passes 0 outside training.
        temperature: The number that scores are divided by, in addition to the square root of K.

    Returns:
        Tensor (B, T, D).
    """
    B, H, T, K = q_BHTK.shape
    seen = Window(T, T if window is None else window, global_tokens)
    if seen.is_whole:
        return attend(
            q_BHTK,
            k_BHTK,
            v_BHTK,
            causal=True,
            dropout_rate=dropout_rate,
            temperature=temperature,
        )
    # Blocks take the place of rows, and rows and heads that of heads: a mask is then shared by all.
    q_NXCK = _padded(q_BHTK, 0, seen).unflatten(1, (seen.blocks, seen.block)).transpose(0, 1)
    k_NXJK, v_NXJK = (_neighbourhoods(each, seen) for each in (k_BHTK, v_BHTK))
    arange = functools.partial(torch.arange, device=q_BHTK.device)
    visible_NCJ = torch.cat(seen.visible(arange), -1)
    hidden_NCJ = torch.zeros_like(visible_NCJ, dtype=q_BHTK.dtype)
    hidden_NCJ.masked_fill_(~visible_NCJ, torch.finfo(q_BHTK.dtype).min)
    mixed_NXCK = functional.scaled_dot_product_attention(
        q_NXCK,
        k_NXJK,
        v_NXJK,
        hidden_NCJ[:, None],
        dropout_p=dropout_rate,
        scale=K**-0.5 / temperature,
    )
    mixed_BHTK = mixed_NXCK.transpose(0, 1).reshape(B, H, -1, K)[:, :, :T]
    return mixed_BHTK.transpose(1, 2).flatten(2)


def _padded(values_BHTK: torch.Tensor, before: int, seen: Window) -> torch.Tensor:
    """The values of every row and head, (B H, T, K), with so many blocks of 0 before them."""
    values_XTK = values_BHTK.flatten(0, 1)
    return functional.pad(values_XTK, (0, 0, before * seen.block, seen.missing))


def _neighbourhoods(values_BHTK: torch.Tensor, seen: Window) -> torch.Tensor:
    """What each block reads, its own values and then the global ones last: (N, B H, J + G, K)."""
    padded = _padded(values_BHTK, seen.before, seen)
    blocks = padded.unflatten(1, (-1, seen.block)).transpose(0, 1)
    parts = [blocks[start : start + seen.blocks] for start in range(seen.before + 1)]
    if seen.global_tokens:
        far_XGK = values_BHTK[:, :, : seen.global_tokens].flatten(0, 1)
        parts.append(far_XGK.expand(seen.blocks, -1, -1, -1))
    return torch.cat(parts, 2)

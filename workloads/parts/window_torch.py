"""Sparse attention in PyTorch (see `workloads.parts.window`).

On a CPU the blocks follow one another, each of all rows and heads. Nothing is copied, and no scores
are kept: the backward pass computes those of a block again, and adds to gradients in place (Dao et
al. 2022, arXiv:2205.14135). Elsewhere, with dropout or compiled, all blocks are one call of
PyTorch's own attention, of copies of each block's keys.

Shapes: B batch, T positions, D width, H heads, K width of a head, X rows times heads; N blocks, C
queries of a block, J keys of a block's neighbourhood, G global keys.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from workloads.parts.transformer_torch import attend
from workloads.parts.window import Window

ALIGNED_KEYS = 16  # a product of 320 keys takes half the time of one of 323


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
    parts_XTK = [part.flatten(0, 1) for part in (q_BHTK, k_BHTK, v_BHTK)]
    scale = K**-0.5 / temperature
    if dropout_rate or q_BHTK.device.type != "cpu" or torch.compiler.is_compiling():
        mixed_XTK = _at_once(*parts_XTK, seen, scale, dropout_rate)
    else:
        dtype = torch.promote_types(v_BHTK.dtype, torch.float32)
        mixed_XTK = _InTurn.apply(*(part.to(dtype) for part in parts_XTK), seen, scale)
    mixed_BTHK = mixed_XTK.to(v_BHTK.dtype).unflatten(0, (B, H)).transpose(1, 2)
    return mixed_BTHK.flatten(2)


@dataclasses.dataclass(frozen=True)
class _Block:
    """Queries, and the keys that some of them see: those near to them, and the first ones.

    Attributes:
        queries: Where the queries are.
        near: Where the keys up to the last query's own are.
        far: Where the global keys before these are.
        hidden_CJ: Added to the scores of the near keys, which not every query sees.
    """

    queries: slice
    near: slice
    far: slice
    hidden_CJ: torch.Tensor


def _blocks_in_turn(seen: Window, like: torch.Tensor) -> Iterator[_Block]:
    masks: dict[tuple[int, ...], torch.Tensor] = {}  # most blocks have the same one
    for start in range(0, seen.length, seen.block_in_turn):
        stop = min(start + seen.block_in_turn, seen.length)
        reach = -(-(stop - start + seen.size - 1) // ALIGNED_KEYS) * ALIGNED_KEYS
        first = max(0, stop - reach)
        known = stop - start, start - first, max(0, seen.global_tokens - first)
        if known not in masks:
            keys_J = torch.arange(first, stop, device=like.device)
            queries_C1 = torch.arange(start, stop, device=like.device)[:, None]
            is_hidden_CJ = ~seen.sees(queries_C1, keys_J)
            hidden_CJ = torch.zeros_like(is_hidden_CJ, dtype=like.dtype)
            masks[known] = hidden_CJ.masked_fill_(is_hidden_CJ, torch.finfo(like.dtype).min)
        far = slice(0, min(seen.global_tokens, first))
        yield _Block(slice(start, stop), slice(first, stop), far, masks[known])


class _Scratch:
    """Memory that blocks of one shape share; to ask for it anew takes longer than a product."""

    def __init__(self, like: torch.Tensor) -> None:
        self._like = like
        self._held: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        """Return a tensor with this name, with whatever it held last."""
        if name not in self._held or self._held[name].shape != shape:
            self._held[name] = self._like.new_empty(shape)
        return self._held[name]


class _InTurn(torch.autograd.Function):
    """Attention of one block of queries after another.

    Powers are of 2, since PyTorch's `exp` takes several times as long for what is hidden
    (findings/torch_cpu_exp_underflow.sh).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_XTK: torch.Tensor,
        k_XTK: torch.Tensor,
        v_XTK: torch.Tensor,
        seen: Window,
        scale: float,
    ) -> torch.Tensor:
        mixed_XTK, scratch = torch.empty_like(q_XTK), _Scratch(q_XTK)
        log_sums_XT1 = q_XTK.new_empty(*q_XTK.shape[:2], 1)
        with torch.autocast(q_XTK.device.type, enabled=False):
            for block in _blocks_in_turn(seen, q_XTK):
                q_XCK = q_XTK[:, block.queries] * (scale * math.log2(math.e))
                parts = _scores(block, q_XCK, k_XTK, scratch)
                largest = [scores.amax(-1, keepdim=True) for _, scores in parts]
                largest_XC1 = functools.reduce(torch.maximum, largest)
                mixed_XCK = scratch("mixed", *q_XCK.shape)
                sums_XC1 = torch.zeros_like(largest_XC1)
                for part, (keys, scores) in enumerate(parts):
                    powers = scores.sub_(largest_XC1).exp2_()
                    sums_XC1 += powers.sum(-1, keepdim=True)
                    mixed_XCK.baddbmm_(powers, v_XTK[:, keys], beta=min(part, 1))
                torch.div(mixed_XCK, sums_XC1, out=mixed_XTK[:, block.queries])
                log_sums_XT1[:, block.queries] = largest_XC1 + sums_XC1.log2_()
        ctx.save_for_backward(q_XTK, k_XTK, v_XTK, mixed_XTK, log_sums_XT1)
        ctx.seen, ctx.scale = seen, scale
        return mixed_XTK

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_XTK: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_XTK, k_XTK, v_XTK, mixed_XTK, log_sums_XT1 = ctx.saved_tensors
        grad_q_XTK, scratch = torch.empty_like(q_XTK), _Scratch(q_XTK)
        grad_k_XTK, grad_v_XTK = torch.zeros_like(k_XTK), torch.zeros_like(v_XTK)
        for block in _blocks_in_turn(ctx.seen, q_XTK):
            q_XCK = q_XTK[:, block.queries] * (ctx.scale * math.log2(math.e))
            grad_XCK = grad_XTK[:, block.queries]
            means_XC1 = (grad_XCK * mixed_XTK[:, block.queries]).sum(-1, keepdim=True)
            grad_q_XCK = scratch("grad q", *q_XCK.shape)
            for part, (keys, scores) in enumerate(_scores(block, q_XCK, k_XTK, scratch)):
                weights = scores.sub_(log_sums_XT1[:, block.queries]).exp2_()
                grad_v_XTK[:, keys].baddbmm_(weights.mT, grad_XCK)
                grad_scores = scratch(f"grad {part}", *weights.shape)
                torch.bmm(grad_XCK, v_XTK[:, keys].mT, out=grad_scores)
                grad_scores.sub_(means_XC1).mul_(weights)
                grad_q_XCK.baddbmm_(grad_scores, k_XTK[:, keys], beta=min(part, 1))
                grad_k_XTK[:, keys].baddbmm_(grad_scores.mT, q_XCK)
            torch.mul(grad_q_XCK, ctx.scale, out=grad_q_XTK[:, block.queries])
        grad_k_XTK *= math.log(2)
        return grad_q_XTK, grad_k_XTK, grad_v_XTK, None, None


def _scores(
    block: _Block, q_XCK: torch.Tensor, k_XTK: torch.Tensor, scratch: _Scratch
) -> list[tuple[slice, torch.Tensor]]:
    """Where the keys of a block are, near and far, and their scores (X, C, keys)."""
    shape = len(q_XCK), *block.hidden_CJ.shape
    near = torch.baddbmm(
        block.hidden_CJ, q_XCK, k_XTK[:, block.near].mT, out=scratch("near", *shape)
    )
    if not block.far.stop:
        return [(block.near, near)]
    far = scratch("far", *shape[:2], block.far.stop)
    torch.bmm(q_XCK, k_XTK[:, block.far].mT, out=far)
    return [(block.near, near), (block.far, far)]


def _at_once(
    q_XTK: torch.Tensor,
    k_XTK: torch.Tensor,
    v_XTK: torch.Tensor,
    seen: Window,
    scale: float,
    dropout_rate: float,
) -> torch.Tensor:
    # Blocks take the place of rows, and rows and heads that of heads: a mask is then shared by all.
    q_NXCK = _padded(q_XTK, 0, seen).unflatten(1, (seen.blocks, seen.block)).transpose(0, 1)
    k_NXJK, v_NXJK = (_neighbourhoods(each, seen) for each in (k_XTK, v_XTK))
    arange = functools.partial(torch.arange, device=q_XTK.device)
    visible_NCJ = torch.cat(seen.visible(arange), -1)
    hidden_NCJ = torch.zeros_like(visible_NCJ, dtype=q_XTK.dtype)
    hidden_NCJ.masked_fill_(~visible_NCJ, torch.finfo(q_XTK.dtype).min)
    mixed_NXCK = functional.scaled_dot_product_attention(
        q_NXCK, k_NXJK, v_NXJK, hidden_NCJ[:, None], dropout_p=dropout_rate, scale=scale
    )
    return mixed_NXCK.transpose(0, 1).flatten(1, 2)[:, : seen.length]


def _padded(values_XTK: torch.Tensor, before: int, seen: Window) -> torch.Tensor:
    """The values with so many blocks of 0 before them, and with the last block filled up."""
    return functional.pad(values_XTK, (0, 0, before * seen.block, seen.missing))


def _neighbourhoods(values_XTK: torch.Tensor, seen: Window) -> torch.Tensor:
    """What each block reads, its own values and then the global ones last: (N, X, J + G, K)."""
    padded = _padded(values_XTK, seen.before, seen)
    blocks = padded.unflatten(1, (-1, seen.block)).transpose(0, 1)
    parts = [blocks[start : start + seen.blocks] for start in range(seen.before + 1)]
    if seen.global_tokens:
        far_XGK = values_XTK[:, : seen.global_tokens]
        parts.append(far_XGK.expand(seen.blocks, -1, -1, -1))
    return torch.cat(parts, 2)

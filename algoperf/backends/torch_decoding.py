"""The `Decoder` of `algoperf.backends.generation` around a PyTorch encoder-decoder.

The module has `encode(source_BS)`, `empty_cache(rows, length)`, `step(token_N, position, cache,
sources)` and `logits_at(target_NT, position, sources)`, as workloads/parts/bart_torch.py.

Shapes: B sources, W beams of a source, N = B x W rows of a step, C candidates, S source tokens,
T generated tokens, V vocabulary.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from algoperf.backends.generation import Step

BLOCKS = 64  # of the logits; their maxima are looked at first


@dataclasses.dataclass
class Cache:
    """What a step needs of the steps before.

    Attributes:
        sources: What the encoder made of the sources.
        kept: The self-attention's keys and values of each layer, or, without a cache, all tokens,
            target_NT.
        writer_NT: Which row has written each position of a row: rows that descend from one another
            have the same up to where they part.
    """

    sources: Any
    kept: Any
    writer_NT: np.ndarray


class TorchDecoder:
    """A `Decoder`; `cached=False` runs the decoder over all tokens anew at every step."""

    def __init__(self, module: Any, *, cached: bool = True) -> None:
        self._module = module
        self._cached = cached
        self._device = next(module.parameters()).device

    @torch.no_grad()
    def start(self, source_BS: np.ndarray, beams: int, length: int) -> Cache:
        """Encode; see `Decoder`."""
        self._module.eval()
        sources = self._module.encode(self._placed(source_BS))
        rows = len(source_BS) * beams
        writer_NT = np.zeros((rows, length), np.int32)
        if self._cached:
            return Cache(sources, self._module.empty_cache(rows, length), writer_NT)
        kept = torch.zeros((rows, length), dtype=torch.int32, device=self._device)
        return Cache(sources, kept, writer_NT)

    def _placed(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    @torch.no_grad()
    def step(
        self,
        cache: Cache,
        position: int,
        token_N: np.ndarray,
        parent_N: np.ndarray | None,
        candidates: int,
    ) -> Step:
        """One token; see `Decoder`."""
        placed_N = self._placed(token_N)
        if parent_N is not None:
            self._reorder(cache, position, parent_N)
        cache.writer_NT[:, position] = np.arange(len(token_N))
        if self._cached:
            logits_NV = self._module.step(placed_N, position, cache.kept, cache.sources)
        else:
            cache.kept[:, position] = placed_N
            logits_NV = self._module.logits_at(cache.kept, position, cache.sources)
        logits_NV = logits_NV.float()  # NumPy has no bfloat16
        if candidates == 1:
            return cache, None, _top(logits_NV, 1)[1].cpu().numpy()
        best_NC, token_NC = _top(logits_NV, candidates)
        log_prob_NC = best_NC - logits_NV.logsumexp(-1, keepdim=True)
        return cache, log_prob_NC.cpu().numpy(), token_NC.cpu().numpy()

    def _reorder(self, cache: Cache, position: int, parent_N: np.ndarray) -> None:
        """Let each row continue its parent. Only what differs is moved: the beams of a source have
        most of what they wrote from one ancestor, and to move all of it takes as long as a step.
        """
        before_NT = cache.writer_NT[:, :position]
        cache.writer_NT = cache.writer_NT[parent_N]
        differs_NT = cache.writer_NT[:, :position] != before_NT
        if not self._cached:
            cache.kept = cache.kept[self._placed(parent_N)]
            return
        moved_M = np.flatnonzero(differs_NT.any(1))
        if not moved_M.size:
            return
        first = int(differs_NT.any(0).argmax())
        to_M, from_M = self._placed(moved_M), self._placed(parent_N[moved_M])
        for layer in cache.kept:
            for whole_NHTK in layer:
                whole_NHTK[to_M, :, first:position] = whole_NHTK[from_M, :, first:position]


def _top(logits_NV: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As torch.topk, but over the blocks of the best maxima alone (a third of the time)."""
    size = logits_NV.shape[1]
    padded_NX = functional.pad(logits_NV, (0, -size % BLOCKS), value=-torch.inf)
    block_NXY = padded_NX.unflatten(1, (-1, BLOCKS))  # every BLOCKS-th token is of one block
    block_N1C = block_NXY.amax(1).topk(min(count, BLOCKS)).indices[:, None]
    inside_NXC = block_NXY.gather(2, block_N1C.expand(-1, block_NXY.shape[1], -1))
    best_NC, index_NC = inside_NXC.flatten(1).topk(min(count, size))
    block_NC = block_N1C[:, 0].gather(1, index_NC % block_N1C.shape[2])
    return best_NC, index_NC // block_N1C.shape[2] * BLOCKS + block_NC

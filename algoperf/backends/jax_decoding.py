"""The `Decoder` of `algoperf.backends.generation` around a flax encoder-decoder.

The model has the methods `encode(source_BS)`, `empty_cache(rows, length)`, `step(token_N, position,
cache, sources)` and `logits_at(target_NT, position, sources)`, as workloads/parts/bart_jax.py. A
step is compiled once for a batch size, source length, limit and number of beams; the position is
traced.

Shapes: B sources, W beams of a source, N = B x W rows of a step, C candidates, S source tokens,
T generated tokens, V vocabulary.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from algoperf.backends.generation import Step

BLOCK = 64  # logits whose maximum is looked at first


@functools.partial(jax.jit, static_argnames=("model", "beams", "length", "cached"))
def _start(
    model: nn.Module, params: Any, source_BS: jax.Array, *, beams: int, length: int, cached: bool
) -> tuple[Any, Any]:
    sources = model.apply({"params": params}, source_BS, method="encode")
    rows = len(source_BS) * beams
    if cached:
        dtype = jax.tree.leaves(params)[0].dtype  # of the run's precision, as what is put into it
        empty = model.empty_cache(rows, length)
        return sources, jax.tree.map(lambda leaf: leaf.astype(dtype), empty)
    return sources, jnp.zeros((rows, length), jnp.int32)


@functools.partial(
    jax.jit, static_argnames=("model", "candidates", "cached"), donate_argnames="kept"
)
def _step(
    model: nn.Module,
    params: Any,
    sources: Any,
    kept: Any,
    position: jax.Array,
    token_N: jax.Array,
    parent_N: jax.Array | None,
    *,
    candidates: int,
    cached: bool,
) -> tuple[Any, jax.Array | None, jax.Array]:
    if parent_N is not None:
        kept = jax.tree.map(lambda whole: whole[parent_N], kept)
    variables = {"params": params}
    if cached:
        logits_NV, kept = model.apply(variables, token_N, position, kept, sources, method="step")
    else:
        kept = kept.at[:, position].set(token_N)
        logits_NV = model.apply(variables, kept, position, sources, method="logits_at")
    logits_NV = logits_NV.astype(jnp.float32)
    best_NC, token_NC = _top(logits_NV, candidates)
    if candidates == 1:
        return kept, None, token_NC
    return kept, best_NC - jax.nn.logsumexp(logits_NV, -1, keepdims=True), token_NC


def _top(logits_NV: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """As jax.lax.top_k, but over the blocks of the best maxima alone (a third of the time)."""
    rows, size = logits_NV.shape
    padding = ((0, 0), (0, -size % BLOCK))
    blocks_NXY = jnp.pad(logits_NV, padding, constant_values=-jnp.inf).reshape(rows, -1, BLOCK)
    _, block_NC = jax.lax.top_k(blocks_NXY.max(-1), min(count, blocks_NXY.shape[1]))
    block_NC = jnp.sort(block_NC)  # so that of equal logits the first token wins
    inside_NX = jnp.take_along_axis(blocks_NXY, block_NC[:, :, None], 1).reshape(rows, -1)
    best_NC, index_NC = jax.lax.top_k(inside_NX, min(count, size))
    block_NC = jnp.take_along_axis(block_NC, index_NC // BLOCK, 1)
    return best_NC, block_NC * BLOCK + index_NC % BLOCK


class JaxDecoder:
    """A `Decoder`; `cached=False` runs the decoder over all tokens anew at every step.

    Equal models share what is compiled, so making a decoder for every evaluation costs nothing.
    """

    def __init__(self, model: nn.Module, params: Any, *, cached: bool = True) -> None:
        self._model = model
        self._params = params
        self._cached = cached

    def start(self, source_BS: np.ndarray, beams: int, length: int) -> Any:
        """Encode; see `Decoder`."""
        return _start(
            self._model, self._params, source_BS, beams=beams, length=length, cached=self._cached
        )

    def step(
        self,
        cache: Any,
        position: int,
        token_N: np.ndarray,
        parent_N: np.ndarray | None,
        candidates: int,
    ) -> Step:
        """One token; see `Decoder`."""
        sources, kept = cache
        kept, log_prob_NC, token_NC = _step(
            self._model,
            self._params,
            sources,
            kept,
            np.int32(position),
            token_N,
            parent_N,
            candidates=candidates,
            cached=self._cached,
        )
        return (sources, kept), *jax.device_get((log_prob_NC, token_NC))

"""A run's precision, loss scaling and activation checkpointing (`algoperf.backends.computation`) in
JAX, and buffers that a step may donate.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from algoperf.backends.computation import is_block

TYPES = {"float32": jnp.float32, "bf16": jnp.bfloat16, "fp16": jnp.float16}
FIRST_SCALE, GROWTH, BACKOFF, GROWTH_STEPS = 2.0**16, 2.0, 0.5, 2000


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with its arrays of floating point in that type; others stay."""

    def convert(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(convert, tree)


def checkpointed_blocks() -> contextlib.AbstractContextManager[None]:
    """Within it, a model's blocks compute their activations anew in the backward pass."""
    running: set[tuple[str, ...]] = set()

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = context.module.path
        inner = context.method_name != "__call__" or path in running
        if inner or not path or not is_block(path[-1]):
            return call(*args, **kwargs)
        leaves, structure = jax.tree.flatten((args, kwargs))
        traced = [isinstance(leaf, jax.Array | nn.Module) for leaf in leaves]

        def block(module: nn.Module, *given: Any) -> Any:
            arrays = iter(given)
            whole = [
                next(arrays) if is_traced else leaf
                for leaf, is_traced in zip(leaves, traced, strict=True)
            ]
            args, kwargs = jax.tree.unflatten(structure, whole)
            running.add(path)
            try:
                return module(*args, **kwargs)
            finally:
                running.discard(path)

        given = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
        return nn.remat(block)(context.module, *given)

    return nn.intercept_methods(intercept)


class LossScale(NamedTuple):
    """The factor of the loss whose gradients float16 can hold, and for how many steps it did.

    The rule and its constants are those of torch.amp.GradScaler: half the scale and no update where
    a gradient is not finite, twice the scale after 2000 updates.
    """

    scale: jax.Array
    updates: jax.Array

    def next(self, finite: jax.Array) -> "LossScale":
        """The scale of the step after one whose gradients were finite or not."""
        updates = jnp.where(finite, self.updates + 1, 0)
        grows = updates == GROWTH_STEPS
        scale = jnp.where(finite, self.scale * jnp.where(grows, GROWTH, 1.0), self.scale * BACKOFF)
        return LossScale(scale, jnp.where(grows, 0, updates))


def first_loss_scale() -> LossScale:
    """The scale of the first step."""
    return LossScale(jnp.float32(FIRST_SCALE), jnp.int32(0))


def all_finite(tree: Any) -> jax.Array:
    """Whether no value of the tree is NaN or infinite."""
    return functools.reduce(
        jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    )


def choose(condition: jax.Array, then: Any, otherwise: Any) -> Any:
    """One of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), then, otherwise)


def unshared(tree: Any, *others: Any) -> Any:
    """The tree with a copy of each array whose memory another one of it or of `others` uses.

    A step that donates all of them may be given each buffer once only. Optimizers often keep the
    first parameters, or an average that starts as them.
    """
    taken = {pointer for leaf in jax.tree.leaves(others) for pointer in _pointers(leaf)}

    def own(leaf: Any) -> Any:
        pointers = _pointers(leaf)
        copied = jnp.copy(leaf) if not taken.isdisjoint(pointers) else leaf
        taken.update(pointers)
        return copied

    return jax.tree.map(own, tree)


def _pointers(leaf: Any) -> set[int]:
    """Where the memory of an array begins on each of its devices; nothing for other leaves."""
    if not isinstance(leaf, jax.Array) or leaf.is_deleted():
        return set()
    return {shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards}

"""Random states by the names of AlgoPerf's `random_utils`: JAX's keys as they are, and for PyTorch
pairs of unsigned 32-bit integers that are derived alike.
"""

import sys
from typing import Any

import numpy as np

from algoperf.spec import RandomState

Pair = tuple[int, int]


def PRNGKey(seed: int) -> RandomState:  # noqa: N802 (AlgoPerf's name)
    """A random state from a seed: a raw key where JAX is in use, else a pair."""
    if "jax" in sys.modules:
        return np.array(divmod(int(seed) % 2**64, 2**32), np.uint32)
    return divmod(int(seed) % 2**64, 2**32)


def split(rng: RandomState, num: int = 2) -> Any:
    """`num` random states derived from one; of JAX keys an array of keys, else a list of pairs."""
    if _is_pair(rng):
        return [_derive(rng, index + 1, num) for index in range(num)]
    return sys.modules["jax"].random.split(rng, num)


def fold_in(rng: RandomState, data: int) -> Any:
    """A random state derived from one and a number."""
    if _is_pair(rng):
        return _derive(rng, int(data) % 2**32, 0)
    return sys.modules["jax"].random.fold_in(rng, data)


def _is_pair(rng: RandomState) -> bool:
    return isinstance(rng, tuple | list)


def _derive(rng: Pair, *numbers: int) -> Pair:
    words = np.random.SeedSequence([*map(int, rng), *numbers]).generate_state(2)
    return int(words[0]), int(words[1])

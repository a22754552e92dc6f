"""Random states under the names of AlgoPerf's `random_utils`.

In JAX they are JAX's own keys. In PyTorch they are pairs of unsigned 32-bit integers, with
functions to derive new ones in the same way.
"""

import sys
from typing import Any

import numpy as np

from algoperf.spec import RandomState

Pair = tuple[int, int]


def PRNGKey(seed: int) -> RandomState:  # noqa: N802 (AlgoPerf's name)
    """Return the random state for a seed.

    Args:
        seed: Any integer; it counts modulo 2**64.

    Returns:
        A raw JAX key (two unsigned 32-bit integers in an array) where JAX is loaded, else a pair.
    """
    if "jax" in sys.modules:
        return np.array(divmod(int(seed) % 2**64, 2**32), np.uint32)
    return divmod(int(seed) % 2**64, 2**32)


def split(rng: RandomState, num: int = 2) -> Any:
    """Return several new random states derived from one.

    Args:
        rng: A JAX key or a pair.
        num: How many to derive.

    Returns:
        An array of `num` keys for a JAX key, a list of `num` pairs for a pair.
    """
    if _is_pair(rng):
        return [_derive(rng, index + 1, num) for index in range(num)]
    return sys.modules["jax"].random.split(rng, num)


def fold_in(rng: RandomState, data: int) -> Any:
    """Return a new random state derived from one and a number.

    Args:
        rng: A JAX key or a pair.
        data: The number; for a pair it counts modulo 2**32.
    """
    if _is_pair(rng):
        return _derive(rng, int(data) % 2**32, 0)
    return sys.modules["jax"].random.fold_in(rng, data)


def _is_pair(rng: RandomState) -> bool:
    return isinstance(rng, tuple | list)


def _derive(rng: Pair, *numbers: int) -> Pair:
    words = np.random.SeedSequence([*map(int, rng), *numbers]).generate_state(2)
    return int(words[0]), int(words[1])

"""Random streams by counting: every stream is a function of (seed, purpose, position).

Nothing here keeps state, so a run can be taken up at any step, and both frameworks draw from the
same numbers. A stream's element is a pair of unsigned 32-bit integers, which is a raw JAX key and
what the benchmark's PyTorch submissions receive as `rng`.
"""

import numpy as np

Pair = tuple[int, int]
INIT, OPTIMIZER, DATA_SELECTION, UPDATE, PREPARE_FOR_EVAL = range(5)
_MASK = (1 << 64) - 1


def trial_seed(seed: int, study: int, trial: int) -> int:
    """A 63-bit seed of its own for every trial; 0 is a seed like any other."""
    words = np.random.SeedSequence([seed, study, trial]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def pair(seed: int, purpose: int, position: int = 0) -> Pair:
    """Element `position` of the stream for `purpose`: the SplitMix64 finaliser twice over the
    inputs.

    Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators".
    """
    word = _mix(
        _mix(seed + 0x9E3779B97F4A7C15 * (purpose + 1)) + 0x9E3779B97F4A7C15 * (position + 1)
    )
    return word >> 32, word & 0xFFFFFFFF


def _mix(word: int) -> int:
    word &= _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)

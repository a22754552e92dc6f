"""Random streams by counting: each is a function of a seed, a purpose and a position.

Nothing here keeps state, so a trial can be resumed at any step, and both frameworks draw from the
same numbers. An element of a stream is a pair of unsigned 32-bit integers. Such a pair is a raw
JAX key, and it is what the benchmark's PyTorch submissions receive as `rng`.
"""

import numpy as np

Pair = tuple[int, int]
INIT, OPTIMIZER, DATA_SELECTION, UPDATE, PREPARE_FOR_EVAL = range(5)
_MASK = (1 << 64) - 1


def trial_seed(seed: int, study: int, trial: int) -> int:
    """Return the 63-bit seed of one trial.

    Args:
        seed: The seed of the run; 0 is a seed like any other.
        study: The study's number.
        trial: The trial's number.
    """
    words = np.random.SeedSequence([seed, study, trial]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def pair(seed: int, purpose: int, position: int = 0) -> Pair:
    """Return one element of a random stream.

    It applies the finaliser of SplitMix64 twice (Steele, Lea, Flood 2014, "Fast splittable
    pseudorandom number generators").

    Args:
        seed: The seed of the trial.
        purpose: The stream: one of `INIT`, `OPTIMIZER`, `DATA_SELECTION`, `UPDATE` and
            `PREPARE_FOR_EVAL`.
        position: The position in the stream, such as the step.
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

"""Built-in clicks: from latent factors, with a few popular categories and many rare ones.

Whether an advertisement is clicked depends on each of its categories and counts a little, and more
on how the factors of certain pairs of columns agree; a factor's sign is random, so that no column
alone tells of it. Which categories are popular, and how much pairs matter, change with the season;
validation and test come after training, as in Criteo's logs. Every row is clicked with a
probability that is known, and so is the least loss that any model can have.

Everything is sums, products, quotients and comparisons of float64 numbers, which IEEE 754 rounds
alike everywhere, from NumPy's own random bits; so the rows are the same bytes on every machine.

Legend: N rows, C columns of categories, I columns of counts, K factors.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats.criteo_columns import CATEGORIES, COUNTS, NO_CATEGORY, NO_COUNT, Parsed
from algoperf.data.validation_seed import seed_words

ROWS = {"train": 240_000, "validation": 20_000, "test": 20_000}
STARTS = {"train": 0.0, "validation": 2.0, "test": 2.1}  # in seasons
SEASONS = {"train": 2.0, "validation": 0.1, "test": 0.1}
# How many categories a column has; pairs of neighbours among the first sixteen interact.
VOCABULARY = [12, 15, 20, 25, 30, 40, 50, 60, 12, 15, 20, 25, 30, 40, 50, 60]
VOCABULARY += [4, 8, 100, 200, 300, 500, 800, 1_000, 1_500, 2_000]
PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13), (14, 15)]
FACTORS = 2
PAIR_STRENGTH, SINGLE_STRENGTH, COUNT_STRENGTH = 1.5, 0.35, 0.25
BIAS = -0.9
DRIFT = 0.3  # of a column's categories that a season moves past
EMPTY_COUNT, EMPTY_CATEGORY = 0.15, 0.03
Floats = NDArray[np.float64]


class Clicks(NamedTuple):
    """The rows of a split.

    Attributes:
        columns: The label, the counts and the categories, as files have them.
        probability_N: That a row is clicked; no model sees it.
    """

    columns: Parsed
    probability_N: Floats


def generate(split: str, seed: int, validation_seed: int | None = None) -> Clicks:
    """Return the rows of a split, in the order of time.

    Args:
        split: 'train', 'validation' or 'test', which have different rows.
        seed: The seed of the rows, and of the model that they follow.
        validation_seed: The seed of other rows than the usual ones for validation and test; None
            for the usual ones. The model is the same.
    """
    N = ROWS[split]
    secret = seed_words(split, validation_seed)
    model = _generator([seed, 0])
    drawn = _generator([seed, 1 + list(ROWS).index(split), *secret])
    season_N = STARTS[split] + SEASONS[split] * np.arange(N) / N
    phase_N = season_N - np.floor(season_N)
    wave_N = np.where(phase_N < 0.5, 4 * phase_N - 1, 3 - 4 * phase_N)  # from -1 to 1 and back

    categories_CN = np.empty((CATEGORIES, N), np.uint64)
    factors: list[list[Floats]] = []
    score_N = BIAS + 0.2 * wave_N
    for column, size in enumerate(VOCABULARY):
        weights = model.uniform(-1, 1, size)
        factors.append([_signed(model, size) for _ in range(FACTORS)])
        names = model.integers(0, 2**32, size, dtype=np.uint64)
        uniform_N = drawn.random(N)
        popular_N = (uniform_N * uniform_N * size).astype(np.int64)  # low numbers are frequent
        moved_N = (wave_N * (DRIFT * size)).astype(np.int64)
        number_N = (popular_N + moved_N) % size
        is_empty_N = drawn.random(N) < EMPTY_CATEGORY
        score_N = score_N + SINGLE_STRENGTH * np.where(is_empty_N, 0, weights[number_N])
        for factor in range(FACTORS):
            factors[column][factor] = np.where(is_empty_N, 0, factors[column][factor][number_N])
        categories_CN[column] = np.where(is_empty_N, NO_CATEGORY, names[number_N])
    for pair, (one, other) in enumerate(PAIRS):
        season = 1 + 0.3 * wave_N if pair % 2 else 1 - 0.3 * wave_N
        agreement_N = factors[one][0] * factors[other][0]
        for factor in range(1, FACTORS):
            agreement_N = agreement_N + factors[one][factor] * factors[other][factor]
        score_N = score_N + PAIR_STRENGTH / FACTORS * season * agreement_N
    counts_NI = np.empty((N, COUNTS), np.int32)
    for column in range(COUNTS):
        middle, weight = float(model.integers(2, 200)), float(model.uniform(-1, 1))
        uniform_N = drawn.random(N)
        count_N = (middle * uniform_N / (1.001 - uniform_N)).astype(np.int64)
        is_empty_N = drawn.random(N) < EMPTY_COUNT
        effect_N = count_N / (count_N + middle) - 0.5
        score_N = score_N + 2 * COUNT_STRENGTH * weight * np.where(is_empty_N, 0, effect_N)
        counts_NI[:, column] = np.where(is_empty_N, NO_COUNT, count_N)
    probability_N = 0.5 + 0.5 * score_N / (1 + np.abs(score_N))
    labels_N = (drawn.random(N) < probability_N).astype(np.int8)
    columns = {"labels": labels_N, "counts": counts_NI, "categories": categories_CN}
    return Clicks(columns, probability_N)


def _signed(generator: np.random.Generator, size: int) -> Floats:
    """Numbers from 1/2 to 1 with a random sign."""
    signs = 2 * generator.integers(0, 2, size) - 1
    numbers: Floats = signs * generator.uniform(0.5, 1, size)
    return numbers


def _generator(seed: list[int]) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

"""ROUGE-1, -2, -L and -Lsum (Lin 2004), equal to the package rouge_score to the last digit, faster.

Its rules: lower case; what is not a letter a-z or a digit separates words; with `stem`, words of
more than three characters lose their suffixes (Porter's stemmer). ROUGE-n counts common n-grams,
ROUGE-L the longest common subsequence (LCS) of all words, ROUGE-Lsum the union of the LCSs of each
reference line with every line of the prediction, no word more often than the prediction has it.

The LCS is computed a word of the prediction at a time on a bit for each word of the reference
(Hyyrö 2004, "Bit-parallel LCS-length computation revisited"), on Python's integers of any length.

Legend: N rows (pairs of texts).
"""

import functools
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from algoperf.workload.metric import TextBatch

names = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Line = list[int]  # ids of words
_WORDS = re.compile("[a-z0-9]+")
_MOST_WORDS = 1_000_000  # kept by the cache of a process


class Rouge:
    """The mean F1 of one of `names` over the rows that are judged.

    The mean is taken of all rows in their order, so that it does not depend on the batches.
    """

    def __init__(self, name: str, rows: int) -> None:
        self._name = name
        self.values_N = np.zeros(rows)

    def add(self, batch: TextBatch) -> None:
        """Count some rows."""
        scores = _scores_of_all(tuple(batch.predictions), tuple(batch.references))
        self.values_N[batch.positions] = scores[self._name]

    def finish(self) -> float:
        """Return the mean, in [0, 1]."""
        return float(self.values_N.mean())


TEXT_METRICS = {name: functools.partial(Rouge, name) for name in names}


def score(
    predictions: Sequence[str], references: Sequence[str], stem: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Return the F1 of every row, (N,) in [0, 1], by name."""
    measured = precision_recall_f1(predictions, references, stem)
    return {name: values_N3[:, 2] for name, values_N3 in measured.items()}


# The four accumulators of an evaluation get the same batch one after the other.
@functools.lru_cache(maxsize=1)
def _scores_of_all(
    predictions: tuple[str, ...], references: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    return score(predictions, references)


def precision_recall_f1(
    predictions: Sequence[str], references: Sequence[str], stem: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Return precision, recall and F1 of every row, (N, 3), by name."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, but {len(references)} references")
    ids = _word_ids(stem)
    predicted = [_lines(text, ids) for text in predictions]
    expected = [_lines(text, ids) for text in references]
    if len(ids) > _MOST_WORDS:
        _word_ids.cache_clear()
    words_predicted, words_expected = _joined(predicted), _joined(expected)
    hits: dict[str, list[int]] = {name: [] for name in names}
    for row, (prediction, reference) in enumerate(
        zip(words_predicted, words_expected, strict=True)
    ):
        common = lcs_length(reference, prediction)
        one_line = len(predicted[row]) <= 1 and len(expected[row]) <= 1
        hits["rouge1"].append(_common(prediction, reference))
        hits["rouge2"].append(_common(_pairs(prediction), _pairs(reference)))
        hits["rougeL"].append(common)
        hits["rougeLsum"].append(common if one_line else _union(predicted[row], expected[row]))
    sizes_2N = np.array(
        [[len(words) for words in side] for side in (words_predicted, words_expected)]
    )
    return {
        name: _rates(np.array(counts), *np.maximum(sizes_2N - (name == "rouge2"), 0))
        for name, counts in hits.items()
    }


def _rates(
    hits_N: NDArray[np.int64], predicted_N: NDArray[np.int64], expected_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N, 3): precision, recall, and F1 in the order of operations that the package has."""
    precision_N = hits_N / np.maximum(predicted_N, 1)
    recall_N = hits_N / np.maximum(expected_N, 1)
    total_N = precision_N + recall_N
    f1_N = 2 * precision_N * recall_N / np.where(total_N > 0, total_N, 1.0)
    return np.stack([precision_N, recall_N, f1_N], axis=1)


class _WordIds(dict[str, int]):
    """Ids of words, given at first sight; words with the same stem share one."""

    def __init__(self, stem: bool) -> None:
        self._ids: dict[str, int] = {}
        self._tokenize = None
        if stem:
            from rouge_score.tokenizers import DefaultTokenizer

            self._tokenize = DefaultTokenizer(use_stemmer=True).tokenize

    def __missing__(self, word: str) -> int:
        (token,) = (word,) if self._tokenize is None else self._tokenize(word)
        self[word] = self._ids.setdefault(token, len(self._ids))
        return self[word]


@functools.cache
def _word_ids(stem: bool) -> _WordIds:
    return _WordIds(stem)


def _lines(text: str, ids: _WordIds) -> list[Line]:
    """The words of each line that has any."""
    lines = [list(map(ids.__getitem__, _WORDS.findall(line))) for line in text.lower().split("\n")]
    return [line for line in lines if line]


def _joined(rows: list[list[Line]]) -> list[Line]:
    return [
        lines[0] if len(lines) == 1 else [word for line in lines for word in line] for lines in rows
    ]


def _pairs(words: Line) -> list[tuple[int, int]]:
    return list(itertools.pairwise(words))


def _common(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The size of the intersection of two multisets."""
    counts = Counter(first)
    return sum(
        min(counts[item], count) for item, count in Counter(second).items() if item in counts
    )


def _places(words: Line) -> dict[int, int]:
    """For each word the bits of the places where it stands."""
    places: dict[int, int] = defaultdict(int)
    for position, word in enumerate(words):
        places[word] |= 1 << position
    return places


def lcs_length(first: Line, second: Line) -> int:
    """The length of the longest common subsequence."""
    places, full = _places(first), (1 << len(first)) - 1
    # A zero at bit i: the LCS of first[: i + 1] is longer than that of first[:i]. Bits beyond the
    # full ones are carries; nothing flows down from them.
    flat = full
    for word in second:
        if word in places:
            matched = flat & places[word]
            flat = (flat + matched) | (flat - matched)
    return len(first) - (flat & full).bit_count()


def _lcs_places(places: dict[int, int], length: int, words: Line) -> int:
    """The bits of one longest common subsequence: the one that rouge_score's table leads to.

    Its way back from the end of both texts: where words match, take them; else leave a word of
    `words` if the reference's last word lengthens the LCS (a zero of `flat`), else leave that.
    """
    full = (1 << length) - 1
    flats = [full]
    for word in words:
        matched = flats[-1] & places.get(word, 0)
        flats.append(((flats[-1] + matched) | (flats[-1] - matched)) & full)
    chosen = 0
    left = full  # the bits of the reference's words not yet passed
    for word, flat in zip(reversed(words), reversed(flats), strict=False):
        matches = places.get(word, 0)
        stops = (matches | ~flat) & left
        if not stops:
            break
        stop = 1 << (stops.bit_length() - 1)
        if matches & stop:
            chosen |= stop
            left = stop - 1
        else:
            left = 2 * stop - 1
    return chosen


def _union(prediction: list[Line], reference: list[Line]) -> int:
    """How many words the union of the lines' LCSs has, none more often than the prediction."""
    matched: list[int] = []
    for line in reference:
        places, chosen = _places(line), 0
        for other in prediction:
            chosen |= _lcs_places(places, len(line), other)
        matched += [word for position, word in enumerate(line) if chosen >> position & 1]
    return _common([word for line in prediction for word in line], matched)

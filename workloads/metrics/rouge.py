"""ROUGE-1, -2, -L and -Lsum (Lin 2004), equal to the package rouge_score to the last digit, faster.

Its rules: lower case; what is not a letter a-z or a digit separates words; with `stem`, words of
more than three characters lose their suffixes (Porter's stemmer). ROUGE-n counts common n-grams,
ROUGE-L the longest common subsequence (LCS) of all words, ROUGE-Lsum the union of the LCSs of each
reference line with every line of the prediction, no word more often than the prediction has it.

So a text in another script has no word and scores 0, silently. The metrics whose names end in
`_unicode` count words of any script, and are the same on ASCII text.

The LCS is computed a word of the prediction at a time on a bit for each word of the reference
(Hyyrö 2004, "Bit-parallel LCS-length computation revisited"), on Python's integers of any length.

Legend: N rows (pairs of texts).
"""

import dataclasses
import functools
import itertools
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from algoperf.workload.metric import TextBatch

names = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Line = list[int]  # ids of words
_WORDS = re.compile("[a-z0-9]+")
_MOST_WORDS = 1_000_000  # kept by the cache of a process
UNICODE = "unicode"  # the tokenizer that knows words of any script; None is rouge_score's
# Scripts written without spaces, of which each character counts as a word: Thai, Lao, Burmese,
# Khmer; Japanese kana and the signs beside them; Chinese characters, those beyond 16 bits too.
_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Fewer words of other scripts than this share, as names in English news, are no remark.
_REMARKABLE = 0.1


class Rouge:
    """The mean F1 of one of `names` over the rows that are judged.

    The mean is taken of all rows in their order, so that it does not depend on the batches.
    """

    def __init__(self, name: str, rows: int, tokenizer: str | None = None) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self.values_N = np.zeros(rows)

    def add(self, batch: TextBatch) -> None:
        """Count some rows."""
        texts = tuple(batch.predictions), tuple(batch.references)
        scores = _scores_of_all(*texts, self._tokenizer)
        self.values_N[batch.positions] = scores[self._name]

    def finish(self) -> float:
        """Return the mean, in [0, 1]."""
        return float(self.values_N.mean())


@dataclasses.dataclass(frozen=True)
class Start:
    """What starts one of the metrics; `remark` says what a user should know of the references."""

    name: str
    tokenizer: str | None
    remark: Callable[[Sequence[str]], str]

    def __call__(self, rows: int) -> Rouge:
        """Return the accumulator for so many rows."""
        return Rouge(self.name, rows, self.tokenizer)


def remark(references: Sequence[str]) -> str:
    """Return a line about references whose words rouge_score does not see; '' if it sees them."""
    silent, words, unseen = 0, 0, 0
    for text in references:
        own = _unicode_words(text)
        missed = 0 if text.isascii() else sum(_WORDS.search(word) is None for word in own)
        silent += 0 < len(own) == missed
        words += len(own)
        unseen += missed
    if not silent and unseen <= _REMARKABLE * words:
        return ""
    return (
        "ROUGE counts words of a-z and 0-9 alone, as rouge-score does: "
        f"{silent / len(references):.1%} of the reference texts have none and score 0, "
        f"{unseen / words:.1%} of all their words do not count; --rouge-tokenizer unicode counts "
        "words of any script"
    )


TEXT_METRICS = {name: Start(name, None, remark) for name in names} | {
    f"{name}_{UNICODE}": Start(name, UNICODE, lambda references: "") for name in names
}


def score(
    predictions: Sequence[str],
    references: Sequence[str],
    stem: bool = True,
    tokenizer: str | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the F1 of every row, (N,) in [0, 1], by name."""
    measured = precision_recall_f1(predictions, references, stem, tokenizer)
    return {name: values_N3[:, 2] for name, values_N3 in measured.items()}


# The four accumulators of an evaluation get the same batch one after the other.
@functools.lru_cache(maxsize=1)
def _scores_of_all(
    predictions: tuple[str, ...], references: tuple[str, ...], tokenizer: str | None
) -> dict[str, NDArray[np.float64]]:
    return score(predictions, references, tokenizer=tokenizer)


def precision_recall_f1(
    predictions: Sequence[str],
    references: Sequence[str],
    stem: bool = True,
    tokenizer: str | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return precision, recall and F1 of every row, (N, 3), by name.

    Args:
        predictions: The texts that are judged, (N,).
        references: What they should be, (N,).
        stem: Whether forms of an English word count as the same.
        tokenizer: What words are: None as rouge_score has them, or `UNICODE`.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, but {len(references)} references")
    ids = _word_ids(stem)
    find = _words(tokenizer)
    predicted = [_lines(text, ids, find) for text in predictions]
    expected = [_lines(text, ids, find) for text in references]
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
        stems = self._tokenize if word.isascii() else None
        (token,) = (word,) if stems is None else stems(word)
        self[word] = self._ids.setdefault(token, len(self._ids))
        return self[word]


@functools.cache
def _word_ids(stem: bool) -> _WordIds:
    return _WordIds(stem)


def _words(tokenizer: str | None) -> Callable[[str], list[str]]:
    """What finds the words of a line."""
    return _ascii_words if tokenizer is None else _unicode_words


def _ascii_words(line: str) -> list[str]:
    return _WORDS.findall(line.lower())


def _unicode_words(line: str) -> list[str]:
    if line.isascii():
        return _ascii_words(line)
    return _unicode_pattern().findall(unicodedata.normalize("NFKC", line).lower())


@functools.cache
def _unicode_pattern() -> re.Pattern[str]:
    """Runs of letters, marks and numbers; of scripts without spaces, one character and its marks.

    Python's `\\w` has no marks: it would cut words of Devanagari at each vowel.
    """
    characters, marks = (_ranges(kinds) for kinds in ("LMN", "M"))
    alone = f"[{_WITHOUT_SPACES}](?<=[{characters}])[{marks}]*"
    return re.compile(f"{alone}|(?:(?![{_WITHOUT_SPACES}])[{characters}])+")


def _ranges(kinds: str) -> str:
    """The inside of a character class: all whose general category begins with one of `kinds`."""
    member = [unicodedata.category(chr(code))[0] in kinds for code in range(sys.maxunicode + 1)]
    edges = np.flatnonzero(np.diff(np.array([False, *member, False]).astype(np.int8)))
    return "".join(
        f"{re.escape(chr(first))}-{re.escape(chr(after - 1))}"
        for first, after in edges.reshape(-1, 2).tolist()
    )


def _lines(text: str, ids: _WordIds, find: Callable[[str], list[str]]) -> list[Line]:
    """The words of each line that has any."""
    lines = [list(map(ids.__getitem__, find(line))) for line in text.split("\n")]
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

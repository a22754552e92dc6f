"""Rows that occur twice: equal, equal but for case, punctuation and spaces, or similar.

Two texts are similar if the Jaccard similarity of their sets of word 5-grams, after `normalise`, is
at least `SIMILAR`. Candidates are found by MinHash (Broder 1997) with bands (Leskovec et al.,
"Mining of Massive Datasets", chapter 3), and each is checked on the sets themselves. So no pair is
counted wrongly, and a pair of exactly that similarity is missed with probability
(1 - SIMILAR ** (VALUES / BANDS)) ** BANDS, 2 in 10,000; more similar pairs more seldom still.

Legend: N texts, W words, G 5-grams, K values of a signature, P pairs.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from algoperf.data.order import spread_bits

NGRAM_WORDS = 5  # a shorter text is one n-gram
SIMILAR = 0.8
VALUES, BANDS = 64, 16
LEVELS = ("exact", "normalised", "similar")

_PUNCTUATION = re.compile(r"[^\w\s]|_")
_LEADERS = 8  # of a bucket and split: those that the bucket's others are compared with
_SURELY_LESS = SIMILAR - 4 * (SIMILAR * (1 - SIMILAR) / VALUES) ** 0.5  # four standard errors
_CHUNK_ROWS = 2000
_CHUNK_PAIRS = 200_000
Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def normalise(text: str) -> str:
    """Lower case, without punctuation, single spaces; a text of punctuation alone stays as it is.

    Punctuation is removed, not replaced: "don't" becomes "dont".
    """
    words = _PUNCTUATION.sub("", text.lower()).split()
    return " ".join(words or text.split())


def count(texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, dict[str, int]]]:
    """Return {"within": {split: counts}, "across": {"train/test": counts}}; see `LEVELS`.

    Within a split a row counts if an earlier row of it is the same; across splits a row of the
    second counts if the first has the same. Each level includes the one before it.
    """
    exact = _groups([text for split in texts for text in texts[split]])
    keys = [normalise(text) for split in texts for text in texts[split]]
    normalised = _groups(keys)
    splits = np.repeat(np.arange(len(texts)), [len(texts[split]) for split in texts])
    distinct = [""] * (int(normalised.max(initial=-1)) + 1)
    for group, key in zip(normalised.tolist(), keys, strict=True):
        distinct[group] = key
    firsts = {
        "exact": _first_rows(exact, splits, len(texts)),
        "normalised": _first_rows(normalised, splits, len(texts)),
    }
    alike = firsts["normalised"].copy()
    pairs = similar_pairs(distinct, firsts["normalised"] < len(keys))
    for split, firsts_of in enumerate(firsts["normalised"]):
        for first, second in (pairs.T, pairs.T[::-1]):
            np.minimum.at(alike[split], first, firsts_of[second])
    firsts["similar"] = alike
    groups = {"exact": exact, "normalised": normalised, "similar": normalised}
    return _tally(list(texts), splits, {level: firsts[level][:, groups[level]] for level in LEVELS})


def count_arrays(rows: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, int]]]:
    """The same for rows that are arrays, of which only equal ones count."""
    groups = _groups([row.tobytes() for split in rows for row in np.ascontiguousarray(rows[split])])
    splits = np.repeat(np.arange(len(rows)), [len(rows[split]) for split in rows])
    firsts = _first_rows(groups, splits, len(rows))
    return _tally(list(rows), splits, {"exact": firsts[:, groups]})


def _groups(keys: Sequence[str] | Sequence[bytes]) -> Ids:
    """A number for each row, from 0 by first appearance; equal keys share one."""
    numbers: dict[str | bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _first_rows(groups_N: Ids, splits_N: Ids, split_count: int) -> Ids:
    """(splits, groups): the first row of each group in each split, N where there is none."""
    firsts = np.full((split_count, int(groups_N.max(initial=-1)) + 1), len(groups_N), np.int64)
    np.minimum.at(firsts, (splits_N, groups_N), np.arange(len(groups_N)))
    return firsts


def _tally(
    names: list[str], splits_N: Ids, firsts: Mapping[str, Ids]
) -> dict[str, dict[str, dict[str, int]]]:
    """Count rows; `firsts` is (splits, N): the first row of each split that is the same as this."""
    rows = np.arange(len(splits_N))

    def counts(own: int, other: int) -> dict[str, int]:
        inside = splits_N == own
        before = rows if own == other else np.full(len(rows), len(rows))
        return {
            level: int((first_SN[other] < before)[inside].sum())
            for level, first_SN in firsts.items()
        }

    return {
        "within": {name: counts(split, split) for split, name in enumerate(names)},
        "across": {
            f"{other}/{name}": counts(split, names.index(other))
            for split, name in enumerate(names)
            for other in names[:split]
        },
    }


def similar_pairs(texts: Sequence[str], is_in: NDArray[np.bool_]) -> Ids:
    """The pairs of similar texts, (P, 2), of distinct normalised texts.

    `is_in`, (splits, N), says which splits have a text. Where many texts share a bucket, each is
    compared with the bucket's first few of every split: enough to tell whether it has its like
    there, since texts that are all alike are alike to the first ones too.
    """
    if not texts:
        return np.empty((0, 2), np.int64)
    numbers: dict[str, int] = defaultdict(lambda: len(numbers) + 1)
    signatures_NK = np.concatenate(
        [
            _signatures(*_ngrams(texts[start : start + _CHUNK_ROWS], numbers))
            for start in range(0, len(texts), _CHUNK_ROWS)
        ]
    )
    similar = [
        pairs[(signatures_NK[pairs[:, 0]] == signatures_NK[pairs[:, 1]]).mean(1) >= _SURELY_LESS]
        for pairs in _in_chunks(_candidates(signatures_NK, is_in))
    ]
    likely = np.concatenate([*similar, np.empty((0, 2), np.int64)])
    return likely[_are_similar(texts, likely, numbers)]


def _in_chunks(pairs: Ids) -> Iterator[Ids]:
    for start in range(0, len(pairs), _CHUNK_PAIRS):
        yield pairs[start : start + _CHUNK_PAIRS]


def _are_similar(texts: Sequence[str], pairs: Ids, numbers: dict[str, int]) -> NDArray[np.bool_]:
    """Whether the sets of 5-grams themselves are similar enough."""
    sets: dict[int, frozenset[int]] = {}
    for row in np.unique(pairs).tolist():
        sets[row] = frozenset(_ngrams([texts[row]], numbers)[0].tolist())
    similar = np.zeros(len(pairs), bool)
    for index, (first, second) in enumerate(pairs.tolist()):
        common = len(sets[first] & sets[second])
        union = len(sets[first]) + len(sets[second]) - common
        similar[index] = common >= SIMILAR * union
    return similar


def _ngrams(texts: Sequence[str], numbers: dict[str, int]) -> tuple[Hashes, Ids]:
    """(hashes of the 5-grams of all texts (G,), where each text's begin (N,)).

    A text of fewer words is filled up with 0, which is no word's number.
    """
    words = [[numbers[word] for word in text.split()] for text in texts]
    words = [row + [0] * (NGRAM_WORDS - len(row)) for row in words]
    lengths = np.array([len(row) for row in words])
    words_W = spread_bits(np.array([word for row in words for word in row], np.uint64))
    count = len(words_W) - NGRAM_WORDS + 1
    hashes_G = np.zeros(count, np.uint64)
    for offset in range(NGRAM_WORDS):
        hashes_G = hashes_G * np.uint64(0x9E3779B97F4A7C15) + words_W[offset : offset + count]
    ends = np.cumsum(lengths)
    row_ends_W = np.repeat(ends, lengths)[:count]
    inside = np.arange(count) + NGRAM_WORDS <= row_ends_W
    starts = np.cumsum(lengths - NGRAM_WORDS + 1) - (lengths - NGRAM_WORDS + 1)
    return spread_bits(hashes_G[inside]), starts


def _signatures(hashes_G: Hashes, starts_N: Ids) -> NDArray[np.uint32]:
    """MinHash, (N, K): of each of K random functions the least value over a text's 5-grams."""
    generator = np.random.default_rng(0)
    factors_K, terms_K = generator.integers(1, 2**64, (2, VALUES), np.uint64)
    signatures_NK = np.empty((len(starts_N), VALUES), np.uint32)
    for index, (factor, term) in enumerate(zip(factors_K | np.uint64(1), terms_K, strict=True)):
        least_N = np.minimum.reduceat(hashes_G * factor + term, starts_N)
        signatures_NK[:, index] = least_N >> np.uint64(32)
    return signatures_NK


def _candidates(signatures_NK: NDArray[np.uint32], is_in: NDArray[np.bool_]) -> Ids:
    """Pairs of texts that agree in at least one band, (P, 2), the smaller first, each once."""
    rows = len(signatures_NK)
    codes = []
    for band in np.split(signatures_NK, BANDS, axis=1):
        keys = np.ascontiguousarray(band).view(f"V{band.shape[1] * 4}")[:, 0]
        _, buckets_N = np.unique(keys, return_inverse=True)
        sizes = np.bincount(buckets_N)
        members = np.flatnonzero(sizes[buckets_N] > 1)
        by_bucket = members[np.argsort(buckets_N[members], kind="stable")]
        for inside in is_in:
            leaders = by_bucket[inside[by_bucket]]
            codes.append(_bucket_pairs(by_bucket, leaders, buckets_N, rows))
    coded = np.unique(np.concatenate(codes))
    return np.stack([coded // rows, coded % rows], axis=1)


def _bucket_pairs(members: Ids, leaders: Ids, buckets_N: Ids, rows: int) -> Ids:
    """Codes (smaller x rows + larger) of each member with its bucket's first few leaders."""
    member_buckets, leader_buckets = buckets_N[members], buckets_N[leaders]
    starts = np.searchsorted(leader_buckets, member_buckets, "left")
    ends = np.minimum(np.searchsorted(leader_buckets, member_buckets, "right"), starts + _LEADERS)
    codes = []
    for index in range(_LEADERS):
        there = starts + index < ends
        first, second = members[there], leaders[(starts + index)[there]]
        codes.append(np.minimum(first, second) * rows + np.maximum(first, second))
    coded = np.unique(np.concatenate(codes))
    is_pair = coded // rows != coded % rows
    return np.asarray(coded[is_pair], np.int64)

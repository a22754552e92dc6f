"""Word error rates of greedily decoded frames, plain and as AlgoPerf's program measured them."""

import math

import numpy as np
import pytest

from algoperf.workload.metric import Batch, collapsed, decoding
from workloads.metrics.word_error_rate import METRICS, PublishedWordErrorRate, WordErrorRate

LETTERS = ["", " ", *"abc"]


def decode(rows):
    return ["".join(LETTERS[token] for token in row) for row in rows]


def distance(reference, hypothesis):
    """Levenshtein's, by its recurrence."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), int)
    table[:, 0], table[0] = range(len(reference) + 1), range(len(hypothesis) + 1)
    for i, one in enumerate(reference, 1):
        for j, other in enumerate(hypothesis, 1):
            changed = table[i - 1, j - 1] + (one != other)
            table[i, j] = min(changed, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]


def rate(start, references, hypotheses):
    metric = start(len(references), decode)
    metric.count(references, hypotheses)
    return metric.finish()


def test_repeats_are_merged_before_blanks_are_dropped():
    assert collapsed(np.array([0, 2, 2, 0, 2, 3, 3, 0, 0, 4])) == [2, 2, 3, 4]
    assert collapsed(np.array([5, 5])) == [5]
    assert collapsed(np.zeros(3, int)) == []


def test_the_rate_is_of_all_words_together():
    rng = np.random.default_rng(0)
    texts = [
        [" ".join(rng.choice(list("abc"), rng.integers(0, 7))) for _ in range(40)] for _ in range(2)
    ]
    errors = sum(distance(one.split(), other.split()) for one, other in zip(*texts, strict=True))
    words = sum(len(text.split()) for text in texts[0])
    assert "" in texts[0]
    assert "" in texts[1]
    assert rate(WordErrorRate, *texts) == errors / words


@pytest.mark.parametrize(
    ("references", "hypotheses", "plain", "published"),
    [
        (["a b c"], ["a c"], 1 / 3, 1 / 5),
        (["a b c"], [""], 3 / 3, 3 / 5),  # but for the quotation marks it would be right
        ([""], ["a b"], math.nan, 2 / 3),  # one word, of quotation marks alone
        (["IT'S FINE"], ["IT IS FINE"], 2 / 2, 3 / 4),  # AlgoPerf's own program counts 3 errors
        (["a", "b c"], ["a", "b b"], 1 / 3, 1 / 7),
    ],
)
def test_by_hand(references, hypotheses, plain, published):
    assert rate(WordErrorRate, references, hypotheses) == pytest.approx(plain, nan_ok=True)
    assert rate(PublishedWordErrorRate, references, hypotheses) == pytest.approx(published)


def test_batches_are_read_with_their_padding_and_without_rows_of_no_weight():
    targets = np.array([[2, 1, 3, 0], [4, 0, 0, 0], [2, 0, 0, 0]])  # a b, c, a
    frames = np.array([[2, 2, 0, 1, 3], [4, 0, 4, 1, 2], [3, 0, 0, 0, 0]])  # a b, cc a, b
    starts = decoding(METRICS, decode)
    metric = starts["wer"](3)
    for rows, weights in ((slice(0, 1), [1.0]), (slice(1, 3), [1.0, 0.0])):
        given = np.zeros(len(weights)), frames[rows], targets[rows], np.array(weights)
        metric.add(Batch(*given))
    assert metric.finish() == 2 / 3  # cc for c, and a word too many

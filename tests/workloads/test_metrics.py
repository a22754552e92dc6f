"""The shared metrics, in batches of every size, against outside implementations."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from algoperf.workload import metric
from algoperf.workload.metric import Batch, TextBatch

ROWS = 37
RNG = np.random.default_rng(3)
LOSSES_N = RNG.gamma(2.0, size=ROWS).astype(np.float32)
TARGETS_N = RNG.integers(0, 3, ROWS)
PREDICTIONS_N = np.where(RNG.random(ROWS) < 0.6, TARGETS_N, (TARGETS_N + 1) % 3)
WEIGHTS_N = {
    "ones": np.ones(ROWS),
    "some zero": np.where(np.arange(ROWS) % 3 == 0, 0.0, RNG.random(ROWS)),
    "all zero but one": np.eye(ROWS)[5],
    "all equal": np.full(ROWS, 0.3),
}


def measured(name, weights_N, size, rows=ROWS):
    accumulator = metric.shared(of_texts=False)[name](rows)
    for start in range(0, rows, size):
        taken = slice(start, min(start + size, rows))
        accumulator.add(
            Batch(LOSSES_N[taken], PREDICTIONS_N[taken], TARGETS_N[taken], weights_N[taken])
        )
    return accumulator.finish()


@pytest.mark.parametrize("weights", WEIGHTS_N)
def test_accuracy_is_scikit_learn_s(weights):
    weights_N = WEIGHTS_N[weights]
    expected = accuracy_score(TARGETS_N, PREDICTIONS_N, sample_weight=weights_N)
    values = {measured("accuracy", weights_N, size) for size in range(1, ROWS + 2)}
    assert len(values) == 1  # to the last bit
    assert values.pop() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("row", [0, 1])
def test_accuracy_of_one_row(row):
    weights_N = np.ones(1)
    accumulator = metric.shared(of_texts=False)["accuracy"](1)
    accumulator.add(Batch(LOSSES_N[:1], np.array([row]), np.array([1]), weights_N))
    assert accumulator.finish() == row


def test_accuracy_of_tokens():
    """Of (rows, tokens) arrays every token counts by its own weight."""
    targets_NT = np.array([[1, 2, 0], [2, 2, 1]])
    predictions_NT = np.array([[1, 0, 0], [2, 1, 1]])
    weights_NT = np.array([[1.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    accumulator = metric.shared(of_texts=False)["accuracy"](2)
    for row in ([0], [1]):
        losses_1T = np.zeros((1, 3))
        accumulator.add(Batch(losses_1T, predictions_NT[row], targets_NT[row], weights_NT[row]))
    assert accumulator.finish() == 1.5 / 3


@pytest.mark.parametrize("weights", WEIGHTS_N)
@pytest.mark.parametrize("name", ["perplexity", "pseudo_perplexity"])
def test_perplexity_is_exp_of_the_mean_loss(name, weights):
    weights_N = WEIGHTS_N[weights]
    terms = zip(LOSSES_N.tolist(), weights_N.tolist(), strict=True)
    expected = math.exp(math.fsum(a * b for a, b in terms) / math.fsum(weights_N))
    values = {measured(name, weights_N, size) for size in range(1, ROWS + 2)}
    assert len(values) == 1
    assert values.pop() == pytest.approx(expected, rel=1e-13)


TEXTS = [  # prediction, reference
    ("the cat sat", "the cat sat on the mat"),
    ("", "empty"),
    ("the the the", "the"),
    ("a b\nc d", "d c\nb a"),
    ("running quickly", "he runs quickly"),
    ("nothing in common", "entirely different"),
    ("same words", "same words"),
]


@pytest.mark.parametrize("size", range(1, len(TEXTS) + 1))
def test_rouge_is_the_mean_of_rouge_score_s_rows(size):
    from rouge_score import rouge_scorer

    starts = metric.shared(of_texts=True)
    del starts["bleu"]
    of_theirs = {name: name.removesuffix("_unicode") for name in starts}  # the same on ASCII text
    scorer = rouge_scorer.RougeScorer(list(set(of_theirs.values())), use_stemmer=True)
    rows = [scorer.score(target=reference, prediction=text) for text, reference in TEXTS]
    accumulators = {name: start(len(TEXTS)) for name, start in starts.items()}
    positions = np.array([3, 0, 6, 1, 5, 2, 4])  # as they come where rows have lengths
    for start in range(0, len(TEXTS), size):
        taken = positions[start : start + size]
        texts, references = zip(*(TEXTS[position] for position in taken), strict=True)
        for accumulator in accumulators.values():
            accumulator.add(TextBatch(taken, list(texts), list(references)))
    for name, accumulator in accumulators.items():
        expected = np.array([row[of_theirs[name]].fmeasure for row in rows])
        np.testing.assert_array_equal(accumulator.values_N, expected)
        assert accumulator.finish() == expected.mean()  # to the last bit: in the order of the rows
        assert 0 < accumulator.finish() < 1

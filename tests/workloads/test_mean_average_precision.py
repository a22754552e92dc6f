"""The mean average precision equals OGB's evaluator and a sum over thresholds worked out anew."""

import sys

import numpy as np
import pytest

from algoperf.workload.metric import Batch
from workloads.metrics.mean_average_precision import MeanAveragePrecision


def measured(labels_NT, scores_NT, size=None):
    """The metric of labels with NaN for missing ones, in batches of some size."""
    known_NT = ~np.isnan(labels_NT)
    metric = MeanAveragePrecision(len(labels_NT))
    for start in range(0, len(labels_NT), size or len(labels_NT)):
        part = slice(start, start + (size or len(labels_NT)))
        targets = np.where(known_NT, labels_NT, 0)[part]
        weights = known_NT[part].astype(np.float64)
        metric.add(Batch(np.zeros_like(targets), scores_NT[part], targets, weights))
    return metric.finish()


def by_thresholds(labels_NT, scores_NT):
    """Precision at each threshold, weighted by the recall that it adds (Zhu 2004)."""
    values = []
    for labels, scores in zip(labels_NT.T, scores_NT.T, strict=True):
        known = ~np.isnan(labels)
        labels, scores = labels[known], scores[known]
        positives = (labels == 1).sum()
        if positives in (0, len(labels)):
            continue
        value = recall = 0.0
        for threshold in np.unique(scores)[::-1]:
            taken = scores >= threshold
            now = (labels[taken] == 1).sum() / positives
            value += (now - recall) * (labels[taken] == 1).mean()
            recall = now
        values.append(value)
    return np.mean(values)


def random_rows(seed, rows=200, tasks=7):
    rng = np.random.default_rng(seed)
    labels_NT = (rng.random((rows, tasks)) < rng.random(tasks)).astype(float)
    labels_NT[rng.random(labels_NT.shape) < 0.3] = np.nan
    return labels_NT, rng.standard_normal(labels_NT.shape).astype(np.float32)


def cases():
    labels, scores = random_rows(0)
    yield "random", labels, scores
    yield "tied", labels, np.round(scores)
    yield "all tied", labels, np.zeros_like(scores)
    one = labels.copy()
    one[:, 0], one[:, 1], one[:, 2] = 1, 0, np.nan
    one[~np.isnan(one[:, 3]), 3] = 1
    yield "one class and no label", one, scores
    few = np.full_like(labels, np.nan)
    few[3, 4], few[5, 4] = 0, 1
    yield "two labels", few, scores


CASES = {name: case for name, *case in cases()}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_sum_over_thresholds(name):
    labels, scores = CASES[name]
    for size in (None, 7):
        assert measured(labels, scores, size) == pytest.approx(
            by_thresholds(labels, scores), rel=1e-12
        )


@pytest.mark.parametrize("name", CASES)
def test_it_is_ogb_s(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "outdated", None)  # else ogb's import asks for its version
    evaluate = pytest.importorskip("ogb.graphproppred").Evaluator("ogbg-molpcba")
    labels, scores = CASES[name]
    rest = np.full((len(labels), evaluate.num_tasks - labels.shape[1]), np.nan)  # no label at all
    y_true, y_pred = (np.concatenate([each, rest], axis=1) for each in (labels, scores))
    expected = evaluate.eval({"y_true": y_true, "y_pred": y_pred})["ap"]
    assert measured(labels, scores) == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    """Sorted by score: 1, 0, 1, missing; precision 1 at the first, 2/3 at the third."""
    labels = np.array([[1.0], [np.nan], [1.0], [0.0]])
    scores = np.array([[0.9], [0.8], [0.1], [0.5]], np.float32)
    assert measured(labels, scores) == pytest.approx((1 + 2 / 3) / 2)


def test_without_a_task_that_counts_it_is_nan():
    assert np.isnan(measured(np.ones((3, 2)), np.zeros((3, 2), np.float32)))


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_of_a_model_that_diverged_it_is_nan(score):
    """And no error, which would end the trial; a row without a label does not count."""
    labels, scores = random_rows(0)
    expected = measured(labels, scores)
    row, task = np.argwhere(np.isnan(labels))[0]
    scores[row, task] = score
    assert measured(labels, scores) == expected
    row, task = np.argwhere(~np.isnan(labels))[0]
    scores[row, task] = score
    assert np.isnan(measured(labels, scores))

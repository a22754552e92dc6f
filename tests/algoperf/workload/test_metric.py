"""The streamed sum against NumPy's, bit for bit; which metrics there are, and what is said of
others.
"""

import dataclasses
import sys

import numpy as np
import pytest

from algoperf.errors import UserError
from algoperf.workload import catalogue, metric, registry

SIZES = (0, 1, 2, 7, 8, 9, 127, 128, 129, 255, 256, 257, 1000, 1024, 1029, 4096, 65_537, 300_001)


def awkward(count, seed=0):
    """Numbers of both signs over twelve orders of magnitude: every order of summing differs."""
    generator = np.random.default_rng([seed, count])
    return generator.normal(size=count) * 10.0 ** generator.integers(-6, 6, count)


def streamed(values, cuts):
    total = metric.StreamedSum(len(values))
    for piece in np.split(values, cuts):
        total.add(piece)
    return total.finish()


@pytest.mark.parametrize("count", SIZES)
def test_a_streamed_sum_has_numpy_s_bits(count):
    values = awkward(count)
    generator = np.random.default_rng(count)
    every_seventh = np.arange(7, min(count, 5000), 7)
    random = np.sort(generator.integers(0, count + 1, 12))  # some pieces are empty
    for cuts in ([], every_seventh, random, np.arange(500, count, 500), [count // 2]):
        assert streamed(values, cuts).tobytes() == values.sum().tobytes()


def test_every_small_count_in_pieces_of_every_small_size():
    for count in range(1, 300, 3):
        values = awkward(count)
        expected = values.sum().tobytes()
        for size in (1, 3, 64, 100, 128, 200):
            assert streamed(values, np.arange(size, count, size)).tobytes() == expected


def test_the_order_of_summing_shows():
    """Else the tests above would show nothing: adding batch by batch gives other bits."""
    values = awkward(1029)
    assert sum(values.tolist()) != values.sum()
    for size in (7, 64, 500):
        parts = np.split(values, np.arange(size, 1029, size))
        assert sum(part.sum() for part in parts) != values.sum()


def test_a_sum_over_axes_is_that_of_the_flat_array():
    values_NT = awkward(3 * 1031).reshape(-1, 3)
    total = metric.StreamedSum(values_NT.size)
    for row_13 in np.split(values_NT, len(values_NT)):
        total.add(row_13)
    assert total.finish() == values_NT.sum()


def test_it_holds_less_than_a_block():
    total = metric.StreamedSum(1_000_000)
    for piece in np.split(awkward(1_000_000), 10_000):
        total.add(piece)
        assert len(total._rest) < 2 * metric.BLOCK
        assert len(total._sums) <= 20
    assert len(total._sums) == 1


def test_a_sum_of_another_count_is_refused():
    total = metric.StreamedSum(10)
    total.add(np.ones(9))
    with pytest.raises(ValueError, match="fewer numbers"):
        total.finish()
    with pytest.raises(ValueError, match="1 more numbers"):
        total.add(np.ones(2))


@pytest.mark.parametrize("shape", [(1,), (5,), (301,), (40, 7)])
def test_a_weighted_mean_has_the_bits_of_one_division_of_two_sums(shape):
    values = awkward(int(np.prod(shape))).reshape(shape)
    weights = np.random.default_rng(1).random(shape)
    weights[len(weights) // 2 :] *= 0.0 if len(weights) > 1 else 1.0
    expected = (values * weights).sum() / weights.sum()
    for size in (1, 2, 3, 64, len(values)):
        mean = metric.WeightedMean(len(values))
        for start in range(0, len(values), size):
            mean.add(values[start : start + size], weights[start : start + size])
        assert mean.finish() == expected
    assert expected == pytest.approx(np.average(values, weights=weights))


def test_which_metrics_there_are():
    assert set(metric.shared(of_texts=False)) == {
        *("accuracy", "mean_average_precision", "perplexity", "pseudo_perplexity", "ssim"),
        *("wer", "wer_as_published"),
    }
    rouge = {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert set(metric.shared(of_texts=True)) == {
        *rouge,
        *(f"{name}_unicode" for name in rouge),
        "bleu",
    }


MISTAKES = {
    "unknown": (
        {"metrics": ("acuracy",)},
        "unknown metric of workload digits 'acuracy'; did you mean accuracy? "
        "(one of: accuracy, mean_average_precision, perplexity, pseudo_perplexity, ssim, wer, "
        "wer_as_published, top2)",
    ),
    "of texts": (
        {"metrics": ("accuracy", "rouge1")},
        "unknown metric of workload digits 'rouge1' "
        "(one of: accuracy, mean_average_precision, perplexity, pseudo_perplexity, ssim, wer, "
        "wer_as_published, top2)",
    ),
    "target": (
        {"metrics": ("accuracy", "top2"), "target_metric": "perplexity"},
        "unknown target metric of workload digits 'perplexity' (one of: loss, accuracy, top2)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_metric_that_does_not_exist_is_said_where_the_workload_is_found(monkeypatch, mistake):
    changes, message = MISTAKES[mistake]
    own = {"top2": metric.MeanLoss}
    wrong = dataclasses.replace(registry.get("digits"), own_metrics=own, **changes)
    monkeypatch.setattr(sys.modules["workloads.digits"], "WORKLOAD", wrong)
    with pytest.raises(UserError) as error:
        catalogue.find("digits")
    assert str(error.value) == message
    with pytest.raises(UserError):
        catalogue.find("digits_tanh")
    assert catalogue.find("lm").name == "lm"


def test_an_own_metric_and_the_loss_as_the_target():
    own = {"top2": metric.MeanLoss}
    changed = dataclasses.replace(
        registry.get("digits"), own_metrics=own, metrics=("top2",), target_metric="loss"
    )
    changed.check_metrics()
    assert changed.accumulators == own
    assert changed.measured == ("loss", "top2")

"""One pass over a split in both frameworks, against NumPy, whatever the batch size; what an
evaluation holds meanwhile.
"""

import dataclasses
import functools
import subprocess
import sys

import numpy as np
import pytest
from evaluation import evaluate

from algoperf import backends
from algoperf.data.loading import load_data
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.evaluate_text import subset
from algoperf.workload import catalogue
from algoperf.workload.metric import WeightedMean

DIGITS = catalogue.find("digits")
SCALE = DIGITS.scales["mini"]
ROWS = 500


@functools.cache
def digits():
    return load_data(DIGITS, SCALE, "builtin")


@pytest.fixture(scope="module", params=["jax", "pytorch"])
def measured(request):
    """A function of (arrays, batch size), on the initial parameters, and these by name."""
    backend = backends.load(request.param)
    bound = backend.workload(DIGITS, SCALE, "builtin", digits())
    params, model_state = bound.init_model_fn(backend.random_state((1, 2)))

    def measure(arrays, batch_size):
        return evaluate(backend, bound, DIGITS, arrays, batch_size, params, model_state)

    def probe(batch_size):
        scale = dataclasses.replace(SCALE, eval_batch_size=batch_size)
        return Evaluator(backend, bound, DIGITS, digits(), scale).probe(params, model_state)

    measure.probe = probe
    return measure, bound.to_neutral(params)


def by_hand(arrays, values):
    """Cross-entropy of each row and the predicted classes, in float64."""
    hidden = arrays["inputs"].astype(np.float64)
    for layer in ("hidden_0", "hidden_1"):
        hidden = np.maximum(hidden @ values[f"{layer}/kernel"] + values[f"{layer}/bias"], 0)
    logits = hidden @ values["head/kernel"] + values["head/bias"]
    highest = logits.max(1)
    normalizer = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
    return normalizer - logits[np.arange(len(logits)), arrays["targets"]], logits.argmax(1)


@pytest.mark.parametrize("batch_size", [1, 7, 500, 501, 10_000])
def test_the_result_is_the_same_for_every_batch_size(measured, batch_size):
    measure, values = measured
    arrays = digits().splits["validation"]
    losses, classes = by_hand(arrays, values)
    found = measure(arrays, batch_size)
    assert list(found) == ["loss", "accuracy", "num_examples"]
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert found["accuracy"] == (classes == arrays["targets"]).mean()
    assert found["num_examples"] == ROWS
    assert 0 < found["accuracy"] < 0.5  # neither trivial


@pytest.mark.parametrize(("batch_size", "few"), [(20, 80), (63, 63), (300, 300), (500, 500)])
def test_a_probe_is_of_an_eighth_of_the_rows_in_whole_batches(measured, batch_size, few):
    measure, values = measured
    _, classes = by_hand(digits().splits["validation"], values)
    right = (classes == digits().splits["validation"]["targets"])[subset(ROWS, few)]
    assert measure.probe(batch_size) == right.mean()


def test_padding_counts_nowhere(measured):
    """8 rows in batches of 7: six copies of the last row, the worst, fill up the second batch."""
    measure, values = measured
    split = digits().splits["validation"]
    losses, classes = by_hand(split, values)
    order = np.argsort(losses)[[*range(7), -1]]
    arrays = {key: array[order] for key, array in split.items()}
    found = measure(arrays, 7)
    assert found["loss"] == pytest.approx(losses[order].mean(), rel=1e-6)
    with_copies = (losses[order].sum() + 6 * losses[order[-1]]) / 14
    assert with_copies > 1.3 * found["loss"]  # so that they would have been seen
    assert found["accuracy"] == (classes == split["targets"])[order].mean()
    assert found["num_examples"] == 8


@pytest.mark.parametrize("batch_size", [7, 500])
def test_the_splits_own_weights_count(measured, batch_size):
    measure, values = measured
    split = digits().splits["test"]
    weights = np.random.default_rng(0).random(len(split["targets"])).astype(np.float32)
    weights[::3] = 0
    losses, classes = by_hand(split, values)
    found = measure({**split, "weights": weights}, batch_size)
    assert found["loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-6)
    right = classes == split["targets"]
    assert found["accuracy"] == pytest.approx(np.average(right, weights=weights), rel=1e-9)


def test_a_split_is_left_as_it_was(measured):
    before = {key: array.copy() for key, array in digits().splits["test"].items()}
    measured[0](digits().splits["test"], 100)
    for key, array in digits().splits["test"].items():
        np.testing.assert_array_equal(array, before[key])


class TokenLosses:
    """A backend whose rows' losses are their inputs."""

    def place(self, batch):
        return batch

    def predict(self, workload, params, model_state, batch):
        return batch["inputs"], batch["targets"]

    def fetch(self, tree):
        return tree


@pytest.mark.parametrize("batch_size", [2, 5])
def test_perplexity_is_of_the_mean_over_all_tokens_that_count(batch_size):
    losses = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    arrays = {"inputs": losses, "targets": np.zeros((5, 3), np.int32)}
    counted = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    for name, weights in (("lm", np.ones((5, 3))), ("mlm", counted)):
        definition = catalogue.find(name)
        split = arrays if name == "lm" else {**arrays, "weights": weights}
        found = evaluate(TokenLosses(), None, definition, split, batch_size, None, None)
        mean = (losses * weights).sum() / weights.sum()  # not the mean of the rows' means
        assert found["loss"] == pytest.approx(mean, rel=1e-6)
        assert found[definition.target_metric] == pytest.approx(np.exp(mean), rel=1e-6)
        assert found["num_examples"] == 5


@pytest.mark.parametrize("rows", [1, 7, 130, 1001])
def test_every_batch_size_gives_the_bits_of_numpy_s_sums_over_the_split(rows):
    generator = np.random.default_rng(rows)
    losses_NT = generator.gamma(1.0, size=(rows, 3)).astype(np.float32)
    weights_NT = generator.random((rows, 3)).astype(np.float32)
    targets_NT = generator.integers(0, 2, (rows, 3))
    losses_NT[-1] = 1e6  # the rows that fill up the last batch would be seen
    for weights in ({}, {"weights": weights_NT}):
        counted_NT = np.asarray(weights.get("weights", np.ones(losses_NT.shape)), np.float64)
        expected = float((losses_NT.astype(np.float64) * counted_NT).sum() / counted_NT.sum())
        split = {"inputs": losses_NT, "targets": targets_NT, **weights}
        for size in (1, 2, 3, 64, 500, rows):
            values = evaluate(TokenLosses(), None, catalogue.find("digits"), split, size, 0, 0)
            assert values == {"loss": expected, "accuracy": 1.0, "num_examples": rows}


class ShareAbove:
    """A workload's own metric: the share of rows whose loss is above 1. `seen` is what it is given:
    the number of rows, and the shape of each batch.
    """

    def __init__(self, seen, rows):
        self._seen = seen
        self._seen.append(rows)
        self._mean = WeightedMean(rows)

    def add(self, batch):
        self._seen.append(batch.losses.shape)
        assert batch.predictions.shape == batch.targets.shape == batch.losses.shape
        assert batch.weights.dtype == np.float64
        self._mean.add(batch.losses > 1, batch.weights)

    def finish(self):
        return self._mean.finish()


def test_a_workload_s_own_metric_is_given_the_rows_without_padding():
    seen = []
    own = {"above": functools.partial(ShareAbove, seen)}
    definition = dataclasses.replace(
        DIGITS, metrics=("above", "accuracy"), target_metric="above", own_metrics=own
    )
    losses_N = np.array([0.5, 2.0, 3.0, 0.1, 5.0], np.float32)
    split = {"inputs": losses_N, "targets": np.zeros(5, int)}
    values = evaluate(TokenLosses(), None, definition, split, 2, None, None)
    assert list(values) == ["loss", "above", "accuracy", "num_examples"]
    assert values["above"] == 0.6
    assert seen == [5, (2,), (2,), (1,)]


class Recorder(TokenLosses):
    """A backend that remembers in which order it is used, and a metric that tells of each batch."""

    def __init__(self):
        self.events = []

    def place(self, batch):
        self.events.append("place")
        return batch

    def predict(self, *arguments):
        self.events.append("predict")
        return super().predict(*arguments)

    def fetch(self, tree):
        self.events.append("fetch")
        return tree

    def start(self, rows):
        return self

    def add(self, batch):
        self.events.append("count")

    def finish(self):
        return 0.0


def test_the_device_works_while_the_next_batch_is_placed_and_the_last_one_counted():
    recorder = Recorder()
    definition = dataclasses.replace(
        DIGITS, metrics=("own",), target_metric="own", own_metrics={"own": recorder.start}
    )
    split = {"inputs": np.ones(30, np.float32), "targets": np.zeros(30, int)}
    evaluate(recorder, None, definition, split, 10, None, None)
    between = ["place", "fetch", "predict", "count"]
    assert recorder.events == ["place", "predict", *between, *between, "fetch", "count"]


ON_DEMAND = """
import sys
import numpy as np
from algoperf.machine import hardware
from algoperf.trial import outputs
from algoperf.trial.evaluate import accumulate
from algoperf.workload import catalogue

ROWS, TOKENS = int(sys.argv[1]), 64

class Backend:
    def place(self, batch):
        return batch
    def predict(self, workload, params, model_state, batch):
        return batch["inputs"], batch["targets"]
    def fetch(self, tree):
        return tree

def rows():
    for start in range(0, ROWS, 500):
        rows_B = np.arange(start, start + 500)
        losses_BT = np.repeat(rows_B[:, None] % 7, TOKENS, axis=1).astype(np.float32)
        targets_BT, weights_BT = np.zeros(losses_BT.shape, int), np.ones(losses_BT.shape)
        yield {"inputs": losses_BT, "targets": targets_BT, "weights": weights_BT}

digits = catalogue.find("digits")
computed = outputs.predictions(Backend(), None, rows(), None, None)
values = accumulate(computed, ROWS, digits.accumulators, digits.loss_type)
assert values["loss"] == np.mean(np.arange(ROWS) % 7), values
print(hardware.peak_process_memory_bytes())
"""


def test_the_memory_of_an_evaluation_does_not_grow_with_its_rows():
    """Rows that are computed as they are asked for; 100,000 of them are 51 MB of targets alone."""
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", ON_DEMAND, str(rows)], text=True))
        for rows in (1000, 100_000)
    ]
    assert peaks[1] < 1.2 * peaks[0]

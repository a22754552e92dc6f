"""One pass over a split in both frameworks, against NumPy, whatever the batch size."""

import functools

import numpy as np
import pytest

from algoperf import backends
from algoperf.data.loading import load_data
from algoperf.trial.evaluate import evaluate
from algoperf.workload import catalogue

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

"""Generation over a split: which rows, in which batches, and what comes of them. No framework."""

import json

import numpy as np
import pytest

from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.data.tokenizers import PAD_ID
from algoperf.trial import evaluate_text
from algoperf.workload import Text
from workloads.metrics import rouge

WORDS = ["red", "green", "blue", "old", "new", "cat", "dog", "sun"]


class Copier:
    """A backend that writes a source's tokens back, and remembers the shapes that it was given."""

    def __init__(self):
        self.shapes = []

    def generate(self, workload, params, model_state, sources_BS, settings):
        self.shapes.append(sources_BS.shape)
        assert settings.beams == 4
        return [[token for token in row if token != PAD_ID] for row in sources_BS.tolist()]


def made(lengths):
    """Rows of the words 4, 5, 6, ... so long, their arrays and texts; references drop a word."""
    rows = [[4 + (start + i) % 8 for i in range(n)] for start, n in enumerate(lengths)]
    inputs = np.full((len(rows), max(lengths)), PAD_ID, np.int32)
    for place, row in enumerate(rows):
        inputs[place, : len(row)] = row

    def decode(tokens):
        return [" ".join(WORDS[token - 4] for token in row) for row in tokens]

    texts = decode(rows)
    references = [text.split(" ", 1)[-1] for text in texts]
    arrays = {"inputs": inputs, "targets": inputs, "weights": np.ones(inputs.shape, np.float32)}
    return arrays, Text(decode, {"validation": texts}, {"validation": references})


def write(rows, lengths, buckets=()):
    arrays, text = made(lengths)
    backend = Copier()
    written = evaluate_text.write(
        backend,
        None,
        None,
        None,
        split="validation",
        rows=np.array(rows),
        arrays=arrays,
        buckets=batches.make_buckets(arrays, buckets, PAD_ID),
        batch_size=2,
        text=text,
        settings=GenerationSettings(8, beams=4),
    )
    return written, text, backend.shapes


def test_texts_keep_the_order_of_the_rows():
    written, text, shapes = write([0, 2, 3], [3, 5, 2, 4])
    assert written.predictions == [text.sources["validation"][row] for row in (0, 2, 3)]
    assert written.sources == written.predictions
    assert written.references == [text.references["validation"][row] for row in (0, 2, 3)]
    assert written.tokens == [3, 2, 4]
    assert shapes == [(2, 5), (2, 5)]  # the last batch is filled up


def test_batches_are_cut_to_their_bucket_and_the_order_is_kept():
    buckets = ((3, 3), (5, 5))
    written, text, shapes = write([0, 1, 2, 3, 4], [3, 5, 2, 4, 1], buckets)
    assert written.predictions == list(text.sources["validation"])
    assert shapes == [(2, 3), (2, 3), (2, 5)]


def test_scores_are_rouge_s_and_metrics_their_means():
    written, _, _ = write([0, 1], [3, 5])
    expected = rouge.score(written.predictions, written.references)
    for name in rouge.names:
        np.testing.assert_array_equal(written.scores[name], expected[name])
        assert written.metrics[name] == pytest.approx(expected[name].mean())
    # Dropping one of n words: recall 1, precision (n - 1) / n, so F1 = 2 (n - 1) / (2 n - 1).
    assert written.metrics["rouge1"] == pytest.approx((4 / 5 + 8 / 9) / 2)
    assert written.metrics["generated_tokens"] == 4
    rows = [json.loads(json.dumps(row)) for row in written.rows()]
    assert [row["split"] for row in rows] == ["validation"] * 2
    assert set(rows[0]) == {"split", "source", "reference", "prediction", *rouge.names}


def test_the_subset_is_always_the_same_and_in_order():
    chosen = evaluate_text.subset(1000, 200)
    assert len(set(chosen.tolist())) == 200
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, evaluate_text.subset(1000, 200))
    assert evaluate_text.subset(5, 200).tolist() == [0, 1, 2, 3, 4]

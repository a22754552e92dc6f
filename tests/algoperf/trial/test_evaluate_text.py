"""Generation over a split: which rows, in which batches, and what comes of them. No framework."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.data.tokenizers import PAD_ID
from algoperf.trial import evaluate, evaluate_text, outputs
from algoperf.workload import Generation, Text, metric
from algoperf.workload.rows import as_rows
from workloads.metrics import rouge

WORDS = ["red", "green", "blue", "old", "new", "cat", "dog", "sun"]


class Copier:
    """A backend that writes a source's tokens back, and remembers the shapes that it was given."""

    def __init__(self, beams=4):
        self.shapes, self.beams = [], beams

    def generate(self, workload, params, model_state, sources_BS, settings):
        self.shapes.append(sources_BS.shape)
        assert settings.beams == self.beams
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
    written = judged([generated(backend, rows, arrays, buckets)], rows, text)
    return written, text, backend.shapes


def generated(backend, rows, arrays, buckets, turn=batches.ALONE):
    """What a device writes in its turns, in batches of two rows."""
    return evaluate_text.tokens(
        *(backend, None, None, None),
        rows=np.array(rows),
        arrays=arrays,
        buckets=batches.make_buckets(arrays, buckets, PAD_ID),
        batch_size=2,
        settings=GenerationSettings(8, beams=4),
        turn=turn,
    )


def judged(streams, rows, text):
    metrics = metric.shared(of_texts=True)
    in_turn = outputs.in_turn(streams)
    return evaluate_text.judge(in_turn, "validation", np.array(rows), text, metrics)


def column(rows, key):
    return [row[key] for row in rows]


def test_texts_keep_the_order_of_the_rows():
    written, text, shapes = write([0, 2, 3], [3, 5, 2, 4])
    rows = list(written.rows())
    assert column(rows, "prediction") == [text.sources["validation"][row] for row in (0, 2, 3)]
    assert column(rows, "source") == column(rows, "prediction")
    assert column(rows, "reference") == [text.references["validation"][row] for row in (0, 2, 3)]
    assert written.tokens_N.tolist() == [3, 2, 4]
    assert shapes == [(2, 5), (2, 5)]  # the last batch is filled up


def test_batches_are_cut_to_their_bucket_and_the_order_is_kept():
    buckets = ((3, 3), (5, 5))
    written, text, shapes = write([0, 1, 2, 3, 4], [3, 5, 2, 4, 1], buckets)
    assert column(written.rows(), "prediction") == list(text.sources["validation"])
    assert shapes == [(2, 3), (2, 3), (2, 5)]


@pytest.mark.parametrize("devices", [2, 3, 9])
def test_devices_write_a_batch_each_in_turn(devices):
    """Of four batches, in three buckets; nine devices are more than there are batches."""
    lengths, rows = [3, 5, 2, 4, 1, 8, 6, 2], np.array([0, 1, 2, 4, 5, 6, 7])
    buckets = ((3, 3), (5, 5), (8, 8))
    whole, text, shapes = write(rows, lengths, buckets)
    arrays, _ = made(lengths)
    backends = [Copier() for _ in range(devices)]
    streams = [
        generated(backend, rows, arrays, buckets, (number, devices))
        for number, backend in enumerate(backends)
    ]
    written = judged(streams, rows, text)
    assert list(written.rows()) == list(whole.rows())
    assert written.metrics == whole.metrics
    assert len(shapes) == 4
    assert [each.shapes for each in backends] == [shapes[k::devices] for k in range(devices)]


def test_the_mean_is_of_the_rows_in_their_order_whatever_the_batches():
    lengths = np.random.default_rng(0).integers(1, 9, 301).tolist()
    written, text, _ = write(range(301), lengths, ((3, 3), (5, 5), (8, 8)))
    expected = rouge.score(text.sources["validation"], text.references["validation"])
    for name in rouge.names:
        assert written.metrics[name] == expected[name].mean()  # to the last bit
    assert written.metrics["generated_tokens"] == np.mean(lengths)


def test_texts_that_wait_in_a_file_come_back_whole(monkeypatch):
    """More of them than are kept in memory, in another order than they are read."""
    monkeypatch.setattr(evaluate_text, "MOST_IN_MEMORY_BYTES", 16)
    texts = ["", "naïve\nsecond line\r\n", "\ud800 is no character", "a" * 50, "b"]
    sources = [f"source {row}" for row in range(10)]

    def decode(tokens):
        return [texts[row[0]] for row in tokens]

    text = Text(decode, {"test": sources}, {"test": sources})
    written = evaluate_text.Written("test", np.array([9, 3, 5, 0, 1]), text, {})
    for positions in ([3, 1], [4], [0, 2]):
        written.add(np.array(positions), [[position] for position in positions])
    rows = list(written.rows())
    assert column(rows, "prediction") == texts
    assert column(rows, "source") == [sources[row] for row in (9, 3, 5, 0, 1)]
    assert next(written.rows())["prediction"] == ""


ON_DEMAND = """
import sys
import numpy as np
from algoperf.backends.generation import GenerationSettings
from algoperf.machine import hardware
from algoperf.trial import evaluate_text
from algoperf.workload import Text, metric

ROWS = int(sys.argv[1])

class Rows:
    def take(self, rows_B):
        return {"inputs": 4 + (rows_B[:, None] + np.arange(24)) % 500}

class Texts:
    def __getitem__(self, row):
        return " ".join(map(str, range(row % 500, row % 500 + 24)))

class Backend:
    def generate(self, workload, params, model_state, sources_BS, settings):
        return sources_BS.tolist()

def decode(tokens):
    return [" ".join(map(str, row)) for row in tokens]

rows = np.arange(ROWS)
generated = evaluate_text.tokens(
    Backend(), None, None, None, rows=rows, arrays=Rows(),
    buckets=None, batch_size=100, settings=GenerationSettings(24),
)
text = Text(decode, {"test": Texts()}, {"test": Texts()})
metrics = {"rouge1": metric.shared(of_texts=True)["rouge1"]}
written = evaluate_text.judge(generated, "test", rows, text, metrics)
assert sum(1 for row in written.rows()) == ROWS
assert 0.5 < written.metrics["rouge1"] < 1
print(hardware.peak_process_memory_bytes())
"""


@pytest.mark.slow
def test_the_memory_of_generated_texts_does_not_grow_with_their_rows():
    """Rows that are computed as they are asked for; 100,000 of them are 10 MB of texts, and of
    tokens twice that.
    """
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", ON_DEMAND, str(rows)], text=True))
        for rows in (1000, 100_000)
    ]
    assert peaks[1] < 1.2 * peaks[0]


def test_scores_are_rouge_s_and_metrics_their_means():
    written, _, _ = write([0, 1], [3, 5])
    rows = list(written.rows())
    expected = rouge.score(column(rows, "prediction"), column(rows, "reference"))
    for name in rouge.names:
        np.testing.assert_array_equal(written.scores[name], expected[name])
        assert written.metrics[name] == pytest.approx(expected[name].mean())
    # Dropping one of n words: recall 1, precision (n - 1) / n, so F1 = 2 (n - 1) / (2 n - 1).
    assert written.metrics["rouge1"] == pytest.approx((4 / 5 + 8 / 9) / 2)
    assert written.metrics["generated_tokens"] == 4
    rows = [json.loads(json.dumps(row)) for row in written.rows()]
    for row, values in enumerate(rows):
        assert {name: values[name] for name in rouge.names} == {
            name: expected[name][row] for name in rouge.names
        }
    assert [row["split"] for row in rows] == ["validation"] * 2
    names = metric.shared(of_texts=True)
    assert set(names) > set(rouge.names)
    names.pop("bleu")  # of a whole split alone
    assert set(rows[0]) == {"split", "source", "reference", "prediction", *names}


def test_a_probe_generates_for_an_eighth_of_all_that_an_evaluation_looks_at():
    """50 rows have losses and 40 of them are written, so 90 / 8 are probed, in batches of 2: 12."""
    lengths = [5 + place % 7 for place in range(50)]
    arrays, text = made(lengths)
    splits = {split: as_rows(arrays) for split in ("train", "validation", "test")}
    definition = SimpleNamespace(
        generates_text=True,
        target_metric="rouge2",
        accumulators=metric.shared(of_texts=True),
    )
    scale = SimpleNamespace(
        generation=Generation(max_new_tokens=20, eval_rows=40, beams=4),
        eval_batch_size=2,
        eval_train_rows=4,
        buckets=(),
    )
    backend = Copier(beams=1)
    data = SimpleNamespace(text=text, splits=splits, decode=None)
    evaluator = evaluate.Evaluator(backend, None, definition, data, scale)
    value = evaluator.probe(None, None)
    assert len(backend.shapes) == 6
    # Of n - 1 pairs of words the reference has n - 2: F1 = 2 (n - 2) / (2 n - 3).
    n = np.array(lengths)[evaluate_text.subset(50, 12)]
    assert value == pytest.approx((2 * (n - 2) / (2 * n - 3)).mean())
    assert evaluator.written is None


def test_the_subset_is_always_the_same_and_in_order():
    chosen = evaluate_text.subset(1000, 200)
    assert len(set(chosen.tolist())) == 200
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, evaluate_text.subset(1000, 200))
    assert evaluate_text.subset(5, 200).tolist() == [0, 1, 2, 3, 4]

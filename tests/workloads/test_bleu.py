"""BLEU equals sacrebleu's own, whatever the batches, and its command's printed value."""

import random
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu

from algoperf.workload import catalogue, metric
from algoperf.workload.metric import TextBatch
from workloads.metrics import bleu

WORDS = ["a", "The", "cat", "cats", "sat,", "3.5", "U.S.", "don't", "naïve", "東京", "(x)", "&amp;"]
AWKWARD = [
    ("", "the cat sat"),
    ("the cat sat", ""),
    ("", ""),
    ("the cat sat on the mat .", "the cat sat on the mat."),
    ("The Cat", "the cat"),
    ("one", "one"),
    ("a\nb c d e", "a b c d e"),
]


def texts(seed: int, rows: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(1, 14))) for _ in range(rows)]
    predictions = [
        " ".join(word for word in reference.split() if draw.random() < 0.9)
        for reference in references
    ]
    return predictions, references


def measured(predictions: list[str], references: list[str], size: int, seed: int = 0) -> float:
    """The metric of rows that come in batches of that size, in another order."""
    order = np.random.default_rng(seed).permutation(len(predictions))
    accumulator = bleu.TEXT_METRICS["bleu"](len(predictions))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = [[side[row] for row in rows] for side in (predictions, references)]
        accumulator.add(TextBatch(rows, *batch))
    assert accumulator.values_N is None
    return accumulator.finish()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 7, 100])
def test_random_texts(seed, size):
    predictions, references = texts(seed, 40)
    expected = sacrebleu.corpus_bleu(predictions, [references]).score
    assert 5 < expected < 95
    assert measured(predictions, references, size, seed) == expected


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 7), slice(3, 4)])
def test_awkward_texts(rows):
    predictions, references = map(list, zip(*AWKWARD[rows], strict=True))
    expected = sacrebleu.corpus_bleu(predictions, [references]).score
    assert measured(predictions, references, 2) == expected


def test_case_and_punctuation_count():
    assert measured(["a B c d e."], ["a B c d e ."], 1) == pytest.approx(100)
    assert measured(["a b c d e."], ["a B c d e ."], 1) < 80


def test_what_the_command_prints(tmp_path):
    predictions, references = texts(3, 30)
    for name, lines in (("predicted", predictions), ("expected", references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    words = ["-m", "sacrebleu", "expected", "-i", "predicted", "-w", "10", "--score-only"]
    printed = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert f"{measured(predictions, references, 4):.10f}" == printed.strip()


def test_the_signature_names_the_form():
    starts = catalogue.find("wmt").accumulators
    (signature,) = metric.signatures(starts).values()
    version = sacrebleu.__version__
    assert signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert metric.signatures(catalogue.find("xsum").accumulators) == {}

"""ROUGE equals the package rouge_score, the implementation that papers quote, to the last digit."""

import csv
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from workloads.metrics import rouge

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SAMPLES = {
    "xsum": ("document", "summary"),
    "cnn_dailymail": ("article", "highlights"),
    "samsum": ("dialogue", "summary"),
}
WORDS = ["a", "an", "the", "cat", "cats", "sat", "running", "runs", "ran", "runner", "Running"]
WORDS += ["nation", "national", "nationally", "sky", "skies", "agreed", "agreement", "happily"]
WORDS += ["happiness", "2", "2nd", "1990s", "don't", "it's", "well-known", "naïve", "end.", "U.K."]


@pytest.fixture(scope="session")
def package():
    """`package(predictions, references, stem)`: rouge_score's scores, (N, 3) by name."""
    from rouge_score import rouge_scorer

    def scores(predictions, references, stem):
        scorer = rouge_scorer.RougeScorer(list(rouge.names), use_stemmer=stem)
        rows = [
            scorer.score(target=reference, prediction=prediction)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {name: np.array([[*row[name]] for row in rows]) for name in rouge.names}

    return scores


@pytest.fixture
def agree(package):
    """`agree(predictions, references)`: both give the same bits; the F1 with stemming, by name."""

    def check(predictions, references):
        for stem in (False, True):
            expected = package(predictions, references, stem)
            measured = rouge.precision_recall_f1(predictions, references, stem)
            f1 = rouge.score(predictions, references, stem)
            assert tuple(measured) == tuple(f1) == rouge.names
            for name in rouge.names:
                assert measured[name].dtype == f1[name].dtype == np.float64
                np.testing.assert_array_equal(measured[name], expected[name], err_msg=name)
                np.testing.assert_array_equal(f1[name], expected[name][:, 2], err_msg=name)
        return f1

    return check


def random_text(draw, words, longest, lines):
    rows = [
        " ".join(draw.choices(words, k=draw.randint(0, longest)))
        for _ in range(draw.randint(1, lines))
    ]
    return "\n".join(rows)


@pytest.mark.parametrize("longest", [3, 12, 80])
@pytest.mark.parametrize("lines", [1, 4])
@pytest.mark.parametrize("words", [WORDS, ["a", "b", "c"], ["same"]], ids=["text", "abc", "one"])
def test_random_pairs(agree, longest, lines, words):
    draw = random.Random(f"{longest} {lines} {len(words)}")
    texts = [random_text(draw, words, longest, lines) for _ in range(60)]
    f1 = agree(texts[:30], texts[30:])
    assert all(0 < f1[name].mean() <= 1 for name in ("rouge1", "rougeL", "rougeLsum"))


def test_ties_between_longest_common_subsequences(agree):
    # Many ways back through the table, and which is taken changes what other lines can add.
    draw = random.Random(5)
    texts = [
        "\n".join("".join(f"{draw.choice('abcd')} " for _ in range(9)) for _ in range(3))
        for _ in range(400)
    ]
    f1 = agree(texts[:200], texts[200:])
    assert (f1["rougeLsum"] > f1["rougeL"]).sum() > 130


EDGES = [
    "",
    " ",
    "\n",
    "\n\n\n",
    "word",
    "Word\n",
    "... !? --",
    ".\nword\n.",
    "the the the the",
    "the\nthe\nthe",
    "the cat\n\nthe cat\r\nthe cat",
    "word\u2028word\x0bword\x85word\tword",
    "naïve café ÀÉÎ straße İstanbul \u212aelvin ΣΑΣ",
    "日本語 русский",
    "don't can't U.S.A. 3.14 a_b",
    "ties tying dies sses aing eed bbbs yyyy skis 1000s",
    "running runner ran nationally agreed agreement",
    "x" * 300,
    " ".join(str(number % 7) for number in range(200)),
]


def test_edge_cases(agree):
    pairs = [(first, second) for first in EDGES for second in EDGES]
    f1 = agree(*map(list, zip(*pairs, strict=True)))
    both = dict(zip(pairs, f1["rouge1"], strict=True))
    assert both["word", "Word\n"] == 1.0
    assert both["", ""] == both["word", ""] == both["... !? --", "... !? --"] == 0.0


def test_values_worked_out_by_hand():
    # 3 of 4 words are common, 2 of 3 pairs; the LCS is "the cat sat".
    measured = rouge.precision_recall_f1(["the cat sat down"], ["the cat quietly sat"], stem=False)
    assert measured["rouge1"].tolist() == [[0.75, 0.75, 0.75]]
    assert measured["rouge2"].tolist() == [[1 / 3, 1 / 3, 1 / 3]]
    assert measured["rougeL"].tolist() == [[0.75, 0.75, 0.75]]
    # Lin 2004, section 3.2: reference w1..w5, candidate lines w1 w2 w6 w7 w8 and w1 w3 w8 w9 w5:
    # the union of the LCSs is w1 w2 w3 w5, recall 4/5. The second line first, w1 w3 w5 is the LCS.
    measured = rouge.precision_recall_f1(["w1 w3 w8 w9 w5\nw1 w2 w6 w7 w8"], ["w1 w2 w3 w4 w5"])
    assert measured["rougeLsum"][0, :2].tolist() == [0.4, 0.8]
    assert measured["rougeL"][0, :2].tolist() == [0.3, 0.6]


def test_stemming_joins_forms_of_a_word():
    pair = ["he was running"], ["he was runs"]
    assert rouge.score(*pair)["rouge1"].tolist() == [1.0]
    assert rouge.score(*pair, stem=False)["rouge1"].tolist() == [2 / 3]


@pytest.mark.parametrize(("first", "second"), [("", ""), ("abcb", "bdcab"), ("a" * 70, "a" * 90)])
def test_the_length_against_the_table(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for row, left in enumerate(first):
        for column, right in enumerate(second):
            table[row + 1, column + 1] = (
                table[row, column] + 1
                if left == right
                else max(table[row, column + 1], table[row + 1, column])
            )
    assert rouge.lcs_length([*map(ord, first)], [*map(ord, second)]) == table[-1, -1]


def test_no_rows_and_unequal_rows():
    assert {name: values.shape for name, values in rouge.score([], []).items()} == dict.fromkeys(
        rouge.names, (0,)
    )
    with pytest.raises(ValueError, match="2 predictions, but 1 references"):
        rouge.score(["a", "b"], ["a"])


def rows_of(folder):
    for path in sorted(folder.iterdir()):
        text = gzip.decompress(path.read_bytes()).decode()
        yield from json.loads(text) if ".json." in path.name else map(json.loads, text.splitlines())


def perturbed(text, draw):
    """The text with words lost, doubled and moved, in lines of ten words."""
    words = [word for word in text.split() if draw.random() < 0.8]
    words += draw.choices(text.split() or [""], k=3)
    if len(words) > 4:
        start = draw.randrange(len(words) - 3)
        words[start : start + 3] = reversed(words[start : start + 3])
    return "\n".join(" ".join(words[place : place + 10]) for place in range(0, len(words), 10))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside the repository")
def test_every_real_summary(agree, name):
    source, target = SAMPLES[name]
    rows = list(rows_of(SHARED / name))
    assert len(rows) > 400
    draw = random.Random(name)
    summaries = [row[target] for row in rows]
    predictions = [
        perturbed(row[target], draw) if place % 2 else "\n".join(row[source].split(". ")[:3])[:400]
        for place, row in enumerate(rows)
    ]
    f1 = agree(predictions, summaries)
    assert 0.2 < f1["rouge1"].mean() < 0.9


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside the repository")
def test_real_news_of_another_kind(agree):
    with gzip.open(SHARED / "ag_news" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [row for _, row in zip(range(500), csv.reader(file), strict=False)]
    agree([title for _, title, _ in rows], [text for _, _, text in rows])

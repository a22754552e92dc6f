"""ROUGE equals the package rouge_score, the implementation that papers quote, to the last digit."""

import csv
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from algoperf.errors import UserError
from algoperf.workload import Data, Text, catalogue
from algoperf.workload.metric import TextBatch
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


WORDS = {  # split by hand
    "राष्ट्रपति ने कहा।": ["राष्ट्रपति", "ने", "कहा"],  # the vowel signs and the virama are no ends
    "قالَ في القاهرة، 2024": ["قالَ", "في", "القاهرة", "2024"],
    "总统说GDP增5%": ["总", "统", "说", "gdp", "增", "5"],
    "ปีใหม่": ["ปี", "ใ", "ห", "ม่"],
    "ラーメンを食べた": ["ラ", "ー", "メ", "ン", "を", "食", "べ", "た"],
    "한국어 문장": ["한국어", "문장"],
    "Cafe\u0301 x_y \uff21": ["café", "x", "y", "a"],  # composed, and full width
    "don't stop": ["don", "t", "stop"],
}


@pytest.mark.parametrize(("text", "words"), WORDS.items())
def test_words_of_any_script(text, words):
    assert rouge._unicode_words(text) == words


def test_unicode_scores_by_hand_where_rouge_score_is_silent():
    # 3 of 5 words, precision 1: F1 = 2 * 1 * 0.6 / 1.6; 1 of 4 pairs, precision 1/2: F1 = 1/3.
    pair = ["राष्ट्रपति ने कहा"], ["राष्ट्रपति ने दिल्ली में कहा"]
    found = rouge.score(*pair, tokenizer=rouge.UNICODE)
    assert found["rouge1"].tolist() == found["rougeLsum"].tolist() == pytest.approx([0.75])
    assert found["rouge2"].tolist() == pytest.approx([1 / 3])
    assert rouge.score(*pair)["rouge1"].tolist() == [0.0]
    batch = TextBatch(np.array([0]), *pair)
    for name, value in (("rouge1_unicode", 0.75), ("rouge1", 0.0)):
        started = rouge.TEXT_METRICS[name](1)
        started.add(batch)
        assert started.finish() == pytest.approx(value)


def test_the_tokenizers_agree_on_ascii_to_the_last_digit():
    texts = [text for text in EDGES if text.isascii()]
    pairs = list(map(list, zip(*[(a, b) for a in texts for b in texts], strict=True)))
    one, other = rouge.score(*pairs), rouge.score(*pairs, tokenizer=rouge.UNICODE)
    for name in rouge.names:
        np.testing.assert_array_equal(one[name], other[name])


def test_the_remark_names_the_share_of_references_without_a_word():
    told = rouge.remark(["एक दो", "one two", "तीन 2024", "!"])  # 3 of 6 words are unseen
    assert "25.0% of the reference texts have none and score 0, 50.0% of all their words" in told
    assert "--rouge-tokenizer unicode" in told
    assert rouge.remark(["the cat sat on a mat in Łódź, Ω said naïvely", "...", "", "—"]) == ""
    assert rouge.remark(["one two", "तीन 2024"]) != ""  # a quarter is not seen
    assert "2.0% of the reference texts" in rouge.remark(["one two"] * 49 + ["एक"])


def test_a_workload_judged_by_the_other_tokenizer():
    xsum = catalogue.find("xsum")
    other = xsum.counting("unicode")
    assert other.metrics == tuple(f"{name}_unicode" for name in xsum.metrics)
    assert other.target_metric == f"{xsum.target_metric}_unicode"
    assert not any(scale.targets for scale in other.scales.values())
    assert other.accumulators["rougeL_unicode"] is rouge.TEXT_METRICS["rougeL_unicode"]
    data = Data({}, text=Text(list, {}, {split: ["एक"] for split in ("validation", "test")}))
    assert len(xsum.remarks(data)) == 1  # once for four metrics
    assert other.remarks(data) == catalogue.find("digits").remarks(Data({})) == []
    with pytest.raises(UserError, match="digits has no metric of words"):
        catalogue.find("digits").counting("unicode")


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

"""Facts of rows against counts made by hand or another way; what `algoperf data` writes."""

import csv
import gzip
import json
import random
import statistics
import string
from pathlib import Path

import numpy as np
import pytest

from algoperf import workload
from algoperf.cli import commands
from algoperf.data.report import duplicates, facts, facts_plot
from algoperf.data.report.facts import Rows
from algoperf.workload import Data, Text

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_samples = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real samples are not beside the repository"
)
LONG = [f"w{number}" for number in range(44)]  # 40 word 5-grams


def changed(words, *places):
    """The words, with others at these places; one in the middle changes 5 of the 5-grams."""
    return [f"x{place}" if place in places else word for place, word in enumerate(words)]


TRAIN = [
    "The cat sat.",
    "The cat sat.",  # exact
    "the  CAT, sat",  # normalised
    "A dog!",
    " ".join(LONG),
    " ".join(changed(LONG, 0)),  # 39 of 41 common
    "...",
    "",
    "a\x00b \ufffd",
]
VALIDATION = ["a DOG", " ".join(changed(LONG, 20)), "new text here"]  # 35 of 45 common: 0.78
TEST = ["The cat sat.", " ".join(changed(LONG, 43)), "!!!", "new text, here!", "new text, here!"]
LABELS = {
    "train": [0, 0, 1, 1, 0, 0, 0, 0, 0],
    "validation": [1, 1, 1],
    "test": [0, 1, 1, 0, 1],
}
BY_HAND = {
    split: Rows(texts, labels=np.array(LABELS[split]), source_tokens=np.full(len(texts), 7))
    for split, texts in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
}


@pytest.fixture(scope="module")
def by_hand():
    return facts.describe(BY_HAND)


def test_duplicates_by_hand(by_hand):
    found = by_hand["duplicates"]["source"]
    assert found["within"] == {
        "train": {"exact": 1, "normalised": 2, "similar": 3},
        "validation": {"exact": 0, "normalised": 0, "similar": 0},
        "test": {"exact": 1, "normalised": 1, "similar": 1},
    }
    assert found["across"] == {
        "train/validation": {"exact": 0, "normalised": 1, "similar": 1},
        "train/test": {"exact": 1, "normalised": 1, "similar": 2},
        "validation/test": {"exact": 0, "normalised": 2, "similar": 2},
    }


def test_lengths_by_hand(by_hand):
    train = by_hand["lengths"]["source"]["train"]
    words = [3, 3, 3, 2, 44, 44, 1, 0, 2]
    assert train["words"]["mean"] == pytest.approx(statistics.mean(words))
    assert train["words"]["median"] == 3
    assert train["words"]["p95"] == 44  # at 7.6 of 0 to 8, both neighbours 44
    assert by_hand["lengths"]["source"]["test"]["words"]["p95"] == pytest.approx(3 + 0.8 * 41)
    assert train["tokens"] == {"mean": 7, "median": 7, "p95": 7}
    assert (train["empty"], train["unreadable"]) == (2, 1)
    assert by_hand["lengths"]["source"]["test"]["empty"] == 1
    assert by_hand["rows"] == {"train": 9, "validation": 3, "test": 5}


def test_labels_by_hand(by_hand):
    train, validation, test = (by_hand["labels"][split] for split in BY_HAND)
    assert train["rows"] == {"0": 7, "1": 2}
    assert train["imbalance"] == 3.5
    assert train["words"]["1"] == {"mean": 2.5, "median": 2.5, "p95": pytest.approx(2.95)}
    assert validation["rows"] == {"1": 3}
    assert validation["length_bias"] == 0  # one class
    # Words of the test rows 3, 44, 1, 3, 3: class 0 has 3 and 3, class 1 44, 1 and 3; mean 10.8.
    between = 2 * (3 - 10.8) ** 2 + 3 * (16 - 10.8) ** 2
    total = sum((value - 10.8) ** 2 for value in (3, 44, 1, 3, 3))
    assert test["length_bias"] == pytest.approx(between / total)
    # "the cat sat" in all its forms 4 times; both "a dog" have 1; "new text here" 1, 0, 1.
    assert by_hand["contradictions"] == 4 + 3


def test_target_texts_and_what_the_loader_counts():
    sources = {"train": ["a b c", "d e"], "validation": ["f"], "test": ["g"]}
    references = {"train": ["A!", "a"], "validation": ["a"], "test": ["b"]}
    splits = {
        split: {
            "inputs": np.array([[0, 9, 2, 1]] * len(texts), np.int32),
            "targets": np.array([[0, 8, 2, 1, 1]] * len(texts), np.int32),
            "weights": np.array([[1, 1, 1, 0, 0]] * len(texts), np.float32),
        }
        for split, texts in sources.items()
    }
    notes = {
        "rows_cut": {"train": {"source": 1, "target": 2}},
        "tokens": {"train": {"source": {"mean": 9.5, "median": 9.0, "p95": 11.0}}},
    }
    data = Data(splits, notes=notes, text=Text(str, sources, references))
    found = facts.describe(facts.rows_of(data, sources))
    assert set(found["lengths"]) == set(found["duplicates"]) == {"source", "target"}
    train = found["lengths"]["source"]["train"]
    assert train["tokens"]["mean"] == 3  # padding is what has no weight
    assert found["lengths"]["target"]["train"]["tokens"]["mean"] == 3
    assert train["tokens_uncut"]["p95"] == 11
    assert (train["cut"], train["cut_share"]) == (1, 0.5)
    assert found["lengths"]["target"]["train"]["cut_share"] == 1
    assert found["lengths"]["target"]["test"]["cut"] is None
    assert found["duplicates"]["target"]["within"]["train"]["normalised"] == 1
    assert found["duplicates"]["target"]["across"]["train/validation"]["exact"] == 1
    assert "labels" not in found


def test_the_texts_of_a_row_that_holds_several_count_one_by_one():
    sources = {"train": ["a b c|d e", "d e"], "validation": ["d e"], "test": ["g"]}
    references = {"train": ["A|B c", "A"], "validation": ["a"], "test": ["b"]}
    splits = {
        split: {
            "inputs": np.full((len(texts), 4), 5, np.int32),
            "targets": np.full((len(texts), 4), 5, np.int32),
            "weights": np.ones((len(texts), 4), np.float32),
        }
        for split, texts in sources.items()
    }
    data = Data(splits, text=Text(str, sources, references, separator="|"))
    found = facts.describe(facts.rows_of(data, sources))
    assert found["rows"] == {"train": 2, "validation": 1, "test": 1}
    assert found["texts"] == {"train": 3, "validation": 1, "test": 1}
    assert found["lengths"]["source"]["train"]["words"] == {"mean": 7 / 3, "median": 2, "p95": 2.9}
    assert found["duplicates"]["source"]["within"]["train"]["exact"] == 1
    assert found["duplicates"]["source"]["across"]["train/validation"]["exact"] == 1
    assert found["duplicates"]["target"]["across"]["train/validation"]["normalised"] == 1


def test_arrays_have_equal_rows_and_labels_alone():
    rows = {
        "train": Rows(np.array([[1.0, 2], [1, 2], [3, 4]]), labels=np.array([5, 6, 6])),
        "test": Rows(np.array([[3.0, 4], [0, 0]]), labels=np.array([6, 6])),
    }
    found = facts.describe(rows)
    assert found["lengths"] == {}
    assert found["duplicates"]["source"] == {
        "within": {"train": {"exact": 1}, "test": {"exact": 0}},
        "across": {"train/test": {"exact": 1}},
    }
    assert found["contradictions"] == 2
    assert "length_bias" not in found["labels"]["train"]


# An independent count: sets of tuples, every pair of rows.


def plain(text):
    kept = [c for c in text.lower() if c.isspace() or c.isalnum()]
    return "".join(kept).split() or text.split()


def grams(text):
    words = plain(text)
    return {tuple(words[place : place + 5]) for place in range(max(1, len(words) - 4))}


def alike(first, second):
    if not 0.8 * len(first) <= len(second) <= len(first) / 0.8:
        return False
    common = len(first & second)
    return common / (len(first) + len(second) - common) >= 0.8


def brute(first, second, *, within):
    """Rows of `second` that an earlier row of it, or any of `first`, is similar to."""
    sets = [grams(text) for text in first], [grams(text) for text in second]
    return sum(
        any(alike(other, own) for other in (sets[0][:row] if within else sets[0]))
        for row, own in enumerate(sets[1])
    )


def test_similar_rows_against_every_pair():
    draw = random.Random(3)
    vocabulary = ["".join(draw.choices(string.ascii_lowercase, k=4)) for _ in range(300)]
    bases = [draw.choices(vocabulary, k=draw.randint(3, 90)) for _ in range(40)]
    texts = []
    for _ in range(500):
        words = list(draw.choice(bases))
        for _ in range(draw.randint(0, 3)):
            words[draw.randrange(len(words))] = draw.choice(vocabulary)
        texts.append(" ".join(words[draw.randint(0, 2) :]))
    parts = {"train": texts[:300], "test": texts[300:]}
    found = duplicates.count(parts)
    assert found["within"]["train"]["similar"] == brute(*[parts["train"]] * 2, within=True)
    assert found["within"]["test"]["similar"] == brute(*[parts["test"]] * 2, within=True)
    across = brute(parts["train"], parts["test"], within=False)
    assert found["across"]["train/test"]["similar"] == across
    assert across > found["across"]["train/test"]["normalised"] + 20


def test_a_family_larger_than_a_bucket_s_leaders():
    base = [f"w{place}" for place in range(200)]
    texts = [" ".join(changed(base, 3 + row)) for row in range(60)]
    found = duplicates.count({"train": texts[:20], "test": texts[20:]})
    assert found["within"]["train"]["similar"] == 19
    assert found["within"]["test"]["similar"] == 39
    assert found["across"]["train/test"]["similar"] == 40


def test_short_texts_are_similar_only_if_equal():
    found = duplicates.count({"train": ["one", "one one", "two", "one two"], "test": ["One!"]})
    assert found["within"]["train"]["similar"] == 0
    assert found["across"]["train/test"] == {"exact": 0, "normalised": 1, "similar": 1}


def test_line_ends_and_tabs_are_readable():
    rows = {"train": Rows(["a\r\nb\tc\x0b\x0c\x85\u2028d", "\x07", "e\x1b[0m"])}
    assert facts.describe(rows)["lengths"]["source"]["train"]["unreadable"] == 2


def test_no_rows_at_all():
    assert duplicates.count({"train": [], "test": []})["across"]["train/test"]["similar"] == 0


def drawn(path):
    """The picture has content: many pixels that are not white, of several colours."""
    from matplotlib import image

    pixels = image.imread(path)[..., :3]
    assert (pixels.min(-1) < 0.9).mean() > 0.01
    assert len(np.unique((pixels.reshape(-1, 3) * 8).astype(int), axis=0)) > 8
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_texts(tmp_path, by_hand):
    about = {"workload": "w_1", "scale": "mini", "data": "$builtin$", "fingerprint": "f"}
    facts_plot.plot(about | by_hand, BY_HAND, tmp_path / "a.png")
    drawn(tmp_path / "a.png")


def test_bins_hold_every_row():
    lengths = {"train": np.array([0, 1, 1, 3]), "test": np.array([2])}
    edges = facts_plot.bins(lengths)
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert facts_plot.shares(lengths["train"], edges).sum() == 1
    many = {"train": np.append(np.arange(1000), 10**6)}
    edges = facts_plot.bins(many)
    assert len(edges) <= facts_plot.BINS + 2
    assert facts_plot.shares(many["train"], edges).sum() == pytest.approx(1)


@pytest.fixture
def shown(capsys):
    """`shown(*words)`: what `algoperf data` prints."""

    def run(*words):
        assert commands.main(["data", *map(str, words)]) == 0
        return capsys.readouterr().out

    return run


# The real samples, counted in another way.


def sample(name, split):
    """(sources, summaries) of a sample's split, read here."""
    fields = {
        "xsum": ("document", "summary"),
        "cnn_dailymail": ("article", "highlights"),
        "samsum": ("dialogue", "summary"),
    }[name]
    (path,) = [
        path for path in (SHARED / name).iterdir() if path.name.split(".")[0] in (split, split[:3])
    ]
    text = gzip.decompress(path.read_bytes()).decode()
    rows = json.loads(text) if ".json." in path.name else map(json.loads, text.splitlines())
    return [
        list(column) for column in zip(*([row[f] for f in fields] for row in rows), strict=True)
    ]


@needs_samples
@pytest.mark.parametrize("name", ["xsum", "cnn_dailymail", "samsum"])
def test_the_samples(name, shown):
    found = json.loads(shown(name, "--data", SHARED / name, "--json"))
    samples = {split: sample(name, split) for split in workload.SPLITS}
    for split, columns in samples.items():
        assert found["rows"][split] == len(columns[0]) > 40
        for field, texts in zip(("source", "target"), columns, strict=True):
            words = sorted(len(text.split()) for text in texts)
            counted = found["lengths"][field][split]
            assert counted["words"]["mean"] == pytest.approx(sum(words) / len(words))
            assert counted["words"]["median"] == statistics.median(words)
            place = 0.95 * (len(words) - 1)
            below, above = words[int(place)], words[int(place) + 1]
            assert counted["words"]["p95"] == pytest.approx(below + place % 1 * (above - below))
            assert counted["tokens"]["mean"] <= counted["tokens_uncut"]["mean"]
            within = found["duplicates"][field]["within"][split]
            assert within["exact"] == len(texts) - len(
                {text.replace("\r\n", "\n") for text in texts}
            )
            assert within["similar"] == brute(texts, texts, within=True)
            leaked = found["duplicates"][field]["across"].get(f"train/{split}")
            if leaked:
                known = samples["train"][field == "target"]
                assert leaked["similar"] == brute(known, texts, within=False)


@needs_samples
def test_the_sample_of_news(shown):
    found = json.loads(shown("ag_news", "--data", SHARED / "ag_news", "--json"))
    with gzip.open(SHARED / "ag_news" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    texts = [f"{title} {text}" for _, title, text in rows]
    assert found["rows"]["test"] == len(rows) == 7600
    assert found["labels"]["test"]["rows"] == {
        str(label): sum(row[0] == str(label + 1) for row in rows) for label in range(4)
    }
    words = [len(text.split()) for text in texts]
    assert found["lengths"]["source"]["test"]["words"]["mean"] == pytest.approx(np.mean(words))
    within = found["duplicates"]["source"]["within"]["test"]
    assert within["exact"] == len(texts) - len(set(texts))
    assert within["normalised"] == len(texts) - len({" ".join(plain(text)) for text in texts})

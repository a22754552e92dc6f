"""Rows that a secret draws: the training rows stay, the others are new and of the same kind."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from algoperf.experiments.check import parity
from algoperf.workload import SPLITS, Data, Rows, catalogue, registry
from workloads.ag_news import corpus
from workloads.ag_news import data as ag_news
from workloads.parts import plain_text, summarization, summarization_corpus
from workloads.xsum import generator
from workloads.xsum.data import CORPUS

USUAL = ("ag_news", "mlm", "xsum")  # The others share their code, but for what makes a row.
NAMES = [
    pytest.param(name, marks=() if name in USUAL else pytest.mark.slow)
    for name in registry.names()
    if name != "digits"
]
SUMMARIES = [
    pytest.param(name, marks=() if name in USUAL else pytest.mark.slow)
    for name in ("xsum", "samsum", "cnn_dailymail")
]
HELD_OUT = ("validation", "test")
SEED, OTHER_SEED = 2**200 + 3, 2**200 + 4
Load = Callable[[str], Data]


def arrays(rows: Rows) -> Mapping[str, np.ndarray]:
    return rows.take(np.arange(len(rows)))


@pytest.mark.parametrize("name", NAMES)
def test_the_training_rows_are_the_same_bytes(
    name: str, load_mini: Load, load_secret: Load
) -> None:
    usual, secret = load_mini(name), load_secret(name)
    known, drawn_rows = (arrays(data.splits["train"]) for data in (usual, secret))
    for key, array in known.items():
        drawn = drawn_rows[key]
        assert (drawn.dtype, drawn.shape) == (array.dtype, array.shape)
        assert drawn.tobytes() == array.tobytes()
    assert secret.tokenizer == usual.tokenizer
    assert secret.model == usual.model
    if usual.text is not None:
        assert secret.text.sources["train"] == usual.text.sources["train"]
        assert secret.text.references["train"] == usual.text.references["train"]
    assert secret.fingerprint != usual.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_the_other_rows_have_the_same_form(name: str, load_mini: Load, load_secret: Load) -> None:
    usual, secret = load_mini(name), load_secret(name)
    for split in HELD_OUT:
        known, drawn = usual.splits[split], secret.splits[split]
        assert drawn.fields == known.fields
        # Texts that are packed end to end fill about as many rows.
        allowed = 0.03 * len(known) if name in ("lm", "mlm") else 0
        assert abs(len(drawn) - len(known)) <= allowed
        # A row in a hundred may have as many tokens in common with its counterpart, none all.
        rows = min(len(drawn), len(known))
        inputs = [arrays(each)["inputs"][:rows].reshape(rows, -1) for each in (drawn, known)]
        assert not (inputs[0] == inputs[1]).all(axis=1).any()
    cut = secret.notes.get("rows_cut", {})
    assert json.loads(json.dumps(cut)) == json.loads(json.dumps(usual.notes.get("rows_cut", {})))


def texts_of(name: str, seed: int | None, load: Load) -> Mapping[str, Sequence[str]]:
    if name == "ag_news":
        return {split: rows[0] for split, rows in ag_news.read("builtin", 0, seed).items()}
    if name in ("lm", "mlm"):
        return plain_text.read("builtin", 0, seed)[0]
    text = load(name).text
    assert text is not None
    return text.sources


@pytest.mark.parametrize(
    "name", ["ag_news", pytest.param("lm", marks=pytest.mark.slow), *SUMMARIES]
)
def test_no_row_is_known(name: str, load_mini: Load, load_secret: Load) -> None:
    usual = texts_of(name, None, load_mini)
    drawn = texts_of(name, SEED, load_secret)
    known = {text for split in SPLITS for text in usual[split]}
    if name == "lm":  # whose texts are some of those of ag_news
        known |= {text for rows in ag_news.read("builtin").values() for text in rows[0]}
    fresh = [text for split in HELD_OUT for text in drawn[split]]
    assert drawn["train"] == usual["train"]
    assert len(set(fresh)) == len(fresh) == sum(len(usual[split]) for split in HELD_OUT)
    assert not known & set(fresh)


def test_masks_are_drawn_by_the_secret_too(load_mini: Load, load_secret: Load) -> None:
    """A row of mlm is other text; that its masks were elsewhere could not be seen otherwise."""
    usual, secret = (
        load("mlm").splits["validation"]["weights"] for load in (load_mini, load_secret)
    )
    rows = min(len(usual), len(secret))
    agree = np.mean(usual[:rows] == secret[:rows])
    share = usual.mean()
    expected = share**2 + (1 - share) ** 2  # of two draws that know nothing of each other
    assert abs(agree - expected) < 4 * (expected * (1 - expected) / usual[:rows].size) ** 0.5


ROWS = {"train": 40, "validation": 20, "test": 20}
GOLDEN = {  # of what NumPy 2.4 draws; its `random` draws the same in every version
    "ag_news": "25fb61a2391bd55e70c31db390610bb98cd3cd137551b8de8947eaad42ed8034",
    "xsum": "4a9cc9567af7647c80392fc7712bdca2172a7c393c3a616058864acd68982a88",
}


def redrawn(name: str, seed: int) -> dict[str, Any]:
    if name == "ag_news":
        return dict(corpus.redraw(corpus.generate(0, *ROWS.values()), 0, seed))
    usual = generator.generate(0, ROWS)
    seen = {row.source for rows in usual.values() for row in rows}
    return dict(summarization_corpus.redraw(generator.make_row, 0, seed, ROWS, seen))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_secret_draws_the_same_rows_on_every_machine_and_another_others(name: str) -> None:
    drawn = redrawn(name, SEED)
    assert hashlib.sha256(json.dumps(drawn).encode()).hexdigest() == GOLDEN[name]
    other = redrawn(name, OTHER_SEED)
    assert drawn.keys() == other.keys() == set(HELD_OUT)
    texts = [
        {row[0] for row in (zip(*rows[split], strict=True) if name == "ag_news" else rows[split])}
        for rows in (drawn, other)
        for split in HELD_OUT
    ]
    assert len(set.union(*texts)) == sum(map(len, texts)) == 4 * 20


def test_a_text_that_is_known_is_drawn_anew() -> None:
    usual = corpus.generate(0, *ROWS.values())
    first = corpus.redraw(usual, 0, SEED)
    known = {**usual, "train": ([first["test"][0][3]], [0])}
    again = corpus.redraw(known, 0, SEED)
    differ = [old != new for old, new in zip(first["test"][0], again["test"][0], strict=True)]
    assert differ == [row == 3 for row in range(20)]
    assert again["validation"] == first["validation"]


LONG = "word " * 400


def test_a_secret_text_that_is_longer_than_all_others_is_cut(monkeypatch) -> None:
    """It would give the training rows more columns."""
    monkeypatch.setattr(ag_news, "BUILTIN_ROWS", {f"{split}_rows": 60 for split in SPLITS})
    settings = {"max_length": 3000, "vocab_size": 600, "tokenizer": "trained"}
    usual = ag_news.load("builtin", **settings)
    monkeypatch.setattr(corpus, "redraw", lambda *_: dict.fromkeys(HELD_OUT, ([LONG], [1])))
    drawn = ag_news.load("builtin", **settings, validation_seed=SEED)
    columns = usual.splits["train"]["inputs"].shape[1]
    assert columns < 400
    assert {rows["inputs"].shape[1] for rows in drawn.splits.values()} == {columns}
    assert drawn.notes["rows_cut"] == {"train": 0, "validation": 1, "test": 1}


def test_a_secret_source_that_is_longer_than_all_others_is_cut(monkeypatch) -> None:
    monkeypatch.setattr(summarization, "BUILTIN_ROWS", dict.fromkeys(SPLITS, 60))
    settings = {"max_source": 3000, "max_target": 60, "vocab_size": 600, "tokenizer": "trained"}
    usual = summarization.load(CORPUS, "builtin", **settings)
    row = summarization_corpus.Row(LONG, "a", "a")
    monkeypatch.setattr(summarization, "redraw", lambda *_: {split: [row] for split in HELD_OUT})
    drawn = summarization.load(CORPUS, "builtin", **settings, validation_seed=SEED)
    columns = usual.splits["train"]["inputs"].shape[1]
    assert columns < 400
    assert {rows["inputs"].shape[1] for rows in drawn.splits.values()} == {columns}
    cut = drawn.notes["rows_cut"]
    assert (cut["train"]["source"], cut["test"]["source"], cut["test"]["target"]) == (0, 1, 0)
    assert drawn.text.sources["test"] == [LONG]


def within(first: np.ndarray, second: np.ndarray, errors: float = 4.0) -> bool:
    """Whether two means differ by at most so many standard errors of their difference."""
    error = (first.var() / len(first) + second.var() / len(second)) ** 0.5
    return bool(abs(first.mean() - second.mean()) <= errors * error)


def test_word_counts_find_the_secret_rows_of_ag_news_as_hard() -> None:
    """The accuracy of bags of words on 1,500 rows has a standard error of 0.012."""
    text_features = pytest.importorskip("sklearn.feature_extraction.text")
    linear_model = pytest.importorskip("sklearn.linear_model")
    usual, drawn = ag_news.read("builtin"), ag_news.read("builtin", 0, SEED)
    texts, labels = (column[:2500] for column in usual["train"])
    vectorizer = text_features.TfidfVectorizer(min_df=2, sublinear_tf=True)
    model = linear_model.LogisticRegression(max_iter=200).fit(
        vectorizer.fit_transform(texts), labels
    )
    for split in HELD_OUT:
        right = [
            (model.predict(vectorizer.transform(rows[split][0])) == rows[split][1]).astype(float)
            for rows in (usual, drawn)
        ]
        assert 0.5 < right[0].mean() < 0.75
        assert within(*right)
        words = [
            np.array([len(text.split()) for text in rows[split][0]]) for rows in (usual, drawn)
        ]
        assert within(*words)
        counts = np.bincount(drawn[split][1])
        # Topics are balanced; of 90 noisy labels about 68 change what they are counted as.
        assert np.abs(counts - 375).max() < 4 * (90 * 0.75) ** 0.5


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_first_sentences_say_as_much_of_secret_summaries(
    name: str, load_mini: Load, load_secret: Load
) -> None:
    for split in HELD_OUT:
        shares, lengths = [], []
        for load in (load_mini, load_secret):
            text = load(name).text
            assert text is not None
            pairs = list(zip(text.sources[split], text.references[split], strict=True))
            shares.append(np.array([overlap(source, reference) for source, reference in pairs]))
            lengths.append(np.array([len(source.split()) for source, _ in pairs]))
        assert within(*shares)
        assert within(*lengths)


def overlap(source: str, reference: str) -> float:
    """The share of a reference's words that the source's first three sentences have."""
    known = set(summarization_corpus.lead(source, 3).lower().split())
    words = reference.lower().split()
    return sum(word in known for word in words) / len(words)


def test_as_many_secret_references_are_wrong() -> None:
    rows = {"train": 10, "validation": 300, "test": 200}
    drawn = summarization_corpus.redraw(generator.make_row, 0, SEED, rows, set())
    wrong = {split: sum(row.truth != row.reference for row in drawn[split]) for split in HELD_OUT}
    assert wrong == {"validation": 90, "test": 60}  # 30 %


@pytest.mark.parametrize("name", NAMES)
def test_both_frameworks_give_secret_rows_the_same_logits(name: str, load_secret: Load) -> None:
    definition, secret = catalogue.find(name), load_secret(name)
    rows = secret.splits["validation"].take(np.arange(16))
    data = Data({**dict.fromkeys(SPLITS, rows)}, model=secret.model, text=secret.text)
    pair = parity.bind(definition, definition.scales["mini"], "builtin", data, 1, 4)
    parity.logits(pair)

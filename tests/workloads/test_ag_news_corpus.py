"""The built-in news corpus: the same everywhere, honest about its ceiling, beyond word counts."""

import hashlib
import itertools
import json
import re

import numpy as np
import pytest

from workloads.ag_news import corpus, corpus_words

ROWS = {"train": 6000, "validation": 1000, "test": 1000}
GOLDEN_SHA256 = "cb2f33e5297a9caf2b6737d8c06028c6f0b2cb5c29628e05560e7e224098646a"
Splits = dict[str, corpus.Split]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return corpus.generate(3, *ROWS.values())


@pytest.fixture(scope="module")
def oracle_labels(splits: Splits) -> dict[str, np.ndarray]:
    return {
        name: np.array([read_topic(text) for text in texts]) for name, (texts, _) in splits.items()
    }


def phrase_pattern(topic: corpus_words.Topic) -> re.Pattern[str]:
    longest_first = sorted(topic.phrases, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(longest_first)})\b")


PATTERNS = [phrase_pattern(topic) for topic in corpus_words.TOPICS]


def read_topic(text: str) -> int:
    """Read the topic: drop the headline and the subordinate clause, count in the main clause."""
    first, second = text.removesuffix(".").split(". ")[1].split(", ")
    if any(first.startswith(cue + " ") for cue in corpus_words.LEADING):
        main = second
    else:
        assert any(second.startswith(cue + " ") for cue in corpus_words.TRAILING), text
        main = first
    counts = topic_counts(main)
    assert counts.count(max(counts)) == 1, text
    return counts.index(max(counts))


def topic_counts(text: str) -> list[int]:
    return [len(pattern.findall(text)) for pattern in PATTERNS]


def digest(splits: Splits) -> str:
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()


def test_the_same_seed_gives_the_same_rows_on_every_machine(splits: Splits) -> None:
    assert corpus.generate(3, *ROWS.values()) == splits
    assert digest(corpus.generate(0, 60, 20, 20)) == GOLDEN_SHA256


def test_another_seed_gives_other_rows(splits: Splits) -> None:
    texts, labels = corpus.generate(4, *ROWS.values())["train"]
    assert not set(texts) & set(splits["train"][0])
    assert labels != splits["train"][1]


def test_splits_have_the_rows_asked_for(splits: Splits) -> None:
    for name, (texts, labels) in splits.items():
        assert len(texts) == len(labels) == ROWS[name]
        assert all(type(label) is int for label in labels)


def test_no_text_occurs_twice(splits: Splits) -> None:
    texts = list(itertools.chain.from_iterable(texts for texts, _ in splits.values()))
    assert len(set(texts)) == len(texts)


def test_a_text_that_occurred_before_is_drawn_anew(splits: Splits) -> None:
    texts = splits["train"][0]
    rng = np.random.default_rng(np.random.SeedSequence([3, 0]))
    redrawn, _ = corpus._split(rng, ROWS["train"], {texts[5]})
    assert redrawn[5] != texts[5]
    assert redrawn[:5] + redrawn[6:] == texts[:5] + texts[6:]


def test_topics_are_balanced(splits: Splits, oracle_labels: dict[str, np.ndarray]) -> None:
    for name, (_, labels) in splits.items():
        assert np.bincount(oracle_labels[name]).tolist() == [ROWS[name] // 4] * 4
        assert np.bincount(labels) == pytest.approx([ROWS[name] / 4] * 4, rel=0.05)


def test_a_reader_of_the_structure_reaches_exactly_the_ceiling(
    splits: Splits, oracle_labels: dict[str, np.ndarray]
) -> None:
    for name, (_, labels) in splits.items():
        assert np.mean(oracle_labels[name] == labels) == corpus.ceiling(ROWS[name])
        assert corpus.ceiling(ROWS[name]) == pytest.approx(1 - corpus.LABEL_NOISE, abs=1e-12)


def test_noise_is_independent_of_the_topic(
    splits: Splits, oracle_labels: dict[str, np.ndarray]
) -> None:
    labels = np.array(splits["train"][1])
    pairs = np.zeros((4, 4), int)
    np.add.at(pairs, (oracle_labels["train"], labels), 1)
    expected = corpus.noisy_rows(ROWS["train"]) / 12
    off_diagonal = pairs[~np.eye(4, dtype=bool)]
    assert off_diagonal.sum() == corpus.noisy_rows(ROWS["train"])
    assert np.all(np.abs(off_diagonal - expected) < 4.5 * expected**0.5)


def test_ceiling_counts_whole_rows() -> None:
    assert corpus.noisy_rows(30) == 2
    assert corpus.ceiling(30) == 28 / 30
    texts, labels = corpus.generate(0, 30, 4, 4)["train"]
    assert sum(read_topic(text) != label for text, label in zip(texts, labels, strict=True)) == 2


def test_in_mixed_articles_another_topic_has_as_many_words(
    splits: Splits, oracle_labels: dict[str, np.ndarray]
) -> None:
    counts = np.array([topic_counts(text) for text in splits["validation"][0]])
    topics = oracle_labels["validation"]
    own = counts[np.arange(topics.size), topics]
    counts[np.arange(topics.size), topics] = -1
    lead = counts.max(axis=1) - own
    assert np.mean(lead >= 0) > 0.35
    assert np.mean(lead > 0) > 0.1


def test_both_clause_orders_occur_equally(splits: Splits) -> None:
    texts = splits["train"][0]
    leading = [any(f". {cue} " in text for cue in corpus_words.LEADING) for text in texts]
    assert np.mean(leading) == pytest.approx(0.5, abs=0.03)


def test_vocabularies_are_rich_and_overlap() -> None:
    for topic in corpus_words.TOPICS:
        assert len(set(topic.phrases)) == len(topic.phrases) >= 85
    for one, other in itertools.combinations(corpus_words.TOPICS, 2):
        assert set(one.phrases) & set(other.phrases)
        assert not set(one.verbs) & set(other.phrases)


def test_articles_are_short(splits: Splits) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    texts = splits["train"][0]
    words = [len(text.split()) for text in texts]
    assert min(words) >= 20
    assert max(words) <= 40
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=2048, show_progress=False)
    assert max(len(row.ids) for row in tokenizer.encode_batch(splits["validation"][0])) <= 48


def test_word_counts_stay_far_below_the_ceiling(splits: Splits) -> None:
    text_features = pytest.importorskip("sklearn.feature_extraction.text")
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectorizer = text_features.TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    train_texts, train_labels = splits["train"]
    texts, labels = splits["validation"]
    model = linear_model.LogisticRegression(C=1, max_iter=100)
    model.fit(vectorizer.fit_transform(train_texts), train_labels)
    accuracy = model.score(vectorizer.transform(texts), labels)
    assert 0.6 < accuracy < corpus.ceiling(len(labels)) - 0.2

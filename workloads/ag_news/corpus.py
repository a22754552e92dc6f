"""The built-in corpus of AG News' mini scale: seeded, synthetic short news in four topics.

An article is a headline and a sentence of two clauses, one main and one subordinate, in either
order. The topic of the main clause is the label. In a share of `MIXED_SHARE` of the articles the
subordinate clause is about another topic:

    Lorvale: video game, ballot. Although the local engineers decoded the laser and the comet this
    week, the veteran envoy vetoed the latest referendum and coalition in Caldria.        -> World

Both clauses come from one grammar, and the headline names one object of each in random order. So
the words of a mixed article are as likely under one label as under the other: a model that only
counts words has to guess, and reaches about (1 - MIXED_SHARE / 2) of the ceiling. To do better, a
model has to learn which clause the conjunction subordinates, and a small causal transformer can.

A share of `LABEL_NOISE` of the rows of every split, rounded to whole rows, has the label of another
topic; otherwise the label is a function of the text. `ceiling` is therefore exact, and no model can
do better except by luck. Every name is invented (see corpus_words).
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from workloads.ag_news import corpus_words as words

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
SPLITS = ("train", "validation", "test")
LABEL_NOISE = 0.06
MIXED_SHARE = 0.6
DRAWS = 40  # This is more than any article needs.

Split = tuple[list[str], list[int]]
Pick = Callable[[tuple[str, ...]], str]


def noisy_rows(rows: int) -> int:
    """Return how many of a split's rows have a wrong label."""
    return round(LABEL_NOISE * rows)


def ceiling(rows: int) -> float:
    """Return the best accuracy possible on a split of so many rows, other than by luck.

    It is the accuracy of a reader who knows the topic of every article.
    """
    return 1 - noisy_rows(rows) / rows


def generate(seed: int, train_rows: int, validation_rows: int, test_rows: int) -> dict[str, Split]:
    """Return the texts of every split and their labels (indices of `CLASSES`).

    Topics are balanced before the noise. No text occurs twice, within a split or across splits.

    Args:
        seed: The seed of the random draws.
        train_rows: The number of rows of the training split.
        validation_rows: The number of rows of the validation split.
        test_rows: The number of rows of the test split.
    """
    rows = dict(zip(SPLITS, (train_rows, validation_rows, test_rows), strict=True))
    seen: set[str] = set()
    return {
        split: _split(
            np.random.default_rng(np.random.SeedSequence([seed, index])), rows[split], seen
        )
        for index, split in enumerate(SPLITS)
    }


def redraw(splits: Mapping[str, Split], seed: int, validation_seed: int) -> dict[str, Split]:
    """Return other validation and test splits, of as many rows and of the same distribution.

    No text occurs twice among them, nor in the splits that were drawn before.

    Args:
        splits: What `generate` returned.
        seed: The seed that it was given.
        validation_seed: The seed of the random draws, a secret of an organiser.
    """
    seen = {text for texts, _ in splits.values() for text in texts}
    return {
        split: _split(
            np.random.default_rng(np.random.SeedSequence([seed, index, validation_seed])),
            len(splits[split][0]),
            seen,
        )
        for index, split in enumerate(SPLITS)
        if split != "train"
    }


def _split(rng: np.random.Generator, rows: int, seen: set[str]) -> Split:
    """Draw the rows of one split, with texts unlike those `seen` so far.

    It uses `rng.random` alone, because the stream of that function is fixed.
    """
    topics = _shuffled(rng, rows) % len(CLASSES)
    flipped = _shuffled(rng, rows)[: noisy_rows(rows)]
    shifts = 1 + (rng.random(flipped.size) * (len(CLASSES) - 1)).astype(np.int64)
    labels = topics.copy()
    labels[flipped] = (topics[flipped] + shifts) % len(CLASSES)
    texts = []
    for topic, draws in zip(topics.tolist(), rng.random((rows, DRAWS)).tolist(), strict=True):
        text = _article(topic, draws)
        while text in seen:
            text = _article(topic, rng.random(DRAWS).tolist())
        seen.add(text)
        texts.append(text)
    return texts, labels.tolist()


def _shuffled(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return the numbers from 0 to rows - 1 in random order."""
    return np.argsort(rng.random(rows), kind="stable")


def _article(topic: int, draws: list[float]) -> str:
    """Return an article about `topic`, which the numbers `draws` in [0, 1) determine."""
    draw = iter(draws).__next__

    def pick(options: tuple[str, ...]) -> str:
        return options[int(draw() * len(options))]

    is_mixed, shift = draw() < MIXED_SHARE, 1 + int(draw() * (len(CLASSES) - 1))
    main = words.TOPICS[topic]
    side = words.TOPICS[(topic + shift * is_mixed) % len(CLASSES)]
    own = pick(main.objects)
    named = [own, pick(_without(side.objects, own))]
    if draw() < 0.5:
        named.reverse()
    main_clause, side_clause = _clause(main, pick), _clause(side, pick)
    if draw() < 0.5:
        body = f"{pick(words.LEADING)} {side_clause}, {main_clause}."
    else:
        body = f"{main_clause[0].upper()}{main_clause[1:]}, {pick(words.TRAILING)} {side_clause}."
    return f"{pick(words.SOURCES)}: {named[0]}, {named[1]}. {body}"


def _clause(topic: words.Topic, pick: Pick) -> str:
    """Return a clause: who did what to which two things, and where or when.

    The grammar is the same for main and subordinate clauses.
    """
    agent = pick(words.AGENTS).format(
        agent=pick(topic.agents), organisation=pick(words.ORGANISATIONS)
    )
    first = pick(topic.objects)
    second = pick(_without(topic.objects, first))
    deed = f"{agent} {pick(topic.verbs)} {pick(words.OBJECTS).format(first, second)}"
    circumstance = pick(words.CIRCUMSTANCES).format(place=pick(words.PLACES), day=pick(words.DAYS))
    return pick(words.ORDERS).format(deed=deed, circumstance=circumstance)


@functools.cache
def _without(things: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(thing for thing in things if thing != one)

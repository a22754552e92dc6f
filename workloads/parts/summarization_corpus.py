"""Tools of the built-in generators of summarization workloads: seeded draws, noise, baselines.

A generator makes rows. A row is a source, its true summary (a function of facts stated in the
source) and the reference: the true summary or, in a share of `FACT_NOISE` of the rows of every
split, a summary that states one fact wrongly. Which fact is wrong cannot be known from the source,
so no model can score better than the true summaries do: their score against the references is the
ceiling. Every name is invented.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from algoperf.workload import SPLITS

FACT_NOISE = 0.3
DRAWS = 64  # This is more than any row needs.
Facts = dict[str, str]
T = TypeVar("T")
TURN = re.compile(r"[^\s:][^:]{0,40}:\s")  # A turn of a dialogue begins with 'Name: '.
SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


class Row(NamedTuple):
    """One generated row of a summarization data set.

    Attributes:
        source: The text to summarize.
        truth: The summary that follows from the source.
        reference: The summary to train on and to score against: `truth`, or one with a wrong fact.
    """

    source: str
    truth: str
    reference: str


class Picker:
    """Choices determined by a list of numbers in [0, 1), so that every machine makes the same ones.

    Args:
        draws: The numbers, which the choices use up one by one.
    """

    def __init__(self, draws: list[float]) -> None:
        self.draw = iter(draws).__next__

    def one(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.draw() * len(options))]

    def several(self, options: Sequence[T], count: int) -> list[T]:
        """Return `count` different options in random order."""
        left = list(options)
        return [left.pop(int(self.draw() * len(left))) for _ in range(count)]


Make = Callable[[Picker, bool], Row]


def words(text: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated word list; a line break counts as a space."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


def generate(make: Make, seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Generate the rows of every split.

    Args:
        make: A function `make(pick, is_wrong)` that makes one row; the reference states a fact
            wrongly where `is_wrong`.
        seed: The seed of the random draws.
        rows: The number of rows of each split.

    Returns:
        The rows by split. No source occurs twice, within a split or across splits.
    """
    seen: set[str] = set()
    return {
        split: _split(
            make, np.random.default_rng(np.random.SeedSequence([seed, index])), rows[split], seen
        )
        for index, split in enumerate(SPLITS)
    }


def redraw(
    make: Make, seed: int, validation_seed: int, rows: Mapping[str, int], seen: set[str]
) -> dict[str, list[Row]]:
    """Generate other validation and test rows, of the same distribution.

    Args:
        make: As of `generate`.
        seed: The seed that `generate` was given.
        validation_seed: The seed of the random draws, a secret of an organiser.
        rows: The number of rows of each split.
        seen: The sources of all rows that `generate` returned; those of the new rows are added.

    Returns:
        The rows of 'validation' and 'test'. None of their sources occurs twice, nor among `seen`.
    """
    return {
        split: _split(
            make,
            np.random.default_rng(np.random.SeedSequence([seed, index, validation_seed])),
            rows[split],
            seen,
        )
        for index, split in enumerate(SPLITS)
        if split != "train"
    }


def _split(make: Make, rng: np.random.Generator, rows: int, seen: set[str]) -> list[Row]:
    """Draw the rows of one split, with sources unlike those `seen` so far.

    It uses `rng.random` alone, because the stream of that function is fixed.
    """
    is_wrong = np.zeros(rows, bool)
    is_wrong[np.argsort(rng.random(rows), kind="stable")[: round(FACT_NOISE * rows)]] = True
    rows_of_split = []
    for wrong, draws in zip(is_wrong.tolist(), rng.random((rows, DRAWS)).tolist(), strict=True):
        row = make(Picker(draws), wrong)
        while row.source in seen:
            row = make(Picker(rng.random(DRAWS).tolist()), wrong)
        seen.add(row.source)
        rows_of_split.append(row)
    return rows_of_split


def spoil(facts: Facts, options: Mapping[str, Sequence[str]], pick: Picker) -> Facts:
    """Return facts of which one, drawn at random, is replaced by a wrong one.

    Args:
        facts: The facts by name.
        options: The values that a fact may have, for each fact that may be replaced.
        pick: The source of random choices.
    """
    name = pick.one(tuple(options))
    value, other = pick.several(options[name], 2)
    return {**facts, name: other if value == facts[name] else value}


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, or the turns of a dialogue.

    A sentence also ends where its line does. A text is a dialogue if it has several lines and each
    begins with 'Name: '.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(TURN.match(line) for line in lines):
        return lines
    return [sentence for line in lines for sentence in SENTENCE_END.split(line.strip())]


def lead(text: str, count: int) -> str:
    """Return the first `count` sentences, one per line, as a trivial summary (See et al. 2017)."""
    return "\n".join(sentences(text)[:count])


PLACES = words("""
    Brenholt, Norvasia, Keldmoor, Ostravel, Tarnwick, Velmaria, Quillon, Zarenburg, Fennmark,
    Lorvale, Mirefield, Dunhaven, Caldria, Westmarch, Arvenia, Pellstad, Ilmara, Rothwyn,
    Sundervik, Hallowick, Telmora, Grenwald, Ashkara, Lissemouth, Oxmere, Varnhill, Tollbeck,
    Ninecross, Embersea, Wickram, Draymoor, Selvany, Harnock, Culverby, Morvane, Stellmark,
    Inverlow, Brackney, Yelland, Corvik""")
PEOPLE = words("""
    Kester, Varrow, Ilvane, Dorne, Maskell, Tolliver, Brandtner, Oyelu, Sarkin, Fenwether, Quist,
    Rademar, Lindqvar, Okonde, Petrask, Yarrowby, Zimmel, Castanel, Moritane, Belk, Aldous, Brisk,
    Corran, Drayle, Esker, Fallow, Gantry, Hesper, Iverne, Jorrik, Kellam, Lorimar, Mundy, Nethers,
    Orbeck, Pruett, Rusk, Sorley, Tarbet, Wexley""")
DAYS = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")

"""What the built-in generators of the summarization workloads share: seeded draws, noise, trivial
baselines.

A generator makes rows. A row is a source, its true summary (a function of facts stated in the
source) and the reference: the true summary, or in a `FACT_NOISE` of the rows of every split a
summary that states one fact wrongly. What is wrong cannot be known from the source, so nothing
scores better than the true summaries do: their score against the references is the ceiling.
Every name is invented.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from algoperf.workload import SPLITS

FACT_NOISE = 0.3
DRAWS = 64  # more than any row needs
Facts = dict[str, str]
T = TypeVar("T")
TURN = re.compile(r"[^\s:][^:]{0,40}:\s")  # 'Name: ' before what a speaker says
SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


class Row(NamedTuple):
    """One generated row; `reference` is `truth`, or states one fact wrongly."""

    source: str
    truth: str
    reference: str


class Picker:
    """Choices that are functions of numbers in [0, 1): the same on every machine."""

    def __init__(self, draws: list[float]) -> None:
        self.draw = iter(draws).__next__

    def one(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self.draw() * len(options))]

    def several(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options in random order."""
        left = list(options)
        return [left.pop(int(self.draw() * len(left))) for _ in range(count)]


Make = Callable[[Picker, bool], Row]


def words(text: str) -> tuple[str, ...]:
    """The comma-separated entries of a word list."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


def generate(make: Make, seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Return for each split its rows; no source occurs twice, within a split or across splits.

    `make(pick, is_wrong)` makes a row; `is_wrong` rows are those whose reference states a fact
    wrongly.
    """
    seen: set[str] = set()
    return {
        split: _split(
            make, np.random.default_rng(np.random.SeedSequence([seed, index])), rows[split], seen
        )
        for index, split in enumerate(SPLITS)
    }


def _split(make: Make, rng: np.random.Generator, rows: int, seen: set[str]) -> list[Row]:
    """Draw one split, unlike the sources `seen` so far. `rng.random` alone: its stream is fixed."""
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
    """Return the facts with one of those in `options` replaced by another of its options."""
    name = pick.one(tuple(options))
    value, other = pick.several(options[name], 2)
    return {**facts, name: other if value == facts[name] else value}


def sentences(text: str) -> list[str]:
    """The sentences of a text, which end at a line's end too; of a dialogue, its turns."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(TURN.match(line) for line in lines):
        return lines
    return [sentence for line in lines for sentence in SENTENCE_END.split(line.strip())]


def lead(text: str, count: int) -> str:
    """The first `count` sentences, one a line: the usual trivial summary (See et al. 2017)."""
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

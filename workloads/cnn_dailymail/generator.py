"""The built-in articles of CNN/DailyMail: many sentences, and three highlights.

    Trains were quiet at dawn. By Monday flames had eaten half of Corvik. Nothing new was said of
    Ashkara all week. Meanwhile the Ravens had seen the ball in their net six times. [...]
        -> Fire guts Corvik .
           Rout shames Ravens .
           Prize honours Embers .

An article states four facts, each about a subject of another kind, among sentences that state none.
The highlights are of the three weightiest facts, which are those whose kinds come first in `KINDS`.
They follow the order of `KINDS`, wherever the facts stand in the article, and use other words than
the article. An article also names subjects of the same kinds of whom nothing new was said.
"""

from collections.abc import Mapping
from typing import NamedTuple

from workloads.parts.summarization_corpus import (
    DAYS,
    PEOPLE,
    PLACES,
    Facts,
    Picker,
    Row,
    spoil,
    words,
)
from workloads.parts.summarization_corpus import generate as generate_rows

FACTS, HIGHLIGHTS, SCENES, DISTRACTORS = 4, 3, 2, 1


class Kind(NamedTuple):
    """One kind of fact: its subjects, and the events that can happen to them.

    Attributes:
        subjects: Names of persons, places or things.
        events: Pairs of texts, in the article and in the highlight, with {} in place of the
            subject.
    """

    subjects: tuple[str, ...]
    events: tuple[tuple[str, str], ...]


KINDS = (  # The weightiest kinds come first.
    Kind(
        PLACES[:16],
        (
            ("water stood in every street of {}", "Flood drowns {} ."),
            ("the ground shook under {}", "Quake rocks {} ."),
            ("flames had eaten half of {}", "Fire guts {} ."),
            ("a wind had the roofs off in {}", "Storm batters {} ."),
        ),
    ),
    Kind(
        PEOPLE[:16],
        (
            ("nobody had seen {} for days", "Search for {} begins ."),
            ("officers put {} in handcuffs", "Police arrest {} ."),
            ("the court gave {} nine years in a cell", "Judge jails {} ."),
            ("most voters had put a cross beside {}", "Election won by {} ."),
        ),
    ),
    Kind(
        words("""Aldertek, Bromwell, Cindrex, Dovetail, Eastmark, Ferrolux, Granary, Hexafoil,
            Ironleaf, Jadewing, Kilnhouse, Loomcraft, Marlstone, Northgate, Quaymark, Rowanby"""),
        (
            ("{} could no longer pay its debts", "Bankruptcy ends {} ."),
            ("workers at {} laid down their tools", "Strike hits {} ."),
            ("a larger firm took over {}", "Rival buys {} ."),
            ("no bank would lend to {}", "Lenders shun {} ."),
        ),
    ),
    Kind(
        words("""Otters, Ravens, Foxes, Badgers, Herons, Stallions, Wolves, Falcons, Panthers,
            Hornets, Bisons, Sharks, Cobras, Lynxes, Eagles, Rovers"""),
        (
            ("nobody had scored more than the {}", "Title goes to {} ."),
            ("the {} had seen the ball in their net six times", "Rout shames {} ."),
            ("the {} had a new man on the bench", "Coach joins {} ."),
            ("half of the {} could not run for pain", "Injuries weaken {} ."),
        ),
    ),
    Kind(
        words("""Embers, Tides, Shadows, Mirrors, Orchards, Whispers, Thunder, Autumn, Exile,
            Voyage, Midnight, Silence, Horizon, Marble, Velvet, Lanterns"""),
        (
            ("all seats for the play {} were taken", "Crowds flock to {} ."),
            ("no critic had a good word for the film {}", "Reviews bury {} ."),
            ("the novel {} got a medal", "Prize honours {} ."),
            ("schools took the book {} off the shelf", "Censors ban {} ."),
        ),
    ),
)
SCENERY = words("""
    Roads, Schools, Shops, Trains, Markets, Offices, Theatres, Hotels, Gardens, Harbours""")
STATES = words("stayed open, were quiet, looked busy, closed early, were crowded")
TIMES = words("all week, for hours, until noon, at dawn, as usual, in the rain")
PLACING = "On {day} {fact}.", "By {day} {fact}.", "Meanwhile {fact}."


def generate(seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Return the rows of every split (see `summarization_corpus.generate`)."""
    return generate_rows(make_row, seed, rows)


def make_row(pick: Picker, is_wrong: bool) -> Row:
    """Return one row (see `summarization_corpus.generate`)."""
    kinds = pick.several(range(len(KINDS)), FACTS)
    events = {kind: pick.one(KINDS[kind].events) for kind in kinds}
    subjects = {kind: pick.several(KINDS[kind].subjects, 2) for kind in kinds}
    sentences = [
        pick.one(PLACING).format(day=pick.one(DAYS), fact=events[kind][0].format(subjects[kind][0]))
        for kind in kinds
    ]
    asides = [f"Nothing new was said of {subjects[kind][1]} {pick.one(TIMES)}." for kind in kinds]
    asides = pick.several(asides, DISTRACTORS)
    asides += [f"{pick.one(SCENERY)} {pick.one(STATES)} {pick.one(TIMES)}." for _ in range(SCENES)]
    for sentence in asides:
        sentences.insert(int(pick.draw() * (len(sentences) + 1)), sentence)
    weightiest = sorted(kinds)[:HIGHLIGHTS]
    facts: Facts = {str(kind): subjects[kind][0] for kind in weightiest}
    options = {str(kind): KINDS[kind].subjects for kind in weightiest}
    stated = spoil(facts, options, pick) if is_wrong else facts
    headlines = [events[kind][1] for kind in weightiest]
    return Row(" ".join(sentences), _highlights(headlines, facts), _highlights(headlines, stated))


def _highlights(headlines: list[str], facts: Facts) -> str:
    """Return one highlight per line, with a space before its full stop as in the real data set."""
    pairs = zip(headlines, facts.values(), strict=True)
    return "\n".join(headline.format(subject) for headline, subject in pairs)

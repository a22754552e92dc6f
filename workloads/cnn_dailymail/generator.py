"""CNN/DailyMail's built-in articles: many sentences; highlights of the three weightiest facts.

An article states four facts among sentences that state none. `EVENTS` is in the order of weight:
the highlights are of the three facts that come first there, in that order, wherever in the article
they stand, and in other words than the article's.
"""

from collections.abc import Mapping

from workloads.summarization_corpus import DAYS, PEOPLE, PLACES, Facts, Picker, Row, spoil, words
from workloads.summarization_corpus import generate as generate_rows

FACTS, HIGHLIGHTS, FILLERS = 4, 3, 3
EVENTS = (  # (in the article, in the highlight), the weightiest first
    ("{0} lost his life below a wall in {1}", "Collapse kills {0} in {1} ."),
    ("nobody has seen {0} since he left {1}", "Search for {0} begins at {1} ."),
    ("{0} was carried unconscious from {1}", "Doctors treat {0} of {1} ."),
    ("{0} was put in handcuffs by officers in {1}", "Police arrest {0} near {1} ."),
    ("{0} got nine years in a cell in {1}", "Judge jails {0} for {1} theft ."),
    ("{0} gave up his post as mayor of {1}", "Leader {0} resigns over {1} ."),
    ("most voters of {1} put a cross beside {0}", "Election won by {0} in {1} ."),
    ("{0} must pay a large sum to {1}", "Court fines {0} after {1} case ."),
    ("{0} told men to lay down tools in {1}", "Strike led by {0} hits {1} ."),
    ("{0} can no longer pay debts in {1}", "Bank ruins {0} and {1} firm ."),
    ("{0} came first in a race at {1}", "Champion {0} triumphs at {1} ."),
    ("{0} scored twice against {1}", "Striker {0} beats {1} ."),
    ("{0} put a ring on a singer from {1}", "Actor {0} marries {1} star ."),
    ("{0} found old bones beneath {1}", "Scientist {0} digs up {1} fossil ."),
    ("{0} will put up new homes outside {1}", "Builder {0} expands {1} suburb ."),
    ("{0} put up for sale a house in {1}", "Owner {0} sells {1} villa ."),
    ("{0} lost a suitcase on the way to {1}", "Traveller {0} misses {1} luggage ."),
    ("{0} baked a very large cake for {1}", "Baker {0} feeds {1} ."),
    ("{0} grew the biggest pumpkin of {1}", "Gardener {0} amazes {1} ."),
    ("{0} taught his parrot the anthem of {1}", "Parrot of {0} sings for {1} ."),
)
SUBJECTS = words("""
    Roads, Schools, Shops, Trains, Markets, Offices, Theatres, Hotels, Gardens, Harbours""")
STATES = words("stayed open, were quiet, looked busy, closed early, were crowded")
TIMES = words("all week, for hours, until noon, at dawn, as usual, in the rain")
PLACING = "On {day} {fact}.", "By {day} {fact}.", "Now {fact}."


def generate(seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Return the rows of every split (see `summarization_corpus.generate`)."""
    return generate_rows(_row, seed, rows)


def _row(pick: Picker, is_wrong: bool) -> Row:
    kinds = pick.several(range(len(EVENTS)), FACTS)
    people, places = pick.several(PEOPLE, FACTS), pick.several(PLACES, FACTS)
    sentences = [
        pick.one(PLACING).format(day=pick.one(DAYS), fact=EVENTS[kind][0].format(person, place))
        for kind, person, place in zip(kinds, people, places, strict=True)
    ]
    for _ in range(FILLERS):
        filler = f"{pick.one(SUBJECTS)} {pick.one(STATES)} {pick.one(TIMES)}."
        sentences.insert(int(pick.draw() * (len(sentences) + 1)), filler)
    weightiest = sorted(zip(kinds, people, places, strict=True))[:HIGHLIGHTS]
    facts: Facts = {}
    options: dict[str, tuple[str, ...]] = {}
    for rank, (_, person, place) in enumerate(weightiest):
        facts |= {f"person{rank}": person, f"place{rank}": place}
        options |= {f"person{rank}": PEOPLE, f"place{rank}": PLACES}
    kinds = [kind for kind, _, _ in weightiest]
    stated = spoil(facts, options, pick) if is_wrong else facts
    return Row(" ".join(sentences), _highlights(kinds, facts), _highlights(kinds, stated))


def _highlights(kinds: list[int], facts: Facts) -> str:
    """One highlight a line, its full stop after a space, as in the data set."""
    return "\n".join(
        EVENTS[kind][1].format(facts[f"person{rank}"], facts[f"place{rank}"])
        for rank, kind in enumerate(kinds)
    )

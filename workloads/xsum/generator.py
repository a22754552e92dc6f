"""The built-in news of XSum: a few short sentences, summed up in a single sentence.

    Last year two ferries were carried off by thieves in Yelland. Belk ruled out a drought. Four
    geese lay dead in Oxmere on Friday. Kester pointed to a frost. Another three ducks met the
    same fate.
        -> Seven birds perished in Oxmere after frost, Kester says.

The summary restates: it adds the two counts, names the animals or things by their kind, and has
other words for the event. It also selects: last year's event and the cause that was ruled out do
not belong to it. The sentences come in random order.
"""

from collections.abc import Mapping

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

NUMBERS = words("""
    two, three, four, five, six, seven, eight, nine, ten, eleven, twelve""")
GROUPS = {
    "birds": words("geese, ducks, hens, swans"),
    "boats": words("canoes, ferries, yachts, barges"),
    "instruments": words("violins, drums, flutes, harps"),
    "vehicles": words("vans, lorries, tractors, buses"),
    "tools": words("hammers, saws, drills, spades"),
    "garments": words("coats, shawls, gloves, hats"),
    "flowers": words("tulips, roses, lilies, daisies"),
    "trees": words("oaks, elms, pines, birches"),
    "fruits": words("pears, plums, figs, melons"),
    "buildings": words("barns, chapels, mills, cottages"),
    "toys": words("dolls, kites, puppets, marbles"),
    "snacks": words("biscuits, pies, waffles, pretzels"),
}
EVENTS = {  # The keys stand in the article, the values in the summary.
    "were carried off by thieves": "stolen",
    "went up in flames": "burnt",
    "were pulled from the river": "rescued",
    "changed hands at an auction": "sold",
    "lay dead": "perished",
    "could not be found": "missing",
    "came to light under a floor": "discovered",
    "were taken away by officers": "seized",
    "went on show in the hall": "displayed",
    "were smashed to pieces": "destroyed",
    "got a fresh coat of red": "painted",
    "were handed back to their owners": "returned",
    "were given to the poor": "donated",
    "were put behind a fence": "protected",
    "turned out to be fakes": "forged",
    "left for a museum abroad": "exported",
}
CAUSES = words("""
    frost, drought, storm, flood, strike, quarrel, wedding, festival, rumour, blackout, earthquake,
    eclipse, parade, heatwave, election, shortage, riot, landslide, holiday, siege, epidemic,
    merger, scandal, carnival, avalanche, protest, feud, fog, tornado, ceremony, boycott, lawsuit,
    outage, leak, wager, dare, prank, mutiny, robbery, plague""")
REASONS = words("pointed to a, put it down to a, blamed a, traced it to a")
DENIALS = words("ruled out a, saw no sign of a, would not speak of a")
REPEATS = words("met the same fate, followed later, soon shared their lot")
SPOILABLE = {"count": tuple(number.capitalize() for number in NUMBERS[2:]), "place": PLACES,
             "cause": CAUSES, "person": PEOPLE}  # fmt: skip
MOST = 5  # Either count is one of this many numbers, starting from two.


def generate(seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Return the rows of every split (see `summarization_corpus.generate`)."""
    return generate_rows(make_row, seed, rows)


def make_row(pick: Picker, is_wrong: bool) -> Row:
    """Return one row (see `summarization_corpus.generate`)."""
    group, other_group = pick.several(tuple(GROUPS), 2)
    event, other_event = pick.several(tuple(EVENTS), 2)
    town, other_place = pick.several(PLACES, 2)
    cause, other_cause = pick.several(CAUSES, 2)
    person, other_person = pick.several(PEOPLE, 2)
    first, second = pick.several(GROUPS[group], 2)
    counts = int(pick.draw() * MOST), int(pick.draw() * MOST)
    story = [
        f"{NUMBERS[counts[0]].capitalize()} {first} {event} in {town} on {pick.one(DAYS)}.",
        f"Another {NUMBERS[counts[1]]} {second} {pick.one(REPEATS)}.",
    ]
    asides = pick.several(
        (
            f"{person} {pick.one(REASONS)} {cause}.",
            f"{other_person} {pick.one(DENIALS)} {other_cause}.",
            f"Last year {pick.one(NUMBERS)} {pick.one(GROUPS[other_group])} {other_event} in "
            f"{other_place}.",
        ),
        3,
    )
    for sentence in asides:  # An aside may stand anywhere in the story, which keeps its order.
        story.insert(int(pick.draw() * (len(story) + 1)), sentence)
    facts = {
        "count": NUMBERS[counts[0] + counts[1] + 2].capitalize(),
        "group": group,
        "event": EVENTS[event],
        "place": town,
        "cause": cause,
        "person": person,
    }
    stated = spoil(facts, SPOILABLE, pick) if is_wrong else facts
    return Row(" ".join(story), _summary(facts), _summary(stated))


def _summary(facts: Facts) -> str:
    return "{count} {group} {event} in {place} after {cause}, {person} says.".format(**facts)

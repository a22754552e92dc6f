"""The built-in dialogues of SAMSum: two people chat about two others.

    Ilka: Hi Borin! any news of Tessaly and Hadro?
    Borin: he knocked over the lantern and she picked up a violin.
    Ilka: how funny! I would love a hammock.
    Borin: my aunt found a globe.
        -> Hadro broke the lantern, Tessaly bought a violin and Ilka wants a hammock.

The summary says who did what. It resolves 'he' and 'she' (by the gender that a name has) and 'I'
(by the speaker), restates each deed in other words, and leaves out the rest of the chat, including
the deed of a relative.
"""

from collections.abc import Mapping

from workloads.parts.summarization_corpus import Facts, Picker, Row, spoil, words
from workloads.parts.summarization_corpus import generate as generate_rows

WOMEN = words("""
    Ilka, Tessaly, Orla, Venna, Maribeth, Sunniva, Dagny, Petra, Liora, Runa, Calista, Bryony,
    Elspeth, Fenella, Ginevra, Hestia, Isaura, Jorunn, Katinka, Ludmila""")
MEN = words("""
    Borin, Hadro, Kasper, Leofric, Anselm, Tibor, Gustav, Rurik, Emeric, Florian, Caspian, Dorian,
    Ewald, Fergus, Gideon, Halvard, Ivo, Jarek, Konrad, Lazlo""")
NAMES = WOMEN + MEN
THINGS = words("""
    lantern, violin, hammock, teapot, carpet, mirror, bicycle, kettle, candle, pillow, ladder,
    basket, necklace, parasol, guitar, blanket, camera, suitcase, helmet, trumpet, hammer, bucket,
    clock, saddle, scarf, telescope, wallet, puzzle, sofa, tent, kayak, mattress, piano, wardrobe,
    globe, statue, fountain, cradle, canoe, sledge""")
DEEDS = {  # The keys stand in the dialogue, the values in the summary.
    "picked up a {0}": "bought a {0}",
    "can't find the {0}": "lost the {0}",
    "would love a {0}": "wants a {0}",
    "got rid of the {0}": "sold the {0}",
    "put the {0} back together": "repaired the {0}",
    "gave away the {0}": "donated the {0}",
    "knocked over the {0}": "broke the {0}",
    "ran off with the {0}": "stole the {0}",
    "could do without the {0}": "dislikes the {0}",
    "made a {0} from scratch": "built a {0}",
    "came across a {0}": "found a {0}",
    "set fire to the {0}": "burnt the {0}",
    "put the {0} under the bed": "hid the {0}",
    "sent off for a {0}": "ordered a {0}",
    "will bring back the {0}": "returns the {0}",
    "got the dirt off the {0}": "cleaned the {0}",
}
QUESTIONS = words("any news of, have you seen, what about, how are")
REACTIONS = words("how funny, oh dear, no way, well well, that's great, poor thing")
RELATIVES = words("aunt, uncle, cousin, sister, brother, boss, neighbour, landlord")


def generate(seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Return the rows of every split (see `summarization_corpus.generate`)."""
    return generate_rows(make_row, seed, rows)


def make_row(pick: Picker, is_wrong: bool) -> Row:
    """Return one row (see `summarization_corpus.generate`)."""
    women, men = pick.several(WOMEN, 3), pick.several(MEN, 3)
    asker, teller = pick.several((women[0], men[0], women[1], men[1]), 2)
    absent = pick.several((women[2], men[2]), 2)
    pronoun = pick.several((("she", women[2]), ("he", men[2])), 2)
    deeds, things = pick.several(tuple(DEEDS), 4), pick.several(THINGS, 4)
    clauses = [deed.format(thing) for deed, thing in zip(deeds, things, strict=True)]
    question = f"{asker}: Hi {teller}! {pick.one(QUESTIONS)} {absent[0]} and {absent[1]}?"
    news = f"{teller}: {pronoun[0][0]} {clauses[0]} and {pronoun[1][0]} {clauses[1]}."
    reaction = f"{pick.one(REACTIONS)}! I {clauses[2]}."
    aside = f"my {pick.one(RELATIVES)} {clauses[3]}."
    if pick.draw() < 0.5:  # This decides which of the two says 'I'.
        speaker, turns = asker, [f"{asker}: {reaction}", f"{teller}: {aside}"]
    else:
        speaker, turns = teller, [f"{asker}: {aside}", f"{teller}: {reaction}"]
    facts = {"name0": pronoun[0][1], "name1": pronoun[1][1], "name2": speaker}
    facts |= {f"thing{index}": thing for index, thing in enumerate(things[:3])}
    options = {name: NAMES if name.startswith("name") else THINGS for name in facts}
    stated = spoil(facts, options, pick) if is_wrong else facts
    deeds = [DEEDS[deed] for deed in deeds[:3]]
    return Row("\n".join([question, news, *turns]), _summary(deeds, facts), _summary(deeds, stated))


def _summary(deeds: list[str], facts: Facts) -> str:
    first, second, third = (
        f"{facts[f'name{index}']} {deed.format(facts[f'thing{index}'])}"
        for index, deed in enumerate(deeds)
    )
    return f"{first}, {second} and {third}."

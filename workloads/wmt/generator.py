"""The built-in sentences of wmt: two invented languages of one grammar.

    Schlaul hut dus Knand dai Schlolssbond nuben dus Knand gepfauwirtt.
        -> Tha loclald ha boucoped tha luve vosk neer tha loclald jesoosk.

The first has genders and cases, which articles and adjectives agree with, plurals by gender, verbs
in the second place of a main clause and at the end of others, participles and particles at the end,
and compounds in one word; the second has none of these and a fixed order of its own. The
translation of some words is decided elsewhere in the sentence: of ambiguous nouns by the kind of
the verb, of a verb by its particle at the end of the clause. Words have frequencies as 1 / rank, so
that many are rare; names are the same in both languages, and of many syllables.

A reference is the translation, or in a share of the rows a free one, with another word or another
order, which cannot be known from the source: the translations' score is the ceiling.
"""

import bisect
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from workloads.parts.summarization_corpus import Picker, Row
from workloads.parts.summarization_corpus import generate as generate_rows

LEXICON_SEED = 7
NOUNS, AMBIGUOUS, VERBS, ADJECTIVES, ADVERBS, NAMES = 60, 10, 20, 16, 8, 30
GENDERS, KINDS = 3, 2
# The first language: articles by case (subject, object) and gender, then plural.
THE = (("dor", "dai", "dus", "dei"), ("don", "dai", "dus", "dei"))
A = (("oin", "oine", "oin", ""), ("oinen", "oine", "oin", ""))
ADJECTIVE_ENDS = (("er", "e", "es", "en"), ("en", "e", "es", "en"))
PLURALS = ("e", "en", "er")
LINK = "s"  # between the parts of a compound
PARTICLES = ("", "an", "ver", "um")
HAVE, WILL, THAT, AND = ("hut", "huben"), ("wurt", "wurten"), "doss", "ond"
SAYS = ("sogt", "moint", "glopt")
PLACES = ("untor", "hintor", "nuben")
# The second.
TO_THE, TO_A, TO_HAVE, TO_WILL, TO_THAT, TO_AND = "tha", "en", ("ha", "hav"), "wil", "thet", "end"
TO_SAYS = ("tels", "meens", "troosts")
TO_PLACES = ("oonder", "bahind", "neer")
FIRST = (("b", "d", "f", "g", "h", "kn", "l", "m", "schl", "schw", "st", "tr", "pf", "w", "z", "r"),
         ("a", "e", "i", "o", "u", "au", "ei", "eu"),
         ("l", "n", "r", "ch", "ft", "rt", "nd", "ls"))  # fmt: skip
SECOND = (("b", "br", "c", "cl", "d", "gr", "h", "j", "l", "m", "p", "qu", "s", "sh", "th", "v"),
          ("a", "e", "i", "o", "u", "ee", "oo", "ou"),
          ("ck", "ld", "m", "nt", "p", "sk", "t", "ve"))  # fmt: skip
NUMBER = ("", "ee")  # a plural's end


class Noun(NamedTuple):
    """A noun: its gender, its stem, and its translation by the kind of the verb."""

    gender: int
    stem: str
    translations: tuple[str, str]


class Verb(NamedTuple):
    """A verb: its stem, its kind, whether it has an object, and by particle two translations, of
    which the first is the usual one.
    """

    stem: str
    kind: int
    has_object: bool
    translations: tuple[tuple[str, str], ...]


class Lexicon(NamedTuple):
    """The words of both languages; the more frequent come first."""

    nouns: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    adjectives: tuple[tuple[str, tuple[str, str]], ...]
    adverbs: tuple[tuple[str, str], ...]
    names: tuple[str, ...]


class Word(NamedTuple):
    """A word of the first language, and what translates it where it stands."""

    source: str
    target: str


Phrase = list[Word]


def generate(seed: int, rows: Mapping[str, int]) -> dict[str, list[Row]]:
    """Return the rows of every split (see `summarization_corpus.generate`)."""
    return generate_rows(make_row, seed, rows)


@functools.cache
def lexicon() -> Lexicon:
    """Return the words, of which no two of a language are the same."""
    draw = np.random.default_rng(LEXICON_SEED).random
    pick = Picker(draw(20_000).tolist())
    seen: set[str] = set()

    def word(sounds: Sequence[Sequence[str]], most: int) -> str:
        while True:
            onsets, vowels, codas = sounds
            syllables = [
                pick.one(onsets) + pick.one(vowels) for _ in range(1 + pick.one(range(most)))
            ]
            spelt = "".join(syllables) + pick.one(codas)
            if spelt not in seen:
                seen.add(spelt)
                return spelt

    def first() -> str:
        return word(FIRST, 2)

    def second() -> str:
        return word(SECOND, 2)

    def noun(rank: int) -> Noun:
        usual = second()
        other = second() if rank % (NOUNS // AMBIGUOUS) == 1 else usual
        return Noun(pick.one(range(GENDERS)), first(), (usual, other))

    def verb(rank: int) -> Verb:
        pairs = tuple((second(), second()) for _ in PARTICLES)
        return Verb(first(), rank % KINDS, rank % 3 != 2, pairs)

    return Lexicon(
        tuple(noun(rank) for rank in range(NOUNS)),
        tuple(verb(rank) for rank in range(VERBS)),
        tuple((first(), (second(), second())) for _ in range(ADJECTIVES)),
        tuple((first(), second()) for _ in range(ADVERBS)),
        tuple((pick.one("BDFGKLMNRSTVZ") + word(FIRST, 3)) for _ in range(NAMES)),
    )


@functools.cache
def _ends(count: int) -> tuple[float, ...]:
    """The share of words up to each rank, where a word is as frequent as 1 / (rank + 3)."""
    shares = [1 / (rank + 3) for rank in range(count)]
    ends, total = [], 0.0
    for share in shares:
        total += share
        ends.append(total)
    return tuple(end / total for end in ends)


def _ranked(pick: Picker, options: Sequence[Any]) -> int:
    """Return the rank of one of the options, the first the likeliest."""
    return min(bisect.bisect_right(_ends(len(options)), pick.draw()), len(options) - 1)


def make_row(pick: Picker, is_wrong: bool) -> Row:
    """Return one row (see `summarization_corpus.generate`).

    Args:
        pick: The source of random choices.
        is_wrong: Whether the reference is a free translation.
    """
    source, translated, free = sentence(pick)
    truth = _written(translated)
    return Row(_written([word.source for word in source]), truth, free(pick) if is_wrong else truth)


class Clause(NamedTuple):
    """What a clause says, in the words of both languages.

    Attributes:
        subject: Who does it.
        finite: The part of the verb that agrees with the subject.
        rest: The part of it that stands at the end of a main clause, if there is one.
        joined: Both, as the end of a subordinate clause has them.
        verb: Its translations, of which the first is the usual one.
        object: What it is done to, if anything.
        location: Where, if that is said.
        adverb: When, if that is said.
        adjective: An adjective of the clause, and its other translation, if it has one.
        is_fronted: Whether the adverb comes first.
    """

    subject: Phrase
    finite: Word
    rest: Phrase
    joined: Phrase
    verb: tuple[str, str]
    object: Phrase
    location: Phrase
    adverb: Phrase
    adjective: tuple[str, str] | None
    is_fronted: bool

    def main(self) -> Phrase:
        """The words in the order of a main clause: the verb comes second."""
        front, later = (
            (self.adverb, self.subject) if self.is_fronted else (self.subject, self.adverb)
        )
        return [*front, self.finite, *later, *self.object, *self.location, *self.rest]

    def subordinate(self) -> Phrase:
        """The words in the order of a clause whose verb comes last."""
        return [*self.subject, *self.adverb, *self.object, *self.location, *self.joined]

    def translated(self, change: str = "") -> list[str]:
        """The words of the second language, freely in one respect where there is a `change`."""
        subject, thing, location, adverb = (
            [word.target for word in phrase if word.target]
            for phrase in (self.subject, self.object, self.location, self.adverb)
        )
        words = [*subject, self.verb[change == "verb"], *thing, *location]
        if change == "adjective" and self.adjective is not None:
            words[words.index(self.adjective[0])] = self.adjective[1]
        return [*adverb, *words] if change == "adverb" else [*words, *adverb]

    def changes(self) -> tuple[str, ...]:
        """In what it may be translated freely."""
        adjective = () if self.adjective is None else ("adjective",)
        return ("verb", *adjective, *(("adverb",) if self.adverb else ()))


def sentence(pick: Picker) -> tuple[Phrase, list[str], "Free"]:
    """Return a sentence's words, those of its translation, and what translates it freely."""
    kind = pick.draw()
    if kind < 0.55:
        clause = _clause(pick, has_room=True)
        return clause.main(), clause.translated(), Free([], clause)
    clause = _clause(pick, has_room=False)
    if kind < 0.8:
        name, says = lexicon().names[_ranked(pick, lexicon().names)], pick.one(range(len(SAYS)))
        opening = [Word(name, name), Word(SAYS[says], TO_SAYS[says]), Word(THAT, TO_THAT)]
        before = [word.target for word in opening]
        return [*opening, *clause.subordinate()], before + clause.translated(), Free(before, clause)
    other = _clause(pick, has_room=False)
    before = [*clause.translated(), TO_AND]
    source = [*clause.main(), Word(AND, TO_AND), *other.main()]
    return source, before + other.translated(), Free(before, other)


class Free(NamedTuple):
    """The free translations of a sentence, whose last clause may be changed."""

    before: list[str]
    clause: Clause

    def __call__(self, pick: Picker) -> str:
        """Return one of them."""
        return _written(self.before + self.clause.translated(pick.one(self.clause.changes())))


def _written(words: Sequence[str]) -> str:
    text = " ".join(word for word in words if word)
    return f"{text[0].upper()}{text[1:]}."


def _clause(pick: Picker, has_room: bool) -> Clause:
    known = lexicon()
    rank = _ranked(pick, known.verbs)
    verb, particle = known.verbs[rank], _particle(pick.draw())
    adjectives: list[tuple[str, str]] = []
    is_plural = False
    if pick.draw() < 0.3:
        name = known.names[_ranked(pick, known.names)]
        subject = [Word(name, name)]
    else:
        is_plural = pick.draw() < 0.4
        subject = _noun_phrase(pick, verb.kind, 0, is_plural, adjectives)
    thing = []
    if verb.has_object:
        thing = _noun_phrase(pick, verb.kind, 1, pick.draw() < 0.4, adjectives)
    adverb = []
    if pick.draw() < 0.4:
        adverb = [Word(*known.adverbs[_ranked(pick, known.adverbs)])]
    location = []
    if has_room and pick.draw() < 0.3:
        where = pick.one(range(len(PLACES)))
        at = _noun_phrase(pick, verb.kind, 1, False, [])
        location = [Word(PLACES[where], TO_PLACES[where]), *at]
    finite, rest, joined, translations = _conjugated(pick, verb, particle, is_plural)
    return Clause(
        subject,
        finite,
        rest,
        joined,
        translations,
        thing,
        location,
        adverb,
        adjectives[0] if adjectives else None,
        bool(adverb) and pick.draw() < 0.5,
    )


def _particle(drawn: float) -> int:
    """The index of a verb's particle, of which none is the likeliest."""
    return 0 if drawn < 0.55 else 1 + int((drawn - 0.55) / 0.45 * (len(PARTICLES) - 1))


def _conjugated(
    pick: Picker, verb: Verb, particle: int, is_plural: bool
) -> tuple[Word, Phrase, Phrase, tuple[str, str]]:
    """Return the finite part, what stands at the end of a main clause, both at the end of another
    one, and the translations.
    """
    usual, other = verb.translations[particle]
    prefix, ending = PARTICLES[particle], "en" if is_plural else "t"
    match pick.one(range(3)):
        case 0:  # present
            shown = [f"{word}{'' if is_plural else 's'}" for word in (usual, other)]
            finite = Word(verb.stem + ending, shown[0])
            rest = [Word(prefix, "")] if prefix else []
            joined = [Word(prefix + finite.source, shown[0])]
        case 1:  # past
            helper = TO_HAVE[is_plural]
            shown = [f"{helper} {word}ed" for word in (usual, other)]
            finite = Word(HAVE[is_plural], helper)
            rest = [Word(f"{prefix}ge{verb.stem}t", f"{usual}ed")]
            joined = [*rest, finite]
        case _:  # future
            shown = [f"{TO_WILL} {word}" for word in (usual, other)]
            finite = Word(WILL[is_plural], TO_WILL)
            rest = [Word(f"{prefix}{verb.stem}en", usual)]
            joined = [*rest, finite]
    return finite, rest, joined, (shown[0], shown[1])


def _noun_phrase(
    pick: Picker, kind: int, case: int, is_plural: bool, adjectives: list[tuple[str, str]]
) -> Phrase:
    """Return article, adjective and noun, which agree; translations stand in the same order."""
    known = lexicon()
    noun = known.nouns[_ranked(pick, known.nouns)]
    form = GENDERS if is_plural else noun.gender
    is_definite = pick.draw() < 0.6
    article = THE[case][form] if is_definite else A[case][form]
    phrase = [Word(article, TO_THE if is_definite else TO_A)] if article else []
    if pick.draw() < 0.35:
        stem, translations = known.adjectives[_ranked(pick, known.adjectives)]
        adjectives.append(translations)
        phrase.append(Word(stem + ADJECTIVE_ENDS[case][form], translations[0]))
    written, translated = noun.stem, noun.translations[kind] + NUMBER[is_plural]
    if pick.draw() < 0.2:
        first = known.nouns[_ranked(pick, known.nouns)]
        written = first.stem + LINK + written
        translated = f"{first.translations[kind]} {translated}"
    ending = PLURALS[noun.gender] if is_plural else ""
    return [*phrase, Word(written[0].upper() + written[1:] + ending, translated)]

"""Built-in text of the finewebedu_lm workload: a language with agreement over long distances.

A document names its topic, then introduces its cast, each a name with a trait. Sentences follow. A
subject is a noun or one of the cast, perhaps with prepositional phrases and nested relative clauses
after it; the form of its verb agrees with it, over all that stands between. Whoever of the cast is
mentioned is followed by its trait, which nothing but the introduction tells. A topic has nouns and
verbs of its own, of which other topics have some, too. Every row begins with a document; documents
follow one another, and the last is cut.

What may come next is determined by what is before it in the row. So the probability of every token
is known, and so is the entropy of the language, which no model's loss can be below but by chance:
`entropy` computes it exactly from the chain of states that a row goes through.

Tokens come from sums, products and quotients of float64 numbers, which IEEE 754 rounds alike
everywhere, and from NumPy's random bits; so rows are the same bytes on every machine.

Legend: N rows, T tokens, S states, O options of a state.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.data.validation_seed import seed_words

ROWS = {"train": 12_288, "validation": 512, "test": 512}
TOPICS, NAMES, TRAITS, NOUNS, STEMS, PREPOSITIONS, ADVERBS = 8, 24, 8, 96, 32, 8, 16
NOUNS_BY_TOPIC, STEMS_BY_TOPIC = 24, 12  # those of a topic, which topics share in part
FORMS = 4  # of a verb; a noun or a trait asks for one of them
CAST = 3
DEEPEST = 3  # subjects that wait for their verbs

WORDS = (
    ("<end>",),
    tuple(f"topic{each}" for each in range(TOPICS)),
    tuple(f"Name{each}" for each in range(NAMES)),
    tuple(f"trait{each}" for each in range(TRAITS)),
    tuple(f"noun{each}" for each in range(NOUNS)),
    tuple(f"verb{stem}.{form}" for stem in range(STEMS) for form in range(FORMS)),
    tuple(f"prep{each}" for each in range(PREPOSITIONS)),
    tuple(f"adverb{each}" for each in range(ADVERBS)),
    ("that", "."),
)
LEXICON = tuple(word for group in WORDS for word in group)  # by token
END, TOPIC, NAME, TRAIT, NOUN, VERB, PREPOSITION, ADVERB, THAT = (
    sum(map(len, WORDS[:group])) for group in range(len(WORDS))
)
STOP = THAT + 1
VOCABULARY = len(LEXICON)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class State(NamedTuple):
    """Where a row stands: what comes next, and how many of the cast are introduced or how many
    subjects wait for their verbs.
    """

    slot: str
    number: int = 0


class Option(NamedTuple):
    """What may come next, with its probability, and the state after it."""

    share: float
    emits: str
    after: State


FIRST = State("topic")


def options(state: State) -> list[Option]:
    """Return what may come in a state, at most three options."""
    slot, count = state
    match slot:
        case "topic":
            return [Option(1, "topic", State("name"))]
        case "name":
            return [Option(1, "name", State("trait", count))]
        case "trait":
            is_last = count == CAST - 1
            return [Option(1, "trait", State("subject") if is_last else State("name", count + 1))]
        case "subject":
            return [
                Option(0.55, "subject noun", State("after subject", count + 1)),
                Option(0.45, "cast", State("subject's trait", count)),
            ]
        case "next":
            return [
                Option(0.12, "end", FIRST),
                Option(0.48, "subject noun", State("after subject", 1)),
                Option(0.4, "cast", State("subject's trait")),
            ]
        case "subject's trait":
            return [Option(1, "subject's trait", State("after subject", count + 1))]
        case "after subject":
            is_main, is_deepest = count == 1, count == DEEPEST
            after_verb = State("object") if is_main else State("after subject", count - 1)
            clause = [Option(0.2, "that", State("subject", count))]
            return [
                Option(0.2, "preposition", State("noun", count)),
                Option(0.8 if is_deepest else 0.6, "verb", after_verb),
                *([] if is_deepest else clause),
            ]
        case "noun":
            return [Option(1, "noun", State("after subject", count))]
        case "object":
            return [
                Option(0.3, "noun", State("close")),
                Option(0.4, "cast", State("object's trait")),
                Option(0.3, "stop", State("next")),
            ]
        case "object's trait":
            return [Option(1, "object's trait", State("close"))]
        case "close":
            return [Option(0.2, "adverb", State("stop")), Option(0.8, "stop", State("next"))]
        case _:
            return [Option(1, "stop", State("next"))]


def _reachable() -> Iterator[State]:
    seen, waiting = {FIRST}, [FIRST]
    while waiting:
        state = waiting.pop(0)
        yield state
        for option in options(state):
            if option.after not in seen:
                seen.add(option.after)
                waiting.append(option.after)


STATES = tuple(_reachable())
EMISSIONS = tuple(dict.fromkeys(option.emits for state in STATES for option in options(state)))


def _zipf(size: int) -> Floats:
    """The probability of each rank: that of rank r is proportional to 1 / (r + 1)."""
    weights: Floats = 1 / np.arange(1.0, size + 1)
    weights /= np.cumsum(weights)[-1]  # in one order everywhere, which `sum` is not
    return weights


def word_entropy(emits: str, introduced: int) -> float:
    """Return the entropy in nats of a word, given that its kind comes.

    Args:
        emits: The kind.
        introduced: How many of the cast have names already.
    """
    equally = {
        "topic": TOPICS,
        "name": NAMES - introduced,
        "trait": TRAITS,
        "cast": CAST,
        "preposition": PREPOSITIONS,
        "adverb": ADVERBS,
    }
    if emits in equally:
        return float(np.log(equally[emits]))
    nouns = NOUNS_BY_TOPIC
    shares = _zipf({"noun": nouns, "subject noun": nouns, "verb": STEMS_BY_TOPIC}.get(emits, 1))
    return float(-(shares * np.log(shares)).sum())


def entropy(length: int) -> float:
    """Return the entropy of the language in nats a token: the expected loss of a model that knows
    it, over the targets of a row.

    The states of a row are a Markov chain, whose distribution at every position follows from that
    at the one before; the entropy of a token given all before it is a function of the state alone.

    Args:
        length: The number of targets, which are the tokens 1 to `length` of a row.
    """
    number = {state: index for index, state in enumerate(STATES)}
    moves_SS = np.zeros((len(STATES), len(STATES)))
    entropy_S = np.zeros(len(STATES))
    for state, index in number.items():
        for share, emits, after in options(state):
            moves_SS[index, number[after]] += share
            entropy_S[index] += share * (word_entropy(emits, state.number) - np.log(share))
    at_S = moves_SS[number[FIRST]]  # after the first token, which is no target
    total = 0.0
    for _ in range(length):
        total += float(at_S @ entropy_S)
        at_S = at_S @ moves_SS
    return total / length


class Text(NamedTuple):
    """Rows of the language.

    Attributes:
        tokens_NT: The tokens, int32; the targets of a row are all but the first.
        nats_NT: The negative logarithm of each token's probability, given those before it.
    """

    tokens_NT: NDArray[np.int32]
    nats_NT: Floats


def generate(split: str, length: int, seed: int, validation_seed: int | None = None) -> Text:
    """Return the rows of a split.

    Args:
        split: 'train', 'validation' or 'test', which have different rows of one language.
        length: The number of tokens of a row.
        seed: The seed of the language and of its rows.
        validation_seed: The seed of other rows than the usual ones for validation and test; None
            for the usual ones.
    """
    secret = seed_words(split, validation_seed)
    drawn = _generator([seed, 1 + list(ROWS).index(split), *secret])
    writer = _Writer(_Language(_generator([seed, 0])), ROWS[split], drawn)
    columns = [writer.step() for _ in range(length)]
    tokens, nats = (np.stack(each, axis=1) for each in zip(*columns, strict=True))
    return Text(tokens.astype(np.int32), nats)


class _Language:
    """What all rows share: the form that each noun asks for, and which words a topic has most."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.form_of_noun = generator.integers(0, FORMS, NOUNS)
        self.noun_of_rank = np.stack([generator.permutation(NOUNS) for _ in range(TOPICS)])
        self.stem_of_rank = np.stack([generator.permutation(STEMS) for _ in range(TOPICS)])
        self.noun_shares, self.stem_shares = _zipf(NOUNS_BY_TOPIC), _zipf(STEMS_BY_TOPIC)
        most = max(len(options(state)) for state in STATES)
        self.shares_SO = np.zeros((len(STATES), most))
        self.emits_SO = np.zeros((len(STATES), most), np.int64)
        self.after_SO = np.zeros((len(STATES), most), np.int64)
        for index, state in enumerate(STATES):
            for option, (share, emits, after) in enumerate(options(state)):
                self.shares_SO[index, option] = share
                self.emits_SO[index, option] = EMISSIONS.index(emits)
                self.after_SO[index, option] = STATES.index(after)
        self.ends_SO = np.cumsum(self.shares_SO, axis=1)
        self.ends_SO[:, -1] = 1


class _Writer:
    """Writes rows, all of them a token at a time."""

    def __init__(self, language: _Language, rows: int, drawn: np.random.Generator) -> None:
        self._language, self._drawn = language, drawn
        self._state_N = np.zeros(rows, np.int64)
        self._topic_N = np.zeros(rows, np.int64)
        self._names_NC = np.zeros((rows, CAST), np.int64)
        self._traits_NC = np.zeros((rows, CAST), np.int64)
        self._mentioned_N = np.zeros(rows, np.int64)
        self._forms_ND = np.zeros((rows, DEEPEST), np.int64)
        self._counts_S = np.array([state.number for state in STATES])

    def step(self) -> tuple[Integers, Floats]:
        """Return the next token of each row, and the nats of each."""
        language, state_N = self._language, self._state_N
        kind_N, word_N = self._drawn.random((2, len(state_N)))
        option_N = (kind_N[:, None] >= language.ends_SO[state_N]).sum(1)
        share_N = language.shares_SO[state_N, option_N]
        emits_N = language.emits_SO[state_N, option_N]
        token_N = np.zeros(len(state_N), np.int64)
        for index, emits in enumerate(EMISSIONS):
            rows = np.flatnonzero(emits_N == index)
            if len(rows):
                counts = self._counts_S[state_N[rows]]
                token_N[rows], shares = self._emit(emits, rows, word_N[rows], counts)
                share_N[rows] *= shares
        self._state_N = language.after_SO[state_N, option_N]
        return token_N, -np.log(share_N)

    def _emit(
        self, emits: str, rows: Integers, word: Floats, counts: Integers
    ) -> tuple[Integers, Floats | float]:
        """Return the tokens of some rows, and the probability of each among its kind."""
        language, topics = self._language, self._topic_N[rows]
        match emits:
            case "topic":
                self._topic_N[rows] = _equally(word, TOPICS)
                return TOPIC + self._topic_N[rows], 1 / TOPICS
            case "name":
                left = NAMES - counts
                self._names_NC[rows, counts] = self._new_names(rows, _equally(word, left), counts)
                return NAME + self._names_NC[rows, counts], 1 / left
            case "trait":
                self._traits_NC[rows, counts] = _equally(word, TRAITS)
                return TRAIT + self._traits_NC[rows, counts], 1 / TRAITS
            case "cast":
                self._mentioned_N[rows] = _equally(word, CAST)
                return NAME + self._names_NC[rows, self._mentioned_N[rows]], 1 / CAST
            case "subject's trait" | "object's trait":
                traits = self._traits_NC[rows, self._mentioned_N[rows]]
                if emits == "subject's trait":
                    self._forms_ND[rows, counts] = traits % FORMS
                return TRAIT + traits, 1.0
            case "noun" | "subject noun":
                ranks = _ranked(word, language.noun_shares)
                nouns = language.noun_of_rank[topics, ranks]
                if emits == "subject noun":
                    self._forms_ND[rows, counts] = language.form_of_noun[nouns]
                return NOUN + nouns, language.noun_shares[ranks]
            case "verb":
                ranks = _ranked(word, language.stem_shares)
                forms = self._forms_ND[rows, counts - 1]
                stems = language.stem_of_rank[topics, ranks]
                return VERB + FORMS * stems + forms, language.stem_shares[ranks]
            case "preposition":
                return PREPOSITION + _equally(word, PREPOSITIONS), 1 / PREPOSITIONS
            case "adverb":
                return ADVERB + _equally(word, ADVERBS), 1 / ADVERBS
            case _:
                token = {"end": END, "that": THAT, "stop": STOP}[emits]
                return np.full(len(rows), token), 1.0

    def _new_names(self, rows: Integers, chosen: Integers, counts: Integers) -> Integers:
        """The names that are `chosen` among those which are not in the cast yet."""
        for position in range(CAST):
            own = np.where(np.arange(CAST) < counts[:, None], self._names_NC[rows], NAMES)
            chosen = chosen + (chosen >= np.sort(own, axis=1)[:, position])
        return chosen


def _equally(word: Floats, size: int | Integers) -> Integers:
    """A number below `size`, each as probable."""
    number: Integers = (word * size).astype(np.int64)
    return number


def _ranked(word: Floats, shares: Floats) -> Integers:
    """A rank, by these probabilities."""
    ranks = np.searchsorted(np.cumsum(shares)[:-1], word, side="right")
    return ranks.astype(np.int64)


def _generator(seed: list[int]) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

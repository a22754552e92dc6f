"""The built-in summarization corpora: the same everywhere, functions of the source, with a known
ceiling.
"""

import hashlib
import importlib
import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from rouge_score import rouge_scorer

from workloads.parts import summarization_corpus as shared
from workloads.parts.summarization import BUILTIN_ROWS

ROWS = {"train": 1500, "validation": 400, "test": 100}
NAMES = ("xsum", "cnn_dailymail", "samsum")
GENERATORS = {name: importlib.import_module(f"workloads.{name}.generator") for name in NAMES}
xsum, cnn_dailymail, samsum = GENERATORS.values()


@pytest.fixture(scope="module", params=NAMES)
def corpus(request) -> tuple[str, dict[str, list[shared.Row]]]:
    return request.param, GENERATORS[request.param].generate(3, ROWS)


def digest(splits) -> str:
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:16]


GOLDEN = {
    "xsum": "445bffc00a39b63f",
    "cnn_dailymail": "51f2d138cc7df827",
    "samsum": "9a12874ffdb9d6f0",
}


def test_the_same_seed_gives_the_same_rows_on_every_machine(corpus) -> None:
    name, splits = corpus
    generate = GENERATORS[name].generate
    assert generate(3, ROWS) == splits
    assert digest(generate(0, {"train": 60, "validation": 20, "test": 20})) == GOLDEN[name]
    other = generate(4, ROWS)
    assert not {row.source for row in other["train"]} & {row.source for row in splits["train"]}


def test_rows_asked_for_and_no_source_twice(corpus) -> None:
    _, splits = corpus
    assert {split: len(rows) for split, rows in splits.items()} == ROWS
    sources = [row.source for row in itertools.chain(*splits.values())]
    assert len(set(sources)) == len(sources)


def test_a_source_that_occurred_before_is_drawn_anew(corpus) -> None:
    name, splits = corpus
    rows = splits["train"]
    rng = np.random.default_rng(np.random.SeedSequence([3, 0]))
    redrawn = shared._split(GENERATORS[name].make_row, rng, ROWS["train"], {rows[5].source})
    assert redrawn[5].source != rows[5].source
    assert redrawn[:5] + redrawn[6:] == rows[:5] + rows[6:]


NUMBER_WORDS = shared.words("two, three, four, five, six, seven, eight, nine, ten, eleven, twelve")
READ_NUMBERS = {word: 2 + row for row, word in enumerate(NUMBER_WORDS)}


def read_xsum(source: str) -> str:
    """What a reader of the article writes: pattern by pattern, without the generator's facts."""
    main = re.search(
        r"(?<!Last year )\b([A-Z]\w+) (\w+) ((?:were|went|changed|lay|could|came|got|turned|left)"
        r" .*?) in ([A-Z]\w+) on \w+day\.",
        source,
    )
    assert main is not None, source
    number, things, event, place = main.groups()
    another = re.search(r"Another (\w+) (\w+) ", source)
    cause = re.search(r"(\w+) (?:pointed to|put it down to|blamed|traced it to) a (\w+)\.", source)
    assert another is not None
    assert cause is not None
    groups = [name for name, members in xsum.GROUPS.items() if {things, another[2]} <= {*members}]
    total = READ_NUMBERS[number.lower()] + READ_NUMBERS[another[1]]
    return (
        f"{NUMBER_WORDS[total - 2].capitalize()} {groups[0]} {xsum.EVENTS[event]} in {place} after "
        f"{cause[2]}, {cause[1]} says."
    )


def read_cnn_dailymail(source: str) -> str:
    found = []
    for weight, kind in enumerate(cnn_dailymail.KINDS):
        for article, highlight in kind.events:
            match = re.search(re.escape(article).replace(r"\{\}", r"(\w+)"), source)
            if match:
                found.append((weight, highlight.format(match[1])))
    assert len(found) == 4
    return "\n".join(highlight for _, highlight in sorted(found)[:3])


def read_samsum(source: str) -> str:
    turns = dict.fromkeys(line.split(": ")[0] for line in source.split("\n"))
    assert len(turns) == 2
    absent = re.findall(r"\w+", source.split("\n")[0].split("! ")[1])[-3::2]
    she, he = sorted(absent, key=lambda name: name in samsum.MEN)
    clauses = []
    for who, said in re.findall(r"\b(she|he|I) (.*?)(?: and (?=he|she)|\.)", source):
        line = next(line for line in source.split("\n") if f"{who} {said}" in line)
        name = {"she": she, "he": he, "I": line.split(": ")[0]}[who]
        clauses.append(f"{name} {restated(said)}")
    if len(clauses) != 3:
        raise AssertionError(source)
    told = [clause for clause in clauses if clause.split()[0] in absent]
    (own,) = [clause for clause in clauses if clause.split()[0] not in absent]
    return f"{told[0]}, {told[1]} and {own}."


def restated(said: str) -> str:
    for dialogue, summary in samsum.DEEDS.items():
        match = re.fullmatch(dialogue.replace("{0}", r"(\w+)"), said)
        if match:
            return summary.format(match[1])
    raise AssertionError(said)


READERS = {"xsum": read_xsum, "cnn_dailymail": read_cnn_dailymail, "samsum": read_samsum}


def test_the_true_summary_is_a_function_of_the_source(corpus) -> None:
    name, splits = corpus
    for row in itertools.chain(*splits.values()):
        assert READERS[name](row.source) == row.truth


def test_noise_states_one_fact_wrongly_in_three_of_ten_rows(corpus) -> None:
    _, splits = corpus
    for split, rows in splits.items():
        wrong = [row for row in rows if row.reference != row.truth]
        assert len(wrong) == round(0.3 * ROWS[split])
        for row in wrong:
            pairs = zip(row.truth.split(), row.reference.split(), strict=True)
            assert sum(true != stated for true, stated in pairs) == 1


def test_noise_is_spread_over_the_facts(corpus) -> None:
    _, splits = corpus
    places: Counter[int] = Counter()
    for row in splits["train"]:
        pairs = enumerate(zip(row.truth.split(), row.reference.split(), strict=True))
        places.update(place for place, (true, stated) in pairs if true != stated)
    kinds = [count for count in places.values() if count >= 10]
    assert len(kinds) >= 4
    assert max(kinds) < 0.5 * sum(kinds)


def test_sources_and_summaries_fit_the_mini_scale(corpus, load_mini) -> None:
    name, _ = corpus
    assert load_mini(name).notes["rows_cut"] == {
        split: {"source": 0, "target": 0} for split in ROWS
    }


def mean_scores(predictions: list[str], references: list[str]) -> dict[str, float]:
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
    rows = [
        scorer.score(reference, prediction)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return {name: float(np.mean([row[name].fmeasure for row in rows])) for name in names}


def test_lead_takes_sentences_or_turns() -> None:
    assert shared.lead("A b. C d? E .\nF g.", 2) == "A b.\nC d?"
    assert shared.lead("A b.\n\nC: d! E", 9) == "A b.\nC: d!\nE"
    assert shared.lead("A: hi! you? I.\nB: no. Yes.\nA: so.", 2) == "A: hi! you? I.\nB: no. Yes."


def broken_pairs(row: shared.Row) -> tuple[int, int]:
    """How many words, and how many pairs of neighbours, of the reference the truth lacks."""
    truth, reference = (
        re.findall("[a-z0-9]+", text.lower()) for text in (row.truth, row.reference)
    )
    wrong = [place for place, word in enumerate(reference) if word != truth[place]]
    return len(wrong), sum(2 - (place in (0, len(truth) - 1)) for place in wrong)


@pytest.mark.parametrize("name", NAMES)
def test_the_ceiling_is_what_the_wrong_words_cost(name: str) -> None:
    rows = GENERATORS[name].generate(0, BUILTIN_ROWS)["validation"]
    measured = mean_scores([row.truth for row in rows], [row.reference for row in rows])
    words = np.array([len(re.findall("[a-z0-9]+", row.truth.lower())) for row in rows])
    wrong = np.array([broken_pairs(row) for row in rows])
    expected = {
        "rouge1": 1 - (wrong[:, 0] / words).mean(),
        "rouge2": 1 - (wrong[:, 1] / (words - 1)).mean(),
    }
    expected |= {"rougeL": expected["rouge1"], "rougeLsum": expected["rouge1"]}
    assert measured == pytest.approx(expected, abs=3e-4)
    assert {key: round(100 * value, 1) for key, value in measured.items()} == CEILINGS[name]
    assert max(measured.values()) < 0.985


CEILINGS = {
    name: dict(zip(("rouge1", "rouge2", "rougeL", "rougeLsum"), values, strict=True))
    for name, values in {
        "xsum": (96.7, 93.4, 96.7, 96.7),
        "cnn_dailymail": (96.8, 94.1, 96.8, 96.8),
        "samsum": (97.7, 95.8, 97.7, 97.7),
    }.items()
}
LEADS = {  # (lead-1, lead-3), of the target metric
    "xsum": ("rouge2", 4.0, 5.1),
    "cnn_dailymail": ("rougeL", 4.8, 6.8),
    "samsum": ("rouge2", 0.0, 11.4),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_sentences_are_far_below_the_ceiling(name: str) -> None:
    rows = GENERATORS[name].generate(0, BUILTIN_ROWS)["validation"]
    metric, *expected = LEADS[name]
    for count, points in zip((1, 3), expected, strict=True):
        ends = "\n" if name == "samsum" else ". "
        taken = [ends.join(row.source.split(ends)[:count]) for row in rows]
        scores = mean_scores(taken, [row.reference for row in rows])
        assert 100 * scores[metric] == pytest.approx(points, abs=0.1)
        for row, text in zip(rows, taken, strict=True):
            assert re.findall(r"\w+", shared.lead(row.source, count)) == re.findall(r"\w+", text)


@pytest.mark.parametrize("name", NAMES)
def test_another_source_says_little_about_a_summary(name: str) -> None:
    rows = GENERATORS[name].generate(0, BUILTIN_ROWS)["validation"]
    truths = [row.truth for row in rows]
    scores = mean_scores(truths[1:] + truths[:1], [row.reference for row in rows])
    assert 100 * scores[LEADS[name][0]] < 20

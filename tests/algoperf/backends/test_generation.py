"""Greedy and beam search on a decoder that is a table of probabilities, with results worked out by
hand.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from algoperf.backends import generation, torch_decoding
from algoperf.backends.generation import GenerationSettings

A, B, END = 3, 4, generation.END_ID
VOCABULARY = 5
# The first source of `TABLES`: probabilities of the next token after a prefix. Where a prefix is
# missing the sequence ends for sure.
EARLY_END = {
    (): {A: 0.5, END: 0.3, B: 0.2},
    (A,): {A: 0.55, END: 0.3, B: 0.15},
    (B,): {END: 0.9, A: 0.06, B: 0.04},
    (A, A): {END: 0.8, A: 0.12, B: 0.08},
    (A, B): {END: 0.5, A: 0.3, B: 0.2},
}
GREEDY_TRAP = {
    (): {A: 0.5, B: 0.4, END: 0.1},
    (A,): {END: 0.4, A: 0.35, B: 0.25},
    (B,): {END: 0.9, A: 0.06, B: 0.04},
}
ENDLESS = {
    prefix: {A: 0.6, B: 0.3, END: 0.1}
    for length in range(8)
    for prefix in itertools.product((A, B), repeat=length)
}
TABLES = [EARLY_END, GREEDY_TRAP, ENDLESS]


class TableDecoder:
    """Row b reads the table whose index is the first token of source b; a cache is the prefixes."""

    def __init__(self, tables=TABLES):
        self.tables = tables
        self.steps = 0

    def start(self, source_BS, beams, length):
        self.length = length
        return [(self.tables[row[0]], ()) for row in source_BS.tolist() for _ in range(beams)]

    def step(self, cache, position, token_N, parent_N, candidates):
        assert position < self.length
        assert (parent_N is None) == (position == 0 or candidates == 1)
        self.steps += 1
        parents = range(len(cache)) if parent_N is None else parent_N.tolist()
        grown = []
        for parent, token in zip(parents, token_N.tolist(), strict=True):
            table, prefix = cache[parent]
            grown.append((table, (*prefix, token) if position else ()))
        log_prob_NV = np.full((len(grown), VOCABULARY), -np.inf, np.float32)
        for row, (table, prefix) in enumerate(grown):
            for token, probability in table.get(prefix, {END: 1.0}).items():
                log_prob_NV[row, token] = math.log(probability)
        token_NC = np.argsort(-log_prob_NV, axis=1, kind="stable")[:, :candidates]
        log_prob_NC = np.take_along_axis(log_prob_NV, token_NC, 1)
        return grown, None if candidates == 1 else log_prob_NC, token_NC


def search(rows, *, decoder=None, **settings):
    """Generate for sources that begin with these tables' indices."""
    source_BS = np.array([[TABLES.index(row)] for row in rows], np.int32)
    decoder = decoder or TableDecoder()
    generated = generation.generate(decoder, source_BS, GenerationSettings(**settings))
    assert generated.steps == decoder.steps
    return generated


def test_greedy_takes_the_likeliest_token_until_the_end() -> None:
    generated = search([EARLY_END, GREEDY_TRAP], max_new_tokens=6)
    assert generated.sequences == [[A, A, END], [A, END]]
    assert generated.tokens == [[A, A], [A]]
    assert generated.scores is None


def test_greedy_leaves_when_every_row_has_ended() -> None:
    assert search([GREEDY_TRAP], max_new_tokens=6).steps == 2
    assert search([GREEDY_TRAP, EARLY_END], max_new_tokens=6).steps == 3
    endless = search([GREEDY_TRAP, ENDLESS], max_new_tokens=6)
    assert endless.steps == 6
    assert endless.sequences == [[A, END], [A] * 6]


def test_beam_search_finds_what_greedy_misses() -> None:
    """0.4 x 0.9 beats 0.5 x 0.4; both end at step 2, and 0.5 x 0.35 cannot beat them any more."""
    generated = search([GREEDY_TRAP], max_new_tokens=6, beams=2)
    assert generated.sequences == [[B, END]]
    assert generated.scores == pytest.approx([math.log(0.36) / 2])
    assert generated.steps == 2


def test_a_beam_continues_its_own_parent() -> None:
    """After step 2 the best beam, B A (0.405), comes from the second one, A A from the first."""
    table = {
        (): {A: 0.55, B: 0.45},
        (A,): {A: 0.4, B: 0.35, END: 0.25},
        (B,): {A: 0.9, B: 0.1},
        (B, A): {END: 0.9, A: 0.1},
        (A, A): {A: 0.9, END: 0.1},
    }
    settings = GenerationSettings(max_new_tokens=6, beams=2)
    generated = generation.generate(TableDecoder([table]), np.zeros((1, 1), np.int32), settings)
    assert generated.sequences == [[B, A, END]]
    assert generated.scores == pytest.approx([math.log(0.45 * 0.9 * 0.9) / 3])


def test_a_short_end_does_not_close_a_source_that_can_improve() -> None:
    """Finished after two steps are END (0.3) and B END (0.18, over 2 tokens); A A has 0.275 and may
    beat END's score, and after step 3 A A END has 0.22 over 3 tokens.
    """
    patient = search([EARLY_END], max_new_tokens=6, beams=2)
    assert patient.sequences == [[A, A, END]]
    assert patient.scores == pytest.approx([math.log(0.22) / 3])
    assert patient.steps == 3
    hasty = search([EARLY_END], max_new_tokens=6, beams=2, early_stopping=True)
    assert hasty.sequences == [[B, END]]
    assert hasty.scores == pytest.approx([math.log(0.18) / 2])
    assert hasty.steps == 2


def test_at_the_limit_sequences_finish_without_an_end() -> None:
    generated = search([EARLY_END], max_new_tokens=2, beams=2)
    assert generated.sequences == [[A, A]]
    assert generated.scores == pytest.approx([math.log(0.275) / 2])


def test_an_end_below_the_first_beams_is_dropped() -> None:
    """END alone has 0.2 but ranks third at step 1; at penalty 0 it would beat A A's 0.15."""
    table = {(): {A: 0.5, B: 0.3, END: 0.2}, (A,): {A: 0.3, B: 0.2}, (B,): {A: 0.3, B: 0.2}}
    settings = GenerationSettings(max_new_tokens=2, beams=2, length_penalty=0.0)
    generated = generation.generate(TableDecoder([table]), np.zeros((1, 1), np.int32), settings)
    assert generated.sequences == [[A, A]]
    assert generated.scores == pytest.approx([math.log(0.15)])


def test_sources_do_not_influence_each_other() -> None:
    together = search(TABLES, max_new_tokens=6, beams=2)
    assert together.scores is not None
    for row, table in enumerate(TABLES):
        alone = search([table], max_new_tokens=6, beams=2)
        assert alone.scores is not None
        assert together.sequences[row] == alone.sequences[0]
        assert together.scores[row] == alone.scores[0]
    assert together.steps == max(
        search([table], max_new_tokens=6, beams=2).steps for table in TABLES
    )


@pytest.mark.parametrize("length_penalty", [0.5, 1.0, 2.0])
def test_with_a_beam_for_every_sequence_the_best_of_all_is_found(length_penalty) -> None:
    limit, rng = 4, np.random.default_rng(int(10 * length_penalty))
    tokens = (A, B)
    prefixes = [p for n in range(limit) for p in itertools.product(tokens, repeat=n)]
    table = {p: dict(zip((A, B, END), rng.dirichlet([1, 1, 1]), strict=True)) for p in prefixes}
    scores = {}
    for prefix in [*prefixes, *itertools.product(tokens, repeat=limit)]:
        steps = range(len(prefix))
        logs = [math.log(table[prefix[:step]][prefix[step]]) for step in steps]
        if len(prefix) == limit:
            scores[prefix] = sum(logs) / limit**length_penalty
        else:
            ended = sum(logs) + math.log(table[prefix][END])
            scores[*prefix, END] = ended / (len(prefix) + 1) ** length_penalty
    best = max(scores, key=scores.__getitem__)
    settings = GenerationSettings(limit, beams=40, length_penalty=length_penalty)
    generated = generation.generate(TableDecoder([table]), np.zeros((1, 1), np.int32), settings)
    assert generated.sequences == [list(best)]
    assert generated.scores == pytest.approx([scores[best]], rel=1e-6)


def test_tokens_are_without_start_end_and_padding() -> None:
    generated = generation.Generated([[0, 5, 1, 6, 2], [0, 2], [7]], None, 5)
    assert generated.tokens == [[5, 6], [], [7]]


def test_the_length_divides_by_the_published_rule() -> None:
    """((5 + length) / 6) ** 0.6 (Wu et al. 2016): 1 for one token, 2 ** 0.6 for seven."""
    published = GenerationSettings(6, 2, 0.6, length_offset=5.0)
    assert [published.divisor(tokens) for tokens in (1, 7)] == pytest.approx([1.0, 2**0.6])
    assert GenerationSettings(6, 2, 2.0).divisor(3) == 9.0
    generated = search(
        [EARLY_END], max_new_tokens=6, beams=2, length_penalty=0.6, length_offset=5.0
    )
    assert generated.sequences == [[END]]  # ln 0.3 over 1; A A END: ln 0.22 over (8 / 6) ** 0.6
    assert generated.scores == pytest.approx([math.log(0.3)])


class WritesDown(torch.nn.Module):
    """A decoder whose cache holds the tokens themselves, in two layers of keys and values."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, source_BS):
        return source_BS

    def empty_cache(self, rows, length):
        return [[torch.zeros(rows, 1, length, 1) for _ in range(2)] for _ in range(2)]

    def step(self, token_N, position, cache, sources):
        for layer in cache:
            for whole_NHTK in layer:
                whole_NHTK[:, 0, position, 0] = token_N.float()
        return torch.zeros(len(token_N), 5)


def test_a_cache_holds_what_each_row_s_ancestors_wrote():
    """Parents at random, of a few rows at a time or of all; against lists of tokens."""
    generator = np.random.default_rng(0)
    rows, length = 6, 40
    decoder = torch_decoding.TorchDecoder(WritesDown())
    cache = decoder.start(np.zeros((2, 3), np.int64), 3, length)
    written = [[] for _ in range(rows)]
    parent_N = None
    for position in range(length):
        token_N = generator.integers(1, 1000, rows)
        if parent_N is not None:
            written = [list(written[parent]) for parent in parent_N]
        for row, token in enumerate(token_N):
            written[row].append(int(token))
        cache, _, _ = decoder.step(cache, position, token_N, parent_N, 2)
        for layer in cache.kept:
            for whole_NHTK in layer:
                assert whole_NHTK[:, 0, : position + 1, 0].int().tolist() == written
        parent_N = np.arange(rows)
        changed = generator.random(rows) < generator.choice([0.0, 0.3, 1.0])
        parent_N[changed] = 3 * (parent_N[changed] // 3) + generator.integers(0, 3, changed.sum())

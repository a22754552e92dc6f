"""The sentences of wmt as tokens: packed rows to train on, a sentence a row otherwise.

Tokens 0 to 3 are BART's, as in all workloads that generate: <s> (which no row has), <pad>, </s>,
<unk>. A sentence is `tokens </s>`, and rows are padded on the right. A training row holds as many
sentences as both of its sides have room for, in an order drawn by the seed; a pair with a longer
side is left out and counted. Of validation and test rows a longer side keeps its first tokens and
the end, which is counted too: every row is judged.

Legend: N rows, T tokens.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats import translations
from algoperf.data.tokenizers import BEGIN_ID, END_ID, PAD_ID, UNKNOWN_ID
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data, Text
from workloads.parts.summarization import describe
from workloads.parts.summarization_corpus import Row, redraw
from workloads.parts.unigrams import TRAINED_CHARACTERS, Special, Unigrams
from workloads.wmt import generator

BUILTIN_ROWS = {"train": 16_000, "validation": 1_000, "test": 1_000}
SPECIAL = Special(PAD_ID, UNKNOWN_ID, END_ID, BEGIN_ID)
SIDES = (("source", "inputs"), ("target", "targets"))
CHUNK = 10_000  # texts whose tokens are lists at a time
SEPARATOR = "\n"  # No sentence has one.
PACKING = 0x9A  # sets the random stream of the packing apart from others of the seed
Pairs = tuple[list[str], list[str]]  # The sources come first, then the translations.
Ints = NDArray[np.integer[Any]]


def load(
    source: str,
    row_length: int,
    vocab_size: int,
    languages: tuple[str, str] = ("de", "en"),
    tokenizer: str = "trained",
    characters: int = TRAINED_CHARACTERS,
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return pairs of sentences as arrays of tokens.

    Args:
        source: 'builtin', or a folder (see `algoperf.data.formats.translations`).
        row_length: The number T of tokens of each side of a row.
        vocab_size: The number of tokens that the model knows, both languages together.
        languages: The language of the sources, and that of the translations, in a folder.
        tokenizer: 'trained', on the training texts, is the only kind.
        characters: How many characters of the training texts the tokens are trained on.
        seed: The seed of generated rows, of held-out splits and of the packing.
        skip_bad_rows: Whether to leave out damaged rows instead of raising an error.
        validation_seed: The seed of other validation and test rows among the generated ones; None
            for the usual ones.

    Returns:
        For each split 'inputs' and 'targets', int32 (N, T), and 'weights', float32 (N, T), 1 where
        the target is not padding. The notes count the training pairs that were left out
        ('pairs_dropped') and what is in the packed rows ('packing'), and have the lengths of
        sentences ('tokens') and how many were cut ('rows_cut').

    Raises:
        UserError: The rows cannot be read, or none is short enough to train on.
    """
    assert tokenizer == "trained"
    pairs, notes = read(source, languages, seed, skip_bad_rows, validation_seed)
    both = list(itertools.chain.from_iterable(zip(*pairs["train"], strict=True)))
    vocabulary = Unigrams(both, vocab_size, SPECIAL, characters)
    del both
    notes |= {"row_length": row_length, "tokens": {}, "rows_cut": {}}
    splits, texts = {}, {}
    for split in SPLITS:
        sides = [_encoded(vocabulary, side) for side in pairs[split]]
        notes["tokens"][split] = {
            side: describe(lengths) for (side, _), (_, lengths) in zip(SIDES, sides, strict=True)
        }
        if split == "train":
            rows = pack([lengths for _, lengths in sides], row_length, seed)
            if not rows:
                raise UserError(f"{source}: no pair of sentences has at most {row_length} tokens")
            kept = sum(map(len, rows))
            notes["pairs_dropped"] = len(pairs[split][0]) - kept
            notes["packing"] = {"pairs": kept, "rows": len(rows)}
            notes["rows_cut"][split] = {side: 0 for side, _ in SIDES}
        else:
            rows = [np.array([index]) for index in range(len(pairs[split][0]))]
            notes["rows_cut"][split] = {
                side: int((lengths > row_length).sum())
                for (side, _), (_, lengths) in zip(SIDES, sides, strict=True)
            }
        splits[split] = {
            key: _laid_out(*side, rows, row_length)
            for (_, key), side in zip(SIDES, sides, strict=True)
        }
        splits[split]["weights"] = (splits[split]["targets"] != PAD_ID).astype(np.float32)
        texts[split] = tuple(
            [SEPARATOR.join(side[index] for index in row) for row in rows] for side in pairs[split]
        )
        pairs[split] = [], []
    text = Text(
        decode=vocabulary.decode,
        sources={split: texts[split][0] for split in SPLITS},
        references={split: texts[split][1] for split in SPLITS},
        separator=SEPARATOR,
    )
    return Data(splits, model={"vocab_size": vocab_size}, notes=notes, text=text)


def read(
    source: str,
    languages: tuple[str, str] = ("de", "en"),
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> tuple[dict[str, Pairs], dict[str, Any]]:
    """Return the sentences and translations of every split, and notes on what was left out.

    The arguments are those of `load`.
    """
    if source != "builtin":
        columns, notes = translations.read(source, languages, seed, skip_bad_rows)
        first, second = languages
        return {split: (side[first], side[second]) for split, side in columns.items()}, notes
    rows = generator.generate(seed, BUILTIN_ROWS)
    if validation_seed is not None:
        seen = {row.source for each in rows.values() for row in each}
        rows |= redraw(generator.make_row, seed, validation_seed, BUILTIN_ROWS, seen)
    return _paired(rows), {}


def _paired(splits: Mapping[str, Sequence[Row]]) -> dict[str, Pairs]:
    return {
        split: ([row.source for row in rows], [row.reference for row in rows])
        for split, rows in splits.items()
    }


def _encoded(vocabulary: Unigrams, texts: Sequence[str]) -> tuple[Ints, Ints]:
    """Return the tokens of all texts, one after another, and how many each has, with its end."""
    flat, lengths = [], []
    for start in range(0, len(texts), CHUNK):
        rows = [vocabulary.encode(text) for text in texts[start : start + CHUNK]]
        lengths.append(np.array([len(row) for row in rows]))
        flat.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32))
    return np.concatenate(flat), np.concatenate(lengths)


def pack(lengths: Sequence[Ints], row_length: int, seed: int) -> list[Ints]:
    """Return which pairs share each row.

    The pairs come in an order drawn by the seed, and a row ends where the next has no room.

    Args:
        lengths: The number of tokens of each pair's two sides.
        row_length: The most tokens of a side of a row; longer pairs are left out.
        seed: The seed of the order.
    """
    sources_N, targets_N = lengths
    generator = np.random.default_rng(np.random.SeedSequence([seed, PACKING]))
    order = generator.permutation(len(sources_N))
    order = order[np.maximum(sources_N, targets_N)[order] <= row_length]
    starts, source, target = [], row_length, row_length  # as if a full row came before
    sides = zip(sources_N[order].tolist(), targets_N[order].tolist(), strict=True)
    for index, (more, more_targets) in enumerate(sides):
        source, target = source + more, target + more_targets
        if max(source, target) > row_length:
            starts.append(index)
            source, target = more, more_targets
    return np.split(order, starts[1:]) if starts else []


def _laid_out(
    flat: Ints, lengths: Ints, rows: Sequence[Ints], row_length: int
) -> NDArray[np.int32]:
    """Return rows of tokens, int32 (N, T), that hold these sentences one after another."""
    begins = np.cumsum(lengths) - lengths
    tokens_NT = np.full((len(rows), row_length), PAD_ID, np.int32)
    for tokens_T, row in zip(tokens_NT, rows, strict=True):
        at = 0
        for index in row:
            length = min(int(lengths[index]), row_length - at)
            tokens_T[at : at + length] = flat[begins[index] : begins[index] + length]
            at += length
        tokens_T[at - 1] = END_ID  # of a sentence that was cut as well
    return tokens_NT

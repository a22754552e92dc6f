"""Rows of (source, summary) to arrays, for every summarization workload.

Tokens 0 to 3 are BART's at every scale: <s>, <pad>, </s>, <unk>. A row is `<s> tokens </s>`, padded
on the right; a row that is too long keeps its first tokens and both ends, and is counted.

Legend: N rows, S source tokens, T target tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.formats import records
from algoperf.data.tokenizers import BEGIN_ID, END_ID, PAD_ID, UNKNOWN_ID
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data, Text
from workloads.parts.summarization_corpus import Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BUILTIN_ROWS = {"train": 16_000, "validation": 1_000, "test": 1_000}
TOKENIZER_ROWS = 8_000  # of the training split; more would change few tokens and take minutes
Pairs = tuple[list[str], list[str]]  # sources, summaries


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What sets one data set apart: its place on the hub, the fields of source and summary, and the
    generator that stands for it at mini, called with a seed and the rows of each split.
    """

    hub: records.Hub
    fields: tuple[str, str]
    generate: Callable[[int, Mapping[str, int]], dict[str, list[Row]]]


def load(
    corpus: Corpus,
    source: str,
    max_source: int,
    max_target: int,
    vocab_size: int,
    tokenizer: str,
    seed: int = 0,
    skip_bad_rows: bool = False,
) -> Data:
    """Return the rows from 'builtin', 'hub' or a folder as 'inputs' (N, S) and 'targets' (N, T),
    int32, and 'weights' (N, T), 1 where the target is real.

    `tokenizer` is 'trained' (on the training split), 'bart' or a trained one's folder. Notes hold
    what was cut ('rows_cut'), the lengths before that ('tokens'), and those of `records.read`.
    """
    pairs, notes = read(corpus, source, seed, skip_bad_rows)
    texts = [text for side in pairs["train"] for text in side[:TOKENIZER_ROWS]]
    text_tokenizer = tokenizers.of_encoder(
        tokenizer, source, texts, vocab_size, tokenizers.BART_SPECIAL
    )
    splits: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
    notes |= {"max_source": max_source, "max_target": max_target}
    notes |= {"rows_cut": {split: {} for split in SPLITS}}
    notes |= {"tokens": {split: {} for split in SPLITS}}
    sides = ("source", "inputs", max_source), ("target", "targets", max_target)
    for index, (side, key, max_length) in enumerate(sides):
        for split in SPLITS:
            tokens_NT, lengths_N = encode(text_tokenizer, pairs[split][index], max_length)
            splits[split][key] = tokens_NT
            notes["rows_cut"][split][side] = int((lengths_N > max_length).sum())
            notes["tokens"][split][side] = describe(lengths_N)
        _narrow(splits, key, max_length)
        largest = max(int(arrays[key].max()) for arrays in splits.values())
        if largest >= vocab_size:
            raise UserError(
                f"{source}: the tokenizer has token {largest}; the model knows those below "
                f"{vocab_size}"
            )
    for arrays in splits.values():
        arrays["weights"] = (arrays["targets"] != PAD_ID).astype(np.float32)
    text = Text(
        decode=decoder(text_tokenizer),
        sources={split: pairs[split][0] for split in SPLITS},
        references={split: pairs[split][1] for split in SPLITS},
    )
    json = tokenizers.to_json(tokenizer, text_tokenizer)
    return Data(splits, model={"vocab_size": vocab_size}, notes=notes, text=text, tokenizer=json)


def read(
    corpus: Corpus, source: str, seed: int = 0, skip_bad_rows: bool = False
) -> tuple[dict[str, Pairs], dict[str, Any]]:
    """Return sources and summaries by split, and notes on what was left out."""
    if source == "builtin":
        generated = corpus.generate(seed, BUILTIN_ROWS)
        return {
            split: ([row.source for row in rows], [row.reference for row in rows])
            for split, rows in generated.items()
        }, {}
    splits, notes = records.read(source, corpus.hub, corpus.fields, seed, skip_bad_rows)
    first, second = corpus.fields
    return {split: (columns[first], columns[second]) for split, columns in splits.items()}, notes


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens_NT int32 of `max_length` columns, and the rows' full lengths with both ends."""
    tokens_NT = np.full((len(texts), max_length), PAD_ID, np.int32)
    lengths_N = np.empty(len(texts), np.int64)
    for row, ids in enumerate(tokenizers.ids_of(tokenizer, texts)):
        kept = [BEGIN_ID, *ids[: max_length - 2], END_ID]
        tokens_NT[row, : len(kept)] = kept
        lengths_N[row] = len(ids) + 2
    return tokens_NT, lengths_N


def _narrow(splits: Mapping[str, dict[str, np.ndarray]], key: str, max_length: int) -> None:
    """Cut the columns that no split needs, to a multiple of 8."""
    longest = max(int((arrays[key] != PAD_ID).sum(1).max()) for arrays in splits.values())
    for arrays in splits.values():
        arrays[key] = np.ascontiguousarray(arrays[key][:, : min(max_length, -(-longest // 8) * 8)])


def decoder(tokenizer: "Tokenizer") -> Callable[[Sequence[Sequence[int]]], list[str]]:
    """Return a function from lists of token ids to texts, without special tokens and the leading
    space.
    """
    special = {BEGIN_ID, PAD_ID, END_ID, UNKNOWN_ID, tokenizer.token_to_id(tokenizers.MASK)}

    def decode(rows: Sequence[Sequence[int]]) -> list[str]:
        kept = [[int(token) for token in row if int(token) not in special] for row in rows]
        texts: list[str] = tokenizer.decode_batch(kept, skip_special_tokens=False)
        return [text.removeprefix(" ") for text in texts]

    return decode


def describe(lengths_N: np.ndarray) -> dict[str, float]:
    """Mean, median and 95th percentile of lengths, and the longest."""
    median, high = np.percentile(lengths_N, [50, 95]).tolist()
    mean, longest = float(lengths_N.mean()), float(lengths_N.max())
    return {"mean": mean, "median": median, "p95": high, "max": longest}

"""From rows of (source, summary) to arrays of tokens, for every summarization workload.

Tokens 0 to 3 are BART's at every scale: <s>, <pad>, </s>, <unk>. A row is `<s> tokens </s>`, padded
on the right. A row that is too long keeps its first tokens and both ends, and is counted.

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
from workloads.parts.summarization_corpus import Make, Row, redraw

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BUILTIN_ROWS = {"train": 16_000, "validation": 1_000, "test": 1_000}
# More training rows than these would change few tokens of the tokenizer, and take minutes.
TOKENIZER_ROWS = 8_000
Pairs = tuple[list[str], list[str]]  # The sources come first, then the summaries.


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The facts in which one summarization data set differs from another.

    Attributes:
        hub: Its place on the hub.
        fields: The names of its fields: source and summary.
        generate: The generator of built-in rows for the mini scale. It is called with a seed and
            the number of rows of each split.
        make_row: What makes one of these rows.
    """

    hub: records.Hub
    fields: tuple[str, str]
    generate: Callable[[int, Mapping[str, int]], dict[str, list[Row]]]
    make_row: Make


def load(
    corpus: Corpus,
    source: str,
    max_source: int,
    max_target: int,
    vocab_size: int,
    tokenizer: str,
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return a data set of sources and summaries as arrays of tokens.

    Args:
        corpus: The data set.
        source: Where its rows come from: 'builtin', 'hub' or a folder.
        max_source: The largest number of tokens of a source; longer ones are cut.
        max_target: The largest number of tokens of a summary; longer ones are cut.
        vocab_size: The number of tokens that the model knows.
        tokenizer: 'trained' (on the training split), 'bart', or the folder of a trained one.
        seed: The seed of generated rows and of held-out splits.
        skip_bad_rows: Whether to leave out damaged rows instead of raising an error.
        validation_seed: The seed of other validation and test rows among the generated ones; None
            for the usual ones. The training rows do not depend on it.

    Returns:
        For each split, 'inputs' (N rows, S source tokens) and 'targets' (N, T target tokens),
        int32, and 'weights' (N, T), float32, 1 where the target is not padding. The notes hold how
        many rows were cut ('rows_cut'), the lengths before the cut ('tokens'), and the notes of
        `records.read`.

    Raises:
        UserError: The rows cannot be read, or the tokenizer has tokens that the model does not
            know.
    """
    pairs, notes = read(corpus, source, seed, skip_bad_rows)
    secret = {} if validation_seed is None else _redrawn(corpus, pairs, seed, validation_seed)
    texts = [text for side in pairs["train"] for text in side[:TOKENIZER_ROWS]]
    text_tokenizer = tokenizers.of_encoder(
        tokenizer, source, texts, vocab_size, tokenizers.BART_SPECIAL
    )
    splits: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
    notes |= {"max_source": max_source, "max_target": max_target}
    notes |= {"rows_cut": {split: {} for split in SPLITS}}
    notes |= {"tokens": {split: {} for split in SPLITS}}
    sides = ("source", "inputs", max_source), ("target", "targets", max_target)

    def add(split: str, texts: Pairs, index: int, columns: int) -> None:
        side, key, _ = sides[index]
        tokens_NT, lengths_N = encode(text_tokenizer, texts[index], columns)
        splits[split][key] = tokens_NT
        notes["rows_cut"][split][side] = int((lengths_N > columns).sum())
        notes["tokens"][split][side] = describe(lengths_N)

    for index, (_, key, max_length) in enumerate(sides):
        for split in SPLITS:
            add(split, pairs[split], index, max_length)
        _narrow(splits, key, max_length)
        for split, texts_of_split in secret.items():  # They get as many columns as the others need.
            add(split, texts_of_split, index, splits["train"][key].shape[1])
        largest = max(int(arrays[key].max()) for arrays in splits.values())
        if largest >= vocab_size:
            raise UserError(
                f"{source}: the tokenizer has token {largest}; the model knows those below "
                f"{vocab_size}"
            )
    for arrays in splits.values():
        arrays["weights"] = (arrays["targets"] != PAD_ID).astype(np.float32)
    pairs = {**pairs, **secret}
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
    """Return the sources and summaries of every split, and notes on rows that were left out.

    The arguments are those of `load`.
    """
    if source == "builtin":
        generated = corpus.generate(seed, BUILTIN_ROWS)
        return _paired(generated), {}
    splits, notes = records.read(source, corpus.hub, corpus.fields, seed, skip_bad_rows)
    first, second = corpus.fields
    return {split: (columns[first], columns[second]) for split, columns in splits.items()}, notes


def _redrawn(
    corpus: Corpus, pairs: Mapping[str, Pairs], seed: int, validation_seed: int
) -> dict[str, Pairs]:
    """Return other generated validation and test rows than those of `read`."""
    seen = {source for sources, _ in pairs.values() for source in sources}
    return _paired(redraw(corpus.make_row, seed, validation_seed, BUILTIN_ROWS, seen))


def _paired(splits: Mapping[str, list[Row]]) -> dict[str, Pairs]:
    return {
        split: ([row.source for row in rows], [row.reference for row in rows])
        for split, rows in splits.items()
    }


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return texts as rows of tokens, padded on the right.

    Args:
        tokenizer: The tokenizer.
        texts: The texts, one per row.
        max_length: The number of columns; a longer row is cut, but keeps both ends.

    Returns:
        The tokens, int32 (N rows, max_length), and the lengths (N,) of the rows before the cut,
        with both ends.
    """
    tokens_NT = np.full((len(texts), max_length), PAD_ID, np.int32)
    lengths_N = np.empty(len(texts), np.int64)
    for row, ids in enumerate(tokenizers.ids_of(tokenizer, texts)):
        kept = [BEGIN_ID, *ids[: max_length - 2], END_ID]
        tokens_NT[row, : len(kept)] = kept
        lengths_N[row] = len(ids) + 2
    return tokens_NT, lengths_N


def _narrow(splits: Mapping[str, dict[str, np.ndarray]], key: str, max_length: int) -> None:
    """Cut columns that are padding in every split; a multiple of 8 columns remains."""
    longest = max(int((arrays[key] != PAD_ID).sum(1).max()) for arrays in splits.values())
    for arrays in splits.values():
        arrays[key] = np.ascontiguousarray(arrays[key][:, : min(max_length, -(-longest // 8) * 8)])


def decoder(tokenizer: "Tokenizer") -> Callable[[Sequence[Sequence[int]]], list[str]]:
    """Return a function from lists of token ids to texts.

    The texts have neither special tokens nor the leading space.
    """
    special = {BEGIN_ID, PAD_ID, END_ID, UNKNOWN_ID, tokenizer.token_to_id(tokenizers.MASK)}

    def decode(rows: Sequence[Sequence[int]]) -> list[str]:
        kept = [[int(token) for token in row if int(token) not in special] for row in rows]
        texts: list[str] = tokenizer.decode_batch(kept, skip_special_tokens=False)
        return [text.removeprefix(" ") for text in texts]

    return decode


def describe(lengths_N: np.ndarray) -> dict[str, float]:
    """Return the mean, the median, the 95th percentile and the maximum of lengths."""
    median, high = np.percentile(lengths_N, [50, 95]).tolist()
    mean, longest = float(lengths_N.mean()), float(lengths_N.max())
    return {"mean": mean, "median": median, "p95": high, "max": longest}

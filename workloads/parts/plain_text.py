"""Plain text to pretrain on: the built-in news, text files of a folder, or a corpus of the hub.

A text is a news item, or a block of `LINES` consecutive lines of a file. Texts are packed end to
end into rows of one length.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.formats import documents, records, sources
from algoperf.data.formats.records import Hub
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data
from workloads.ag_news import data as ag_news

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HUB = Hub("Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", "wikitext-103-raw-v1")
LINES = 32
# A pass over this many built-in texts costs as much as a few training steps.
EVAL_TEXTS = 400
FIELD = "text"
ENDINGS = (".txt", ".txt.gz")
Texts = dict[str, list[str]]  # The texts of each split.


def read(
    source: str, seed: int = 0, validation_seed: int | None = None
) -> tuple[Texts, dict[str, Any]]:
    """Return the texts of every split.

    The built-in texts are those of ag_news' mini scale without their labels; its validation and
    test splits contribute their first `EVAL_TEXTS` texts. A folder holds text files in UTF-8,
    `*.txt` or `*.txt.gz`. A word in the name of a file says its split (train; validation, valid,
    val, dev or eval; test); files without such a word are the training split if no file says train.
    A validation or test split that is missing is held out from the training texts, a seeded tenth
    of them.

    Args:
        source: 'builtin', 'hub' or a folder.
        seed: The seed of the built-in texts and of the held-out splits.
        validation_seed: The seed of other built-in texts for validation and test; None for the
            usual ones. The training texts do not depend on it.

    Returns:
        The texts by split, and notes: 'held_out', the splits taken from the training texts, and
        'files_ignored', the files of a folder that belong to no split.

    Raises:
        UserError: A folder has no training text, a file is unreadable or its name says several
            splits, or a split has no text.
    """
    if source == "builtin":
        splits = ag_news.read(source, seed, validation_seed)
        most = {"validation": EVAL_TEXTS, "test": EVAL_TEXTS}
        return {split: rows[0][: most.get(split)] for split, rows in splits.items()}, {}
    notes: dict[str, Any] = {}
    if source == "hub":
        loaded = sources.load_dataset(HUB.path, HUB.revision, (FIELD,), ("train",), HUB.config)
        texts = {split: _blocks(loaded[split][FIELD]) for split in SPLITS if split in loaded}
    else:
        files, notes["files_ignored"] = documents.find(Path(source), ENDINGS)
        texts = {
            split: [text for path in paths for text in _blocks(_lines(path))]
            for split, paths in files.items()
        }
    for split, own in texts.items():
        if not own:
            raise UserError(f"{source}: the {split} split has no text")
    columns: dict[str, records.Columns] = {split: {FIELD: own} for split, own in texts.items()}
    parts, notes["held_out"] = records.hold_out(columns, seed)
    return {split: part[FIELD] for split, part in parts.items()}, notes


def _lines(path: Path) -> Iterator[str]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                fault = sources.undecodable(line)
                if fault:
                    raise UserError(f"{path}:{number}: unreadable ({fault})")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: unreadable ({error})") from error


def _blocks(lines: Iterable[str]) -> list[str]:
    """Return texts of `LINES` lines each, without those that are blank."""
    texts, block = [], []
    for line in lines:
        block.append(line.rstrip("\r\n"))
        if len(block) == LINES:
            texts.append("\n".join(block))
            block = []
    texts.append("\n".join(block))
    return [text for text in texts if text.strip()]


def packed(tokenizer: "Tokenizer", texts: Sequence[str], end_id: int) -> np.ndarray:
    """Return the tokens of all texts one after another, int32, with `end_id` after each text."""
    parts = []
    for ids in tokenizers.ids_of(tokenizer, texts):
        parts.append(np.array([*ids, end_id], np.int32))
    return np.concatenate(parts)


def cut(stream: np.ndarray, max_length: int) -> dict[str, np.ndarray]:
    """Return tokens cut into rows, of which each position's target is the token after it.

    Tokens that are too few for a last row are left out.

    Args:
        stream: The tokens, one after another.
        max_length: The number of tokens of a row.

    Returns:
        'inputs' and 'targets', (rows, max_length) each.
    """
    rows = row_count(len(stream), max_length)
    size = rows * max_length
    return {
        "inputs": stream[:size].reshape(rows, max_length),
        "targets": stream[1 : size + 1].reshape(rows, max_length),
    }


def row_count(tokens: int, max_length: int) -> int:
    """Return how many rows `cut` makes of so many tokens."""
    return max(tokens - 1, 0) // max_length


def windows(
    source: str,
    max_length: int,
    vocab_size: int,
    tokenizer: str,
    seed: int = 0,
    validation_seed: int | None = None,
) -> Data:
    """Return the texts of `read` as rows of tokens to predict the next of.

    The texts of a split follow one another, with an end-of-text token after each, and are cut into
    rows.

    Args:
        source: As of `read`.
        max_length: The number of tokens of a row.
        vocab_size: The number of tokens that the model knows.
        tokenizer: 'trained' (on the training texts, as ag_news' mini scale trains its own; its
            padding token ends a text), 'gpt2', or the folder of a trained one.
        seed: The seed of built-in texts and of held-out splits.
        validation_seed: As of `read`.

    Returns:
        For each split, 'inputs' and 'targets', int32 (rows, max_length); the targets are one token
        further on. The notes hold the number of 'texts' and of 'packed_tokens' of each split, and
        the notes of `read`.

    Raises:
        UserError: The texts cannot be read, a split is shorter than one row, or the tokenizer has
            tokens that the model does not know.
    """
    texts, notes = read(source, seed, validation_seed)
    text_tokenizer, end_id = tokenizers.of_decoder(tokenizer, source, texts["train"], vocab_size)
    splits, notes["texts"], notes["packed_tokens"] = {}, {}, {}
    for split, own in texts.items():
        stream = packed(text_tokenizer, own, end_id)
        check_vocabulary(source, int(stream.max()), vocab_size)
        splits[split] = cut(stream, max_length)
        notes["texts"][split], notes["packed_tokens"][split] = len(own), len(stream)
    counts = {split: len(arrays["inputs"]) for split, arrays in splits.items()}
    check_rows(source, counts, max_length)
    model = {"vocab_size": vocab_size, "pad_id": end_id}
    json = tokenizers.to_json(tokenizer, text_tokenizer)
    return Data(splits, model=model, notes=notes, tokenizer=json)


def check_rows(source: str, rows_by_split: Mapping[str, int], length: int) -> None:
    """Raise UserError where a split has no row.

    Args:
        source: The source of the data, for the message.
        rows_by_split: The number of rows of each split.
        length: The number of tokens in a row, for the message.
    """
    for split, rows in rows_by_split.items():
        if not rows:
            raise UserError(
                f"{source}: the {split} split is shorter than one row of {length} tokens"
            )


def check_vocabulary(source: str, largest: int, vocab_size: int) -> None:
    """Raise UserError where the tokenizer gives a token that the model does not know.

    Args:
        source: The source of the data, for the message.
        largest: The largest token id in the data.
        vocab_size: The number of token ids that the model knows, from 0.
    """
    if largest >= vocab_size:
        raise UserError(
            f"{source}: the tokenizer has token {largest}; the model knows those below {vocab_size}"
        )

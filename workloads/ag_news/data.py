"""From AG News rows to tokens.

The rows are the built-in synthetic corpus, the original CSV files, or the hub's parquet layout.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.formats import records, sources
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data

HUB = ("fancyzhx/ag_news", "eb185aade064a813bc0b7f42de02595523103ca4")
CLASSES = 4
BUILTIN_ROWS = {"train_rows": 24_000, "validation_rows": 1_500, "test_rows": 1_500}
Rows = tuple[list[str], list[int]]  # The texts come first, then the labels from 0.


def load(
    source: str,
    max_length: int,
    vocab_size: int,
    tokenizer: str,
    seed: int = 0,
    validation_seed: int | None = None,
) -> Data:
    """Return AG News as arrays of tokens and labels.

    Args:
        source: Where the rows come from: 'builtin', 'hub' or a folder (see `read`).
        max_length: The largest number of tokens of a row; longer rows are cut.
        vocab_size: The number of tokens that the model knows.
        tokenizer: The tokenizer, as in `tokenizers.of_decoder`; 'trained' is trained on the
            training texts.
        seed: The seed of the built-in corpus and of a held-out validation split.
        validation_seed: The seed of other validation and test rows of the built-in corpus; None
            for the usual ones. The training rows do not depend on it.

    Returns:
        For each split, 'inputs', int32 (rows, length), padded on the right, and 'targets', int32
        (rows,), labels from 0 to 3. The notes hold the number of rows that were cut ('rows_cut').

    Raises:
        UserError: The rows cannot be read, or the tokenizer has tokens that the model does not
            know.
    """
    texts = read(source, seed)
    trained, pad_id = tokenizers.of_decoder(tokenizer, source, texts["train"][0], vocab_size)
    encoded = {
        split: tokenizers.encode(trained, texts[split][0], max_length, pad_id) for split in SPLITS
    }
    largest = max(int(tokens_NT.max()) for tokens_NT, _ in encoded.values())
    if largest >= vocab_size:
        raise UserError(
            f"{source}: the tokenizer has token {largest}; the model knows those below {vocab_size}"
        )
    length = max(longest(tokens_NT, pad_id) for tokens_NT, _ in encoded.values())
    columns = min(max_length, -(-length // 8) * 8)
    if validation_seed is not None:  # These rows get as many columns as the others need.
        redrawn = _redrawn(texts, seed, validation_seed)
        texts = {**texts, **redrawn}
        encoded |= {
            split: tokenizers.encode(trained, rows[0], columns, pad_id)
            for split, rows in redrawn.items()
        }
    splits = {
        split: {
            "inputs": tokens_NT[:, :columns],
            "targets": np.array(texts[split][1], np.int32),
        }
        for split, (tokens_NT, _) in encoded.items()
    }
    notes = {
        "rows_cut": {split: cut for split, (_, cut) in encoded.items()},
        "max_length": max_length,
    }
    model = {"vocab_size": vocab_size, "pad_id": pad_id}
    json = tokenizers.to_json(tokenizer, trained)
    return Data(splits, model=model, notes=notes, tokenizer=json)


def longest(tokens_NT: np.ndarray, pad_id: int) -> int:
    """Return the length of the longest row without its padding.

    Args:
        tokens_NT: Token ids (N rows, T tokens), padded on the right.
        pad_id: The token that pads rows.
    """
    return int(np.nonzero((tokens_NT != pad_id).any(0))[0].max(initial=0)) + 1


def _redrawn(texts: Mapping[str, Rows], seed: int, validation_seed: int) -> Mapping[str, Rows]:
    from workloads.ag_news import corpus

    return corpus.redraw(texts, seed, validation_seed)


def read(source: str, seed: int = 0, validation_seed: int | None = None) -> Mapping[str, Rows]:
    """Return the texts and the labels (from 0) of every split.

    Where the source has no validation split, seeded rows of the training split become one.

    Args:
        source: 'builtin', 'hub', or a folder with the original train.csv and test.csv (or .csv.gz)
            or in the hub's layout.
        seed: The seed of the built-in corpus and of a held-out validation split.
        validation_seed: As of `load`.

    Raises:
        UserError: A file is missing, or a row has no text or no valid label.
    """
    if source == "builtin":
        from workloads.ag_news import corpus

        generated = corpus.generate(seed, **BUILTIN_ROWS)
        if validation_seed is not None:
            generated |= corpus.redraw(generated, seed, validation_seed)
        return generated
    folder = Path(source)
    if source != "hub" and sources.find_file(folder, "train.csv") is not None:
        official = {
            split: _checked(f"{folder}/{split}", _csv_rows(folder, split))
            for split in ("train", "test")
        }
    else:
        path, revision = HUB if source == "hub" else (source, None)
        loaded = sources.load_dataset(path, revision, ("text", "label"))
        official = {
            split: _checked(
                f"{path}/{split}",
                (
                    (f"{path}/{split}:{row}", text, label)
                    for row, (text, label) in enumerate(
                        zip(loaded[split]["text"], loaded[split]["label"], strict=True)
                    )
                ),
            )
            for split in ("train", "validation", "test")
            if split in loaded
        }
    if "validation" in official:
        return official
    columns: dict[str, records.Columns] = {
        split: {"text": rows[0], "label": rows[1]} for split, rows in official.items()
    }
    parts, _ = records.hold_out(columns, seed)
    return {split: (part["text"], part["label"]) for split, part in parts.items()}


def _csv_rows(folder: Path, split: str) -> Iterator[tuple[str, str, object]]:
    """Yield (position in the file, text, label from 0) for each row of an original CSV file.

    A row of the file is a class from 1 to 4, a title and a description; there is no header.
    """
    path = sources.find_file(folder, f"{split}.csv")
    if path is None:
        raise UserError(f"{folder}: no {split}.csv or {split}.csv.gz beside the other split")
    for row, (label, title, description) in sources.read_csv(path, columns=3):
        where = f"{path}:{row}"
        if label.strip() not in ("1", "2", "3", "4"):
            raise UserError(f"{where}: class {label!r}, expected 1 to {CLASSES}")
        yield where, f"{title} {description}", int(label) - 1


def _checked(where: str, rows: Iterator[tuple[str, object, object]]) -> Rows:
    """Return texts and labels of a split, after a check that each row has both."""
    texts, labels = [], []
    for row, text, label in rows:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{row}: no text")
        fault = sources.undecodable(text)
        if fault:
            raise UserError(f"{row}: no Unicode text ({fault})")
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < CLASSES:
            raise UserError(f"{row}: label {label!r} (counted from 0), expected 0 to {CLASSES - 1}")
        texts.append(text)
        labels.append(label)
    if not texts:
        raise UserError(f"{where}: the split is empty")
    return texts, labels

"""Plain text to pretrain on: the built-in news, text files of a folder, or a corpus of the hub.

A text is a news item, or a block of `LINES` consecutive lines of a file; texts are packed end to
end into rows of one length.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.formats import records, sources
from algoperf.data.formats.records import SPLIT_OF, Hub
from algoperf.errors import UserError
from algoperf.workload import SPLITS
from workloads.ag_news.data import BUILTIN_ROWS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HUB = Hub("Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", "wikitext-103-raw-v1")
LINES = 32
EVAL_TEXTS = 400  # built-in; a pass over them costs as much as a few steps
FIELD = "text"
SPLIT_NAMES = SPLIT_OF | {"valid": "validation", "eval": "validation"}
Texts = dict[str, list[str]]  # by split


def read(source: str, seed: int = 0) -> tuple[Texts, dict[str, Any]]:
    """Return the texts of every split, and notes; `source` is 'builtin', 'hub' or a folder.

    The built-in texts are those of ag_news' mini scale, less their labels; of its validation and
    test splits the first `EVAL_TEXTS`. A folder holds text files in UTF-8, `*.txt` or `*.txt.gz`; a
    file is of the split that a word of its name says (train; validation, valid, val, dev or eval;
    test), or of the training split where none says train. A validation or test split that is
    missing is a seeded tenth of the training texts (noted as 'held_out').
    """
    if source == "builtin":
        from workloads.ag_news import corpus

        splits = corpus.generate(seed, **BUILTIN_ROWS)
        most = {"validation": EVAL_TEXTS, "test": EVAL_TEXTS}
        return {split: rows[0][: most.get(split)] for split, rows in splits.items()}, {}
    notes: dict[str, Any] = {}
    if source == "hub":
        loaded = sources.load_dataset(HUB.path, HUB.revision, (FIELD,), ("train",), HUB.config)
        texts = {split: _blocks(loaded[split][FIELD]) for split in SPLITS if split in loaded}
    else:
        files, notes["files_ignored"] = _find(Path(source))
        texts = {
            split: [text for path in paths for text in _blocks(_lines(path))]
            for split, paths in files.items()
        }
    for split, documents in texts.items():
        if not documents:
            raise UserError(f"{source}: the {split} split has no text")
    columns: dict[str, records.Columns] = {
        split: {FIELD: documents} for split, documents in texts.items()
    }
    parts, notes["held_out"] = records.hold_out(columns, seed)
    return {split: part[FIELD] for split, part in parts.items()}, notes


def _find(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Each split's files, and the names of those that are of none."""
    files: dict[str, list[Path]] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.removesuffix(".gz").endswith(".txt") and path.is_file():
            words = re.split("[^a-z]+", path.name.lower())
            named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
            if len(named) > 1:
                raise UserError(f"{path}: its name says several splits: {', '.join(sorted(named))}")
            if named:
                files.setdefault(named.pop(), []).append(path)
            else:
                others.append(path)
    if "train" not in files and others:
        files["train"], others = others, []
    if "train" not in files:
        raise UserError(
            f"{folder}: no training text; expected *.txt or *.txt.gz, named by split (train, "
            "validation, test) or not"
        )
    return files, [path.name for path in others]


def _lines(path: Path) -> Iterator[str]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            yield from file
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: unreadable ({error})") from error


def _blocks(lines: Iterable[str]) -> list[str]:
    """The texts of `LINES` lines each that are not blank."""
    texts, block = [], []
    for line in lines:
        block.append(line.rstrip("\r\n"))
        if len(block) == LINES:
            texts.append("\n".join(block))
            block = []
    texts.append("\n".join(block))
    return [text for text in texts if text.strip()]


def packed(tokenizer: "Tokenizer", texts: Sequence[str], end_id: int) -> np.ndarray:
    """Return all tokens of the texts one after another, int32, with `end_id` after each text."""
    parts = []
    for ids in tokenizers.ids_of(tokenizer, texts):
        parts.append(np.array([*ids, end_id], np.int32))
    return np.concatenate(parts)


def check_rows(source: str, rows_by_split: Mapping[str, int], length: int) -> None:
    """Raise UserError where a split has no row of that many tokens."""
    for split, rows in rows_by_split.items():
        if not rows:
            raise UserError(
                f"{source}: the {split} split is shorter than one row of {length} tokens"
            )


def check_vocabulary(source: str, largest: int, vocab_size: int) -> None:
    """Raise UserError where the tokenizer gives a token that the model does not know."""
    if largest >= vocab_size:
        raise UserError(
            f"{source}: the tokenizer has token {largest}; the model knows those below {vocab_size}"
        )

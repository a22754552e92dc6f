"""Documents in parquet files, as large corpora of text are published: a row of text for each.

A row group is read at a time, so that no file is ever held whole.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.data.formats import sources
from algoperf.data.formats.records import SPLIT_OF
from algoperf.errors import UnreadableRowError, UserError

FIELD, TOKENS_FIELD = "text", "token_count"  # FineWeb-Edu counts the tokens of GPT-2 in the second
SPLIT_NAMES: Mapping[str, str] = SPLIT_OF | {"valid": "validation", "eval": "validation"}


def find(
    folder: Path, endings: Sequence[str], pattern: str = "*"
) -> tuple[dict[str, list[Path]], list[str]]:
    """Return the files of each split, and the names of those that belong to none.

    A word in the name of a file says its split (train; validation, valid, val, dev or eval; test).
    Files without such a word are the training split if no file says train.

    Args:
        folder: The folder.
        endings: The endings of the names, such as '.txt.gz'.
        pattern: What is looked at: '**/*' also what is in folders of it.

    Raises:
        UserError: A name says several splits, or no file is of the training split.
    """
    files: dict[str, list[Path]] = {}
    others = []
    for path in sorted(folder.glob(pattern)):
        if path.name.endswith(tuple(endings)) and path.is_file():
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
            f"{folder}: no training text; expected {' or '.join(f'*{each}' for each in endings)}, "
            "named by split (train, validation, test) or not"
        )
    return files, [str(path.relative_to(folder)) for path in others]


class ParquetDocuments:
    """The documents of a parquet file.

    Args:
        path: The file.
        skip_bad_rows: Whether documents that are no text are left out.

    Raises:
        UserError: It cannot be read, or has no column of text.
    """

    def __init__(self, path: Path, skip_bad_rows: bool = False) -> None:
        from pyarrow import parquet

        self.path, self._skip_bad_rows = path, skip_bad_rows
        try:
            metadata = parquet.ParquetFile(path).metadata
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); download it again") from error
        names = metadata.schema.names
        if FIELD not in names:
            raise UserError(f"{path}: no column {FIELD!r}; it has: {', '.join(names)}")
        self.groups: int = metadata.num_row_groups
        self._sizes: list[int] = [metadata.row_group(each).num_rows for each in range(self.groups)]
        self.counts_tokens = TOKENS_FIELD in names

    def size(self, group: int) -> int:
        """Return how many documents a row group has, those that are no text as well."""
        return self._sizes[group]

    def token_count(self, group: int) -> int:
        """Return the tokens of a row group's documents together, as its column says.

        Raises:
            UserError: It does not.
        """
        try:
            counts = self._column(group, TOKENS_FIELD)
        except UnreadableRowError as error:
            raise UserError(str(error)) from error
        if any(count is None for count in counts):
            raise UserError(f"{self.path}, row group {group + 1}: a {TOKENS_FIELD} is missing")
        total: int = sum(counts)
        return total

    def texts(self, group: int) -> tuple[list[str], int]:
        """Return the documents of a row group, and how many were left out.

        Raises:
            UnreadableRowError: The file is damaged, or a document is no text and none is left out.
        """
        texts, left_out = [], 0
        for row, text in enumerate(self._column(group, FIELD), start=1):
            fault = "no text" if not text else sources.undecodable(text)
            if not fault:
                texts.append(text)
            elif self._skip_bad_rows:
                left_out += 1
            else:
                raise UnreadableRowError(
                    f"{self.path}, row group {group + 1}, row {row}: {fault}; --skip-bad-rows "
                    "counts such rows and goes on"
                )
        return texts, left_out

    def _column(self, group: int, name: str) -> list[Any]:
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(self.path)
            table = file.read_row_group(group, columns=[name], use_threads=False)
            values: list[Any] = table.column(name).to_pylist()
        except (OSError, ValueError) as error:
            raise UnreadableRowError(f"{self.path}, row group {group + 1}: {error}") from error
        return values

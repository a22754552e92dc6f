"""Documents of parquet files as rows of tokens, read and tokenized as they are needed.

The documents of a row group are joined, an end-of-text token after each, and cut into rows; what is
too short for a last row of the group is left out (of a thousand pages, half a row of a thousand).
So a row is found by its number alone, and training goes on anywhere.

It is known how many rows a row group has before it is read where a column says how many tokens the
documents have, as FineWeb-Edu's does for GPT-2's; else every document is tokenized once before.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.formats import blocks, documents
from algoperf.data.formats.documents import ParquetDocuments
from algoperf.data.rows import BlockRows, ReadBlock
from algoperf.errors import UnreadableRowError, UserError
from algoperf.workload import SPLITS, Data, Field
from workloads.parts import plain_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ENDING = ".parquet"
WINDOW_ROWS = 4096  # at 1,024 tokens 32 MB; AlgoPerf mixes 1,000
TOKENIZER_TEXTS = 10_000  # that a tokenizer is trained on
HELD_OUT_SHARE, MOST_HELD_OUT_ROWS = 0.1, 100_000  # the latter as AlgoPerf's validation split


def load(
    folder: Path,
    max_length: int,
    vocab_size: int,
    tokenizer: str,
    skip_bad_rows: bool = False,
) -> Data:
    """Return the rows of a folder of parquet files.

    Args:
        folder: See `documents.find`. A split that is missing is the last tenth of the training
            rows, at most `MOST_HELD_OUT_ROWS`: the test split before the validation split.
        max_length: The number of tokens of a row.
        vocab_size: The number of tokens that the model knows.
        tokenizer: As of `plain_text.windows`; one is trained on the first `TOKENIZER_TEXTS`.
        skip_bad_rows: Whether documents that are no text are left out and counted.

    Returns:
        For each split, 'inputs' and 'targets', int32 (rows, max_length). The notes hold the number
        of 'packed_tokens' of each split's files, of rows 'held_out', and of 'bad_rows'.

    Raises:
        UserError: The folder cannot be used.
    """
    paths, ignored = documents.find(folder, (ENDING,), "**/*")
    files = {
        split: [ParquetDocuments(path, skip_bad_rows) for path in each]
        for split, each in paths.items()
    }
    texts = _first_texts(files["train"]) if tokenizer == "trained" else []
    text_tokenizer, end_id = tokenizers.of_decoder(tokenizer, str(folder), texts, vocab_size)
    plain_text.check_vocabulary(str(folder), text_tokenizer.get_vocab_size() - 1, vocab_size)
    stream = Stream(text_tokenizer, end_id, max_length, is_gpt2=tokenizer == "gpt2")
    notes: dict[str, Any] = {"files_ignored": ignored, "packed_tokens": {}, "bad_rows": {}}
    whole = {}
    for split, each in files.items():
        whole[split], notes["packed_tokens"][split], left_out = stream.rows(each, skip_bad_rows)
        if left_out:
            notes["bad_rows"][split] = {"no text": left_out}
    splits, notes["held_out"] = _hold_out(whole)
    plain_text.check_rows(
        str(folder), {split: len(rows) for split, rows in splits.items()}, max_length
    )
    model = {"vocab_size": vocab_size, "pad_id": end_id}
    json = tokenizers.to_json(tokenizer, text_tokenizer)
    return Data(splits, model=model, notes=notes, tokenizer=json)


def _first_texts(files: Sequence[ParquetDocuments]) -> list[str]:
    texts: list[str] = []
    for file in files:
        for group in range(file.groups):
            texts += _texts_before_the_run(file, group)[0]
            if len(texts) >= TOKENIZER_TEXTS:
                return texts[:TOKENIZER_TEXTS]
    return texts


def _texts_before_the_run(file: ParquetDocuments, group: int) -> tuple[list[str], int]:
    """As `ParquetDocuments.texts`, with an error that stops the run before it begins."""
    try:
        return file.texts(group)
    except UnreadableRowError as error:
        raise UserError(str(error)) from error


class Stream:
    """Turns documents into rows of tokens.

    Args:
        tokenizer: The tokenizer.
        end_id: Its token that ends a document.
        max_length: The number of tokens of a row.
        is_gpt2: Whether it is GPT-2's, whose tokens a column may count.
    """

    def __init__(self, tokenizer: "Tokenizer", end_id: int, max_length: int, is_gpt2: bool) -> None:
        self._tokenizer, self._end_id = tokenizer, end_id
        self._max_length, self._is_gpt2 = max_length, is_gpt2

    def rows(
        self, files: Sequence[ParquetDocuments], skip_bad_rows: bool
    ) -> tuple[BlockRows, int, int]:
        """Return the rows of some files, how many tokens they have, and how many documents were
        left out.
        """
        block_files, packed, left_out = [], 0, 0
        for file in files:
            counts = []
            for group in range(file.groups):
                tokens, bad = self._count(file, group, skip_bad_rows)
                counts.append(tokens)
                left_out += bad
            packed += sum(counts)
            sizes = [plain_text.row_count(tokens, self._max_length) for tokens in counts]
            reader = functools.partial(self._reader, file, sizes)
            block_files.append(blocks.BlockFile(file.path, sizes, reader))
        field = Field((self._max_length,), np.dtype(np.int32))
        fields = {"inputs": field, "targets": field}
        settings = f"{self._max_length} {self._end_id} {self._tokenizer.to_str()}"
        return blocks.rows(block_files, fields, WINDOW_ROWS, settings), packed, left_out

    def _count(self, file: ParquetDocuments, group: int, is_checked: bool) -> tuple[int, int]:
        """The tokens of a row group with those that end documents, and the documents left out."""
        if self._is_gpt2 and file.counts_tokens and not is_checked:
            return file.token_count(group) + file.size(group), 0
        texts, left_out = _texts_before_the_run(file, group)
        return (len(self._packed(texts)) if texts else 0), left_out

    def _packed(self, texts: Sequence[str]) -> np.ndarray:
        return plain_text.packed(self._tokenizer, texts, self._end_id)

    def _reader(self, file: ParquetDocuments, sizes: Sequence[int]) -> ReadBlock:
        return functools.partial(self._read, file, sizes)

    def _read(
        self, file: ParquetDocuments, sizes: Sequence[int], group: int
    ) -> dict[str, np.ndarray]:
        arrays = plain_text.cut(self._packed(file.texts(group)[0]), self._max_length)
        if len(arrays["inputs"]) != sizes[group]:
            raise UnreadableRowError(
                f"{file.path}, row group {group + 1}: {len(arrays['inputs'])} rows of tokens, but "
                f"{sizes[group]} by its column {documents.TOKENS_FIELD}; --skip-bad-rows counts "
                "anew"
            )
        return arrays


def _hold_out(whole: dict[str, BlockRows]) -> tuple[dict[str, BlockRows], dict[str, int]]:
    """All three splits, and how many rows those that are missing took from the end of the training
    rows.
    """
    train, splits, held_out = whole["train"], dict(whole), {}
    each = min(int(len(train) * HELD_OUT_SHARE), MOST_HELD_OUT_ROWS)
    end = len(train)
    for split in SPLITS[1:]:
        if split not in whole:
            splits[split], held_out[split] = train.between(end - each, end), each
            end -= each
    splits["train"] = train.between(0, end)
    return splits, held_out

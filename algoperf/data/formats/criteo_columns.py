"""The 40 columns of Criteo's click logs, from lines of text or a table of Arrow's.

The columns are the label (1 clicked, 0 not), 13 counts and 26 categories, which are hexadecimal
numbers; a cell may be empty. Text has no header, and tabs between the columns.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNTS, CATEGORIES = 13, 26
COLUMNS = 1 + COUNTS + CATEGORIES
NO_COUNT = -1  # stands for an empty cell
NO_CATEGORY = np.uint64(2**64 - 1)
Parsed = dict[str, np.ndarray]  # 'labels', 'counts' (rows, 13), 'categories' (26, rows) uint64


class DamagedError(ValueError):
    """Lines that cannot be read: (their numbers, counted from 1 in what was read, why)."""

    def __init__(self, lines: Sequence[tuple[int, str]]) -> None:
        super().__init__(f"line {lines[0][0]}: {lines[0][1]}")
        self.lines = list(lines)


def parse(content: bytes) -> Parsed:
    """Return the columns of some lines.

    Raises:
        DamagedError: Some of them are damaged; it names them all.
    """
    import pyarrow
    from pyarrow import csv

    if not content:
        return {
            "labels": np.empty(0, np.int8),
            "counts": np.empty((0, COUNTS), np.int32),
            "categories": np.empty((CATEGORIES, 0), np.uint64),
        }
    names = [str(column) for column in range(COLUMNS)]
    kinds = [pyarrow.int8(), *[pyarrow.int32()] * COUNTS, *[pyarrow.binary()] * CATEGORIES]
    try:
        table = csv.read_csv(
            pyarrow.BufferReader(content),
            csv.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=names),
            csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict(zip(names, kinds, strict=True)),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        return columns_of(table)
    except (pyarrow.ArrowInvalid, ValueError) as error:
        bad = bad_lines(content)
        raise DamagedError(bad or [(1, f"not readable: {error}")]) from error


def columns_of(table: Any) -> Parsed:
    """Return the columns of an Arrow table.

    Raises:
        ValueError: A label is neither 0 nor 1, or a category is no hexadecimal number.
    """
    import pyarrow.compute as pc

    table = table.combine_chunks()
    columns = [_whole(column) for column in table.columns]
    labels, counts, categories = (
        columns[0],
        columns[1 : 1 + COUNTS],
        columns[1 + COUNTS : COLUMNS],
    )
    if labels.null_count:
        raise ValueError("a row without a label")
    labels_N = labels.to_numpy(zero_copy_only=False)
    if not ((labels_N == 0) | (labels_N == 1)).all():
        raise ValueError("a label other than 0 and 1")
    counts_NC = np.empty((len(labels_N), COUNTS), np.int32)
    for column, values in enumerate(counts):
        filled = pc.fill_null(values, NO_COUNT) if values.null_count else values
        counts_NC[:, column] = filled.to_numpy(zero_copy_only=False)
    categories_CN = np.empty((CATEGORIES, len(labels_N)), np.uint64)
    for column, values in enumerate(categories):
        categories_CN[column] = _categories(values)
    return {"labels": labels_N, "counts": counts_NC, "categories": categories_CN}


def _whole(column: Any) -> Any:
    chunks = column.chunks
    return chunks[0] if len(chunks) == 1 else column.combine_chunks()


def _categories(values: Any) -> NDArray[np.uint64]:
    """A column of hexadecimal texts, or of integers, as 64-bit numbers; empty is `NO_CATEGORY`."""
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_integer(values.type):
        wide = values.cast(pyarrow.int64()) if values.type != pyarrow.uint64() else values
        filled = pc.fill_null(wide, -1) if values.type != pyarrow.uint64() else wide
        whole: NDArray[np.uint64] = filled.to_numpy(zero_copy_only=False).astype(np.uint64)
        return whole
    if not pyarrow.types.is_binary(values.type):
        values = values.cast(pyarrow.binary())
    _, offsets, characters = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(ends)
    text = np.frombuffer(characters or b"", np.uint8)[ends[0] : ends[-1]]
    numbers = np.full(len(values), NO_CATEGORY, np.uint64)
    given = lengths > 0
    if not np.array_equal(lengths[given], np.full(int(given.sum()), 8, np.int32)):
        return _of_any_length(text, ends - ends[0])
    if not _is_hexadecimal(text):
        raise ValueError("a category that is no hexadecimal number")
    numbers[given] = eight_digits(np.ascontiguousarray(text).view("<u8"))
    return numbers


def _is_hexadecimal(text: NDArray[np.uint8]) -> bool:
    letters = (text | 32) - np.uint8(ord("a"))
    return bool(((text - np.uint8(ord("0")) < 10) | (letters < 6)).all())


def eight_digits(words_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the numbers of eight hexadecimal digits each.

    All digits of a number at once: a digit's value is its character's last four bits, and nine more
    if it is a letter. Then neighbours are joined, first to bytes, to pairs of bytes, to the number.

    Args:
        words_N: The eight characters, the first in the lowest byte.
    """
    u8 = np.uint64
    values = words_N & u8(0x0F0F0F0F0F0F0F0F)
    values += ((words_N >> u8(6)) & u8(0x0101010101010101)) * u8(9)
    values = ((values << u8(4)) | (values >> u8(8))) & u8(0x00FF00FF00FF00FF)
    values = ((values << u8(8)) | (values >> u8(16))) & u8(0x0000FFFF0000FFFF)
    joined: NDArray[np.uint64] = ((values << u8(16)) | (values >> u8(32))) & u8(0xFFFFFFFF)
    return joined


def _of_any_length(text: NDArray[np.uint8], ends: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Numbers of up to 16 digits, text by text."""
    content = text.tobytes()
    bounds = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    return np.array([_category(content[start:end]) for start, end in bounds], np.uint64)


def _category(text: bytes) -> int:
    if not text:
        return int(NO_CATEGORY)
    if len(text) > 16 or not _is_hexadecimal(np.frombuffer(text, np.uint8)):
        raise ValueError(f"the category {text[:20].decode(errors='replace')!r} is no hexadecimal")
    return int(text, 16)


def bad_lines(content: bytes) -> list[tuple[int, str]]:
    """Return the damaged lines of some: their numbers, counted from 1, and why."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    faults = ((number, _fault(line)) for number, line in enumerate(lines, start=1))
    return [(number, fault) for number, fault in faults if fault is not None]


def _fault(line: bytes) -> str | None:
    cells = line.rstrip(b"\r").split(b"\t")
    if len(cells) != COLUMNS:
        return f"{len(cells)} columns, expected {COLUMNS} (label, 13 counts, 26 categories)"
    if cells[0] not in (b"0", b"1"):
        return f"the label {cells[0][:20].decode(errors='replace')!r}, expected 0 or 1"
    for column, cell in enumerate(cells[1 : 1 + COUNTS], start=1):
        shown = cell[:20].decode(errors="replace")
        if cell and not re.fullmatch(rb"-?\d+", cell):
            return f"column I{column} is {shown!r}, expected a whole number"
        if cell and not -(2**31) <= int(cell) < 2**31:
            return f"column I{column} is {shown}, which has more than 32 bits"
    for column, cell in enumerate(cells[1 + COUNTS :], start=1):
        try:
            _category(cell)
        except ValueError as error:
            return f"column C{column}: {error}"
    return None

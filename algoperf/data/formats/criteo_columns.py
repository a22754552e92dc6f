"""The 40 columns of Criteo's click logs, from lines of text or a table of Arrow's.

The columns are the label (1 clicked, 0 not), 13 counts and 26 categories, which are hexadecimal
numbers; a cell may be empty. Text has no header, and tabs between the columns.
"""

import decimal
import math
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

    try:
        return _parsed(content)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DamagedError(_damaged(content) or [(1, f"not readable: {error}")]) from error


def _parsed(content: bytes) -> Parsed:
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
    if table.num_rows != content.count(b"\n") + (not content.endswith(b"\n")):
        raise ValueError("a carriage return within a line")  # Arrow ends a line there
    return columns_of(table)


def columns_of(table: Any) -> Parsed:
    """Return the columns of an Arrow table.

    Raises:
        ValueError: A label is neither 0 nor 1, a count is no whole number of 32 bits, or a category
            is no hexadecimal number.
        pyarrow.ArrowException: The same.
    """
    columns = _columns(table)
    labels_N = _labels(columns[0])
    counts_NC = np.empty((len(labels_N), COUNTS), np.int32)
    for column, values in enumerate(columns[1 : 1 + COUNTS]):
        counts_NC[:, column] = _counts(values)
    categories_CN = np.empty((CATEGORIES, len(labels_N)), np.uint64)
    for column, values in enumerate(columns[1 + COUNTS :]):
        categories_CN[column] = _categories(values)
    return {"labels": labels_N, "counts": counts_NC, "categories": categories_CN}


def check_types(schema: Any) -> None:
    """Refuse a table whose columns are of types that cannot be read.

    Raises:
        ValueError: It names the first of those columns.
    """
    import pyarrow

    for column in range(COLUMNS):
        field = schema.field(column)
        if column > COUNTS and pyarrow.types.is_integer(field.type):
            continue
        kind = pyarrow.binary() if column > COUNTS else pyarrow.int32()
        try:
            pyarrow.nulls(0, field.type).cast(kind)
        except pyarrow.ArrowException as error:
            allowed = "text or whole numbers" if column > COUNTS else "whole numbers"
            raise ValueError(
                f"{_name(column)} ({field.name!r}) is {field.type}, expected {allowed}"
            ) from error


def bad_rows(table: Any) -> list[tuple[int, str]]:
    """Return the damaged rows of an Arrow table: their numbers, counted from 1, and why."""
    import pyarrow

    faults: dict[int, str] = {}
    for column, values in enumerate(_columns(table)):
        read = _labels if column == 0 else _counts if column <= COUNTS else _categories
        try:
            read(values)
        except (pyarrow.ArrowException, ValueError):
            for number, value in enumerate(values.to_pylist(), start=1):
                fault = _cell_fault(column, _as_text(value))
                if fault is not None:
                    faults.setdefault(number, fault)
    return sorted(faults.items())


def _as_text(value: Any) -> bytes:
    """A cell as a file of text would have it."""
    if value is None or isinstance(value, bytes):
        return value or b""
    if (
        isinstance(value, (bool, int, float, decimal.Decimal))
        and math.isfinite(value)
        and value == int(value)
    ):
        value = int(value)
    return str(value).encode()


def _columns(table: Any) -> list[Any]:
    return [_whole(column) for column in table.combine_chunks().columns]


def _whole(column: Any) -> Any:
    chunks = column.chunks
    return chunks[0] if len(chunks) == 1 else column.combine_chunks()


def _labels(values: Any) -> NDArray[np.int8]:
    import pyarrow

    values = values.cast(pyarrow.int8())
    if values.null_count:
        raise ValueError("a row without a label")
    labels_N: NDArray[np.int8] = values.to_numpy(zero_copy_only=False)
    if not ((labels_N == 0) | (labels_N == 1)).all():
        raise ValueError("a label other than 0 and 1")
    return labels_N


def _counts(values: Any) -> NDArray[np.int32]:
    import pyarrow
    import pyarrow.compute as pc

    values = values.cast(pyarrow.int32())
    filled = pc.fill_null(values, NO_COUNT) if values.null_count else values
    counts_N: NDArray[np.int32] = filled.to_numpy(zero_copy_only=False)
    return counts_N


def _categories(values: Any) -> NDArray[np.uint64]:
    """A column of hexadecimal texts, or of integers, as 64-bit numbers; empty is `NO_CATEGORY`.

    Integers with a sign are the numbers that their bits are: of 32 bits, -2 is fffffffe.
    """
    import pyarrow
    import pyarrow.compute as pc

    if pyarrow.types.is_integer(values.type):
        # A column with empty cells would become floats.
        filled = pc.fill_null(values, 0) if values.null_count else values
        signed = filled.to_numpy(zero_copy_only=False)
        whole: NDArray[np.uint64] = signed.view(f"u{signed.itemsize}").astype(np.uint64)
        if values.null_count:
            whole[values.is_null().to_numpy(zero_copy_only=False)] = NO_CATEGORY
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
    faults = ((number, _fault(line)) for number, line in _numbered(content))
    return [(number, fault) for number, fault in faults if fault is not None]


def _numbered(content: bytes) -> list[tuple[int, bytes]]:
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return list(enumerate(lines, start=1))


def _damaged(content: bytes) -> list[tuple[int, str]]:
    """The bad lines, and those of the others that Arrow does not read either."""
    faults = dict(bad_lines(content))
    others = [(number, line) for number, line in _numbered(content) if number not in faults]
    return sorted({**faults, **_refused(others)}.items())


def _refused(numbered: list[tuple[int, bytes]]) -> dict[int, str]:
    """The lines that Arrow does not read, by halving: of a few, a few steps."""
    import pyarrow

    if not numbered:
        return {}
    try:
        _parsed(b"".join(line + b"\n" for _, line in numbered))
    except (pyarrow.ArrowException, ValueError) as error:
        if len(numbered) == 1:
            return {numbered[0][0]: f"not readable: {error}"}
        half = len(numbered) // 2
        return {**_refused(numbered[:half]), **_refused(numbered[half:])}
    return {}


def _fault(line: bytes) -> str | None:
    cells = line.removesuffix(b"\r").split(b"\t")
    if len(cells) != COLUMNS:
        return f"{len(cells)} columns, expected {COLUMNS} (label, 13 counts, 26 categories)"
    faults = (_cell_fault(column, cell) for column, cell in enumerate(cells))
    return next((fault for fault in faults if fault is not None), None)


def _name(column: int) -> str:
    if column == 0:
        return "the label"
    return f"column I{column}" if column <= COUNTS else f"column C{column - COUNTS}"


def _cell_fault(column: int, cell: bytes) -> str | None:
    if column > COUNTS:
        try:
            _category(cell)
        except ValueError as error:
            return f"{_name(column)}: {error}"
        return None
    shown = cell[:20].decode(errors="replace")
    is_whole = re.fullmatch(rb" *-?\d+ *", cell)  # Arrow takes spaces away
    if column == 0:
        is_label = is_whole and int(cell) in (0, 1)
        return None if is_label else f"{_name(column)} {shown!r}, expected 0 or 1"
    if cell and not is_whole:
        return f"{_name(column)} is {shown!r}, expected a whole number"
    if cell and not -(2**31) <= int(cell) < 2**31:
        return f"{_name(column)} is {shown}, which has more than 32 bits"
    return None

"""Rows that are not in memory: on disk and mapped, or computed for each batch; and some of the rows
of others.
"""

import collections
import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.order import Blocks
from algoperf.errors import UnreadableRowError, UserError
from algoperf.workload import ArrayRows, Arrays, Field, Rows
from algoperf.workload.rows import (
    FINGERPRINT_DIGITS,
    IS_ROW,
    Packing,
    lengths_of,
    packing_of,
    source_row,
)

SAMPLES = 64  # places of a file that its fingerprint is of, the first and the last bytes included
SAMPLE_BYTES = 4096

Row = Mapping[str, Any]
ReadBlock = Callable[[int], dict[str, np.ndarray]]  # from a block's number to its rows by name


class MemmapRows:
    """Rows in NumPy's own files (.npy), one for each name, of which only what is taken is read.

    The fingerprint is of names, types, shapes, the files' sizes and `SAMPLES` evenly spread pieces
    of each. So files may be moved, and a change that misses every piece is not seen.

    Args:
        paths: The file of each name; rows lie along the first axis of its array.
        is_slow: Whether threads are to read ahead: for files that the memory does not hold.

    Raises:
        UserError: A file cannot be mapped, or numbers of rows differ; the message names it.
    """

    def __init__(self, paths: Mapping[str, Path], *, is_slow: bool = False) -> None:
        self._paths = {name: Path(path) for name, path in paths.items()}
        self._mapped = ArrayRows({name: _mapped(path) for name, path in self._paths.items()})
        self.is_slow = is_slow

    def __len__(self) -> int:
        return len(self._mapped)

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row, by name."""
        return self._mapped.fields

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return copies of these rows, in memory."""
        return self._mapped.take(indices)

    @property
    def fingerprint(self) -> str:
        """Of the files' sizes and pieces of them; a file of any size takes as long."""
        digest = hashlib.sha256()
        for name, path in sorted(self._paths.items()):
            array = self._mapped[name]
            size_bytes = path.stat().st_size
            digest.update(f"{name}:{array.dtype.str}:{array.shape}:{size_bytes}".encode())
            last = max(size_bytes - SAMPLE_BYTES, 0)
            with path.open("rb") as file:
                for sample in range(SAMPLES):
                    file.seek(last * sample // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
        return digest.hexdigest()[:FINGERPRINT_DIGITS]


def _mapped(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be mapped as an array of NumPy's: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise UserError(f"{path} holds no array of rows")
    return array


class DecodedRows:
    """Rows that a function makes when they are asked for, such as images from their files.

    Args:
        count: The number of rows.
        fields: The shape and type of everything in a row, by name.
        decode: From a row's index to its values by name, of those shapes. Several threads call it
            at a time, so it must not depend on what it was called with before.
        source: What tells this source of rows from others in fingerprints, such as the digest of a
            list of its files with their sizes, and the settings of the decoding.
        is_slow: Whether threads are to decode ahead.
        open_row: From a row's index to the row in its source's own form, for
            `algoperf.workload.rows.source_row`; by default that is the decoded row.
        lengths: What `algoperf.workload.rows.lengths_of` returns, for batches that are cut to it.

    Raises:
        UserError: The first row cannot be decoded, or is not as `fields` say.
        UnreadableRowError: From `take`: the same of any row.
    """

    def __init__(
        self,
        count: int,
        fields: Mapping[str, Field | tuple[tuple[int, ...], Any]],
        decode: Callable[[int], Row],
        source: str,
        *,
        is_slow: bool = True,
        open_row: Callable[[int], Row] | None = None,
        lengths: Arrays | None = None,
    ) -> None:
        self._count = count
        self.lengths = lengths
        self._open_row = open_row or decode
        self.fields: Mapping[str, Field] = {
            name: Field(tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in fields.items()
        }
        self._decode = decode
        self._source = source
        self.is_slow = is_slow
        try:
            self.take(np.arange(min(count, 1)))
        except UnreadableRowError as error:
            raise UserError(str(error)) from error

    def __len__(self) -> int:
        return self._count

    @property
    def fingerprint(self) -> str:
        """Of the source's words, the number of rows, and what is in a row."""
        described = [f"{name}:{dtype.str}:{shape}" for name, (shape, dtype) in self.fields.items()]
        text = "\n".join([self._source, str(self._count), *sorted(described)])
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return these rows, each decoded anew."""
        batch = {
            name: np.empty((len(indices), *field.shape), field.dtype)
            for name, field in self.fields.items()
        }
        for position, index in enumerate(indices.tolist()):
            row = self._read(index, self._decode)
            self._check(index, row)
            for name, array in batch.items():
                array[position] = row[name]
        return batch

    def source_row(self, index: int) -> Row:
        """Return the row in its source's own form."""
        return self._read(index, self._open_row)

    def _read(self, index: int, read: Callable[[int], Row]) -> Row:
        try:
            return read(index)
        except Exception as error:
            cause = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            raise UnreadableRowError(f"row {index} cannot be decoded: {cause}") from error

    def _check(self, index: int, row: Row) -> None:
        """NumPy would repeat a value of too few axes, and round one of another type."""
        if row.keys() != self.fields.keys():
            expected, got = (", ".join(sorted(each)) for each in (self.fields, row))
            raise UnreadableRowError(f"row {index} was decoded to {got}; expected {expected}")
        for name, (shape, dtype) in self.fields.items():
            value = np.asarray(row[name])
            if value.shape != shape or not np.can_cast(value.dtype, dtype, "same_kind"):
                raise UnreadableRowError(
                    f"{name} of row {index} was decoded to {value.dtype}{list(value.shape)}; "
                    f"expected {dtype}{list(shape)}"
                )


class BlockRows:
    """Rows that are read in blocks, such as pieces of large files: a few blocks are held at a time.

    Args:
        blocks: The blocks; `blocks.window_rows` says how many rows are held, next to those of the
            blocks that are being taken from.
        fields: The shape and type of everything in a row, by name.
        reader: Returns what reads a block. These rows have one of their own, and so has each part
            of them (`between`), since it may read some of a file on from where it is. Several
            threads call it at a time.
        source: What tells this source of rows from others in fingerprints.
        first_row: The first row of these, among those of the blocks.
        count: How many they are; None: all that follow.
    """

    is_slow = True

    def __init__(
        self,
        blocks: Blocks,
        fields: Mapping[str, Field],
        reader: Callable[[], ReadBlock],
        source: str,
        first_row: int = 0,
        count: int | None = None,
    ) -> None:
        self.fields = fields
        self._all, self._reader, self._source = blocks, reader, source
        self._first_row = first_row
        rows = int(blocks.sizes.sum())
        self._count = rows - first_row if count is None else count
        most_rows = blocks.window_rows + int(blocks.sizes.max(initial=0))
        self._held = _HeldBlocks(reader(), most_rows)

    def __len__(self) -> int:
        return self._count

    @property
    def blocks(self) -> Blocks:
        """The blocks that these rows lie in, or parts of blocks, for `algoperf.data.order`."""
        first, last = self._all.block_of(self._first_row + np.array([0, self._count - 1]))
        sizes = self._all.sizes[first : last + 1].copy()
        sizes[0] -= self._first_row - self._all.starts[first]
        sizes[-1] -= sizes.sum() - self._count
        runs = np.unique(np.clip(self._all.runs, first, None)) - first
        return Blocks(sizes, runs[runs < len(sizes)], self._all.window_rows)

    @property
    def fingerprint(self) -> str:
        """Of the source's words, and which of its rows these are."""
        text = f"{self._source}\n{self._first_row} {self._count}"
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]

    def between(self, start: int, stop: int) -> "BlockRows":
        """Return the rows from `start` to before `stop`."""
        first_row = self._first_row + start
        count = stop - start
        return BlockRows(self._all, self.fields, self._reader, self._source, first_row, count)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return these rows; the blocks that they lie in are read unless they are held."""
        rows = indices + self._first_row
        block_of_row = self._all.block_of(rows)
        batch = {
            name: np.empty((len(indices), *field.shape), field.dtype)
            for name, field in self.fields.items()
        }
        needed = np.unique(block_of_row)
        with self._held.needed(needed, int(self._all.sizes[needed].sum())):
            for block in needed.tolist():
                arrays = self._held.get(block)
                here = np.flatnonzero(block_of_row == block)
                own = rows[here] - self._all.starts[block]
                for name, array in batch.items():
                    array[here] = arrays[name][own]
        return batch


class _HeldBlocks:
    """The blocks that are needed, and up to so many rows of others, those that were asked for
    last; threads wait for one another's.
    """

    def __init__(self, read: ReadBlock, most_rows: int) -> None:
        self._read, self._most_rows = read, most_rows
        self._lock = threading.Lock()
        self._blocks: dict[int, _HeldBlock] = {}
        self._needed: collections.Counter[int] = collections.Counter()

    @contextlib.contextmanager
    def needed(self, numbers: np.ndarray, rows: int) -> Iterator[None]:
        """Hold these blocks, once they are read, whatever others are; unless they are too many.

        Threads take batches of several windows at a time, and one may be left behind.
        """
        held = numbers.tolist() if rows <= 2 * self._most_rows else []
        with self._lock:
            self._needed.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._needed.subtract(held)
                self._needed += collections.Counter()  # without those that nobody needs
            self._let_go()

    def get(self, number: int) -> dict[str, np.ndarray]:
        with self._lock:
            block = self._blocks.setdefault(number, _HeldBlock())
        with block.lock:
            if block.arrays is None:
                try:
                    block.arrays = self._read(number)
                except BaseException:
                    with self._lock:
                        self._blocks.pop(number, None)
                    raise
                self._let_go()
            return block.arrays

    def _let_go(self) -> None:
        with self._lock:
            others = [
                number
                for number, block in self._blocks.items()
                if block.rows and number not in self._needed
            ]
            rows = sum(self._blocks[number].rows for number in others)
            for number in others:
                if rows <= self._most_rows:
                    break
                rows -= self._blocks.pop(number).rows


class _HeldBlock:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.arrays: dict[str, np.ndarray] | None = None

    @property
    def rows(self) -> int:
        arrays = self.arrays
        return 0 if arrays is None else len(next(iter(arrays.values())))


class _PackedAs:
    """The packing of other rows, given these rows' indices and changing what it returns."""

    def __init__(
        self,
        packing: Packing,
        index: Callable[[np.ndarray], np.ndarray],
        change: Callable[[dict[str, np.ndarray], np.ndarray], None] = lambda batch, indices: None,
    ) -> None:
        self._packing, self._index, self._change = packing, index, change

    @property
    def fields(self) -> Mapping[str, Field]:
        return self._packing.fields

    def __call__(self, indices: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        batch = self._packing(self._index(indices), batch_size)
        self._change(batch, indices[: int(batch[IS_ROW].sum())])
        return batch


class _RowsOver:
    """Rows that are made of others, and have what those have.

    Args:
        rows: The rows beneath, of any kind.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @property
    def is_slow(self) -> bool:
        """As the rows beneath."""
        return self._rows.is_slow

    @property
    def fields(self) -> Mapping[str, Field]:
        """As the rows beneath."""
        return self._rows.fields


class RowsView(_RowsOver):
    """Some rows of others, in an order of their own; nothing is copied or read.

    Args:
        rows: The rows of any kind.
        indices: Which of them, one index for each row of the view.
    """

    def __init__(self, rows: Rows, indices: np.ndarray) -> None:
        super().__init__(rows)
        self._indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def blocks(self) -> Blocks | None:
        """Those of the rows beneath, if they have any and these are in their order."""
        blocks: Blocks | None = getattr(self._rows, "blocks", None)
        if blocks is None or not len(self) or (np.diff(self._indices) < 0).any():
            return None
        return blocks.with_rows(self._indices)

    @property
    def fingerprint(self) -> str:
        """Of the rows beneath and the indices."""
        digest = hashlib.sha256(self._rows.fingerprint.encode())
        digest.update(self._indices.tobytes())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    @property
    def lengths(self) -> Arrays | None:
        """Those of the rows beneath."""
        lengths = lengths_of(self._rows)
        return lengths and {key: array[self._indices] for key, array in lengths.items()}

    @property
    def packing(self) -> Packing | None:
        """As the rows beneath."""
        packing = packing_of(self._rows)
        return packing and _PackedAs(packing, lambda indices: self._indices[indices])

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return these rows of the view."""
        return self._rows.take(self._indices[indices])

    def source_row(self, index: int) -> Row:
        """Return a row of the view as its source has it."""
        return source_row(self._rows, int(self._indices[index]))


class OtherTargets(_RowsOver):
    """Rows that have the targets, and their weights, of other rows of the same split.

    Args:
        rows: The rows of any kind.
        givers: For each row, the one whose targets it has.
    """

    KEYS = ("targets", "weights")

    def __init__(self, rows: Rows, givers: np.ndarray) -> None:
        super().__init__(rows)
        self._givers = np.asarray(givers, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def blocks(self) -> Blocks | None:
        """Those of the rows beneath, if they have any."""
        blocks: Blocks | None = getattr(self._rows, "blocks", None)
        return blocks

    @property
    def fingerprint(self) -> str:
        """Of the rows beneath and the givers."""
        digest = hashlib.sha256(self._rows.fingerprint.encode())
        digest.update(b"givers" + self._givers.tobytes())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return these rows, with the others' targets."""
        changed = np.flatnonzero(self._givers[indices] != indices)
        # At once, since rows and givers may lie in the same blocks.
        both = self._rows.take(np.concatenate([indices, self._givers[indices[changed]]]))
        batch = {key: array[: len(indices)] for key, array in both.items()}
        for key in batch.keys() & {*self.KEYS}:
            batch[key][changed] = both[key][len(indices) :]
        return batch

    @property
    def lengths(self) -> Arrays | None:
        """Those of the rows beneath, and of the others' targets."""
        lengths = lengths_of(self._rows)
        return lengths and {**lengths, "targets": lengths["targets"][self._givers]}

    @property
    def packing(self) -> Packing | None:
        """As the rows beneath."""
        packing = packing_of(self._rows)
        return packing and _PackedAs(packing, lambda indices: indices, self._give)

    def _give(self, batch: dict[str, np.ndarray], indices: np.ndarray) -> None:
        """Give the first rows of a batch, which are these, the others' targets."""
        changed = np.flatnonzero(self._givers[indices] != indices)
        if len(changed):
            given = self._rows.take(self._givers[indices[changed]])
            for key in given.keys() & {*self.KEYS}:
                batch[key][changed] = given[key]

    def source_row(self, index: int) -> Row:
        """Return a row as its source has it, with the other's targets."""
        row, giver = source_row(self._rows, index), int(self._givers[index])
        if giver == index:
            return row
        given = source_row(self._rows, giver)
        return {**row, **{key: given[key] for key in given.keys() & {*self.KEYS}}}


def chosen(rows: Rows, indices: np.ndarray) -> Rows:
    """Return these rows alone: arrays copied where they are in memory, else a view."""
    if isinstance(rows, ArrayRows):
        return ArrayRows(rows.take(indices))
    return RowsView(rows, indices)


def some(rows: Rows, indices: np.ndarray) -> Rows:
    """Return these rows; of rows in memory a copy, so that they are read as fast as others."""
    return ArrayRows(rows.take(indices)) if isinstance(rows, ArrayRows) else RowsView(rows, indices)


def first(rows: Rows, count: int) -> Rows:
    """Return the first rows, at most so many; nothing is copied."""
    if isinstance(rows, ArrayRows):
        return ArrayRows({name: array[:count] for name, array in rows.items()})
    if isinstance(rows, BlockRows):
        return rows.between(0, min(count, len(rows)))
    return RowsView(rows, np.arange(min(count, len(rows))))

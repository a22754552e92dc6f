"""The files of Criteo's click logs: a row of 40 columns for each advertisement that was shown.

Files are text, plain or compressed (.gz, .zst), or parquet with the columns in their order
(`criteo_columns`). They are read in blocks, so that no file is ever held whole.
"""

import dataclasses
import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.formats import blocks
from algoperf.data.formats.criteo_columns import (
    COLUMNS,
    DamagedError,
    Parsed,
    bad_rows,
    check_types,
    columns_of,
    parse,
)
from algoperf.data.rows import BlockRows, ReadBlock
from algoperf.errors import UnreadableRowError, UserError
from algoperf.workload import Field

BLOCK_ROWS = 2**16
WINDOW_ROWS = 2**19  # of which the numbers of all columns take 80 MB
PIECE_BYTES = 2**20
MOST_UNPACKINGS = 2  # of a file at a time
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
# As AlgoPerf: of the last day the first 95 million rows are the test split, of its 178 million.
TEST_ROWS = 95_000_000
DAY = re.compile(r"day_(\d+)(?![\d])")
ENDING = re.compile(r"(\.(txt|csv|tsv))?(\.(gz|zst))?$|\.parquet$")
Convert = Callable[[Parsed], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, and what is known of its blocks.

    Attributes:
        path: The file.
        sizes: The rows of each block, without those that are left out.
        offsets: Where the blocks begin, in bytes; of a compressed file, in what it unpacks to.
        bad: The rows of a block that are left out, counted from 1, by block.
    """

    path: Path
    sizes: tuple[int, ...]
    offsets: tuple[int, ...] = ()
    bad: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def is_parquet(self) -> bool:
        """Whether the blocks are row groups of parquet."""
        return self.path.suffix == ".parquet"

    @property
    def is_compressed(self) -> bool:
        """Whether the file has to be read from its beginning."""
        return self.path.suffix in COMPRESSED


def index(path: Path, skip_bad_rows: bool = False) -> Source:
    """Find the blocks of a file; text is read once, and parquet if damaged rows are looked for.

    Args:
        path: The file.
        skip_bad_rows: Whether damaged rows are looked for and left out.

    Raises:
        UserError: It cannot be read.
    """
    import pyarrow

    try:
        if path.suffix == ".parquet":
            source = Source(path, _row_groups(path))
        else:
            offsets, lines = _line_blocks(path)
            source = Source(path, tuple(lines), tuple(offsets))
        return _without_bad_rows(source) if skip_bad_rows else source
    except UserError:
        raise
    except UnreadableRowError as error:
        raise UserError(str(error)) from error
    except (OSError, EOFError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({error}); download it again") from error


def _row_groups(path: Path) -> tuple[int, ...]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    metadata, schema = file.metadata, file.schema_arrow
    if len(schema) < COLUMNS:
        raise UserError(
            f"{path}: {len(schema)} columns, expected {COLUMNS} (label, 13 counts, 26 categories)"
        )
    try:
        check_types(schema)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return tuple(metadata.row_group(each).num_rows for each in range(metadata.num_row_groups))


def _line_blocks(path: Path) -> tuple[list[int], list[int]]:
    """Where blocks of `BLOCK_ROWS` lines begin, and how many lines each has."""
    offsets, lines, at, last = [0], 0, 0, b"\n"
    for piece in _pieces(path):
        count = piece.count(b"\n")
        if lines // BLOCK_ROWS != (lines + count) // BLOCK_ROWS:
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))
            wanted = np.arange(BLOCK_ROWS - lines % BLOCK_ROWS - 1, count, BLOCK_ROWS)
            offsets += (at + ends[wanted] + 1).tolist()
        lines, at, last = lines + count, at + len(piece), piece[-1:]
    lines += last != b"\n"  # the last line has no end
    if offsets[-1] == at:
        offsets.pop()  # nothing follows
    sizes = [BLOCK_ROWS] * (lines // BLOCK_ROWS)
    return [*offsets, at], sizes + ([lines % BLOCK_ROWS] if lines % BLOCK_ROWS else [])


def _open(path: Path) -> Any:
    import pyarrow

    return pyarrow.input_stream(str(path), compression=COMPRESSED.get(path.suffix))


def _whole(stream: Any, size: int) -> bytes:
    """So many bytes of a stream; EOFError where it has fewer."""
    content: bytes = stream.read(size)
    while len(content) < size:
        more = stream.read(size - len(content))
        if not more:
            raise EOFError("it is shorter than when its blocks were looked for")
        content += more
    return content


def _pieces(path: Path) -> Iterator[bytes]:
    with _open(path) as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _without_bad_rows(source: Source) -> Source:
    sizes, bad = list(source.sizes), {}
    reader = Reader(source)
    for block, size in enumerate(source.sizes):
        numbers = reader.bad(block)
        if numbers:
            bad[block] = numbers
            sizes[block] = size - len(numbers)
    return dataclasses.replace(source, sizes=tuple(sizes), bad=bad)


class _Unpacking:
    """A compressed file that is unpacked from its beginning on.

    Attributes:
        next: The block that comes next.
        passed: The texts of blocks that were passed over, as where one thread is ahead of another.
            They are kept until the file is unpacked for two windows more.
    """

    def __init__(self, source: Source) -> None:
        self.next = 0
        self.passed: dict[int, bytes] = {}
        self._offsets = source.offsets
        self._stream = _open(source.path)
        self._most_passed = 2 * -(-WINDOW_ROWS // BLOCK_ROWS)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return not self.passed and self.next + 1 >= len(self._offsets)

    def block(self, number: int) -> bytes:
        """Return the text of a block that was passed over or not reached yet."""
        if number in self.passed:
            return self.passed.pop(number)
        while self.next < number:
            self.passed[self.next] = self._unpack()
            self._advance()
        content = self._unpack()
        self._advance()
        return content

    def _unpack(self) -> bytes:
        start, end = self._offsets[self.next : self.next + 2]
        return _whole(self._stream, end - start)

    def _advance(self) -> None:
        self.passed.pop(self.next - self._most_passed, None)
        self.next += 1


class Reader:
    """Reads the blocks of a file.

    Several threads may call it. A compressed file is unpacked from its beginning on, so blocks are
    best asked for about in their order, at two places at a time: the end of an epoch, and the
    beginning of the next.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._unpackings: list[_Unpacking] = []  # the one that was used last is the last

    def __call__(self, block: int) -> Parsed:
        """Return the columns of a block.

        Raises:
            UnreadableRowError: A row is damaged; the message names file and line.
        """
        source = self._source
        parsed = self._row_group(block) if source.is_parquet else self._parsed(block)
        if len(parsed["labels"]) != source.sizes[block]:
            raise UnreadableRowError(
                f"{source.path}: other rows than when its blocks were looked for; start again"
            )
        return parsed

    def bad(self, block: int) -> tuple[int, ...]:
        """Return the damaged rows of a block, counted from 1 in it."""
        if self._source.is_parquet:
            return tuple(number for number, _ in bad_rows(self._table(block)))
        try:
            parse(self.lines(block))
        except DamagedError as error:
            return tuple(number for number, _ in error.lines)
        return ()

    def _parsed(self, block: int) -> Parsed:
        content = self.lines(block)
        bad = set(self._source.bad.get(block, ()))
        if bad:
            lines = content.split(b"\n")
            kept = [line for number, line in enumerate(lines, start=1) if number not in bad]
            content = b"\n".join(kept)
        try:
            return parse(content)
        except DamagedError as error:
            number, fault = error.lines[0]
            raise UnreadableRowError(
                f"{self._source.path}, line {block * BLOCK_ROWS + number}: {fault}"
            ) from error

    def lines(self, block: int) -> bytes:
        """Return the text of a block.

        Raises:
            UnreadableRowError: The file is damaged, or no longer has the block.
        """
        start, end = self._source.offsets[block : block + 2]
        try:
            if not self._source.is_compressed:
                with self._source.path.open("rb") as file:
                    file.seek(start)
                    return _whole(file, end - start)
            with self._lock:
                return self._unpacked(block)
        except (OSError, EOFError, ValueError) as error:
            raise UnreadableRowError(
                f"{self._source.path}: damaged after {start} bytes ({error}); download it again"
            ) from error

    def _unpacked(self, block: int) -> bytes:
        usable = [each for each in self._unpackings if block in each.passed or each.next <= block]
        if usable:
            unpacking = max(usable, key=lambda each: (block in each.passed, each.next))
            self._unpackings.remove(unpacking)
        else:
            unpacking = _Unpacking(self._source)
            if len(self._unpackings) == MOST_UNPACKINGS:
                del self._unpackings[0]
        content = unpacking.block(block)  # after an error it is at no block's beginning
        if not unpacking.is_done:
            self._unpackings.append(unpacking)
        return content

    def _row_group(self, block: int) -> Parsed:
        import pyarrow

        table = self._table(block)
        bad = self._source.bad.get(block, ())
        if bad:
            kept = np.ones(len(table), bool)
            kept[np.array(bad) - 1] = False
            table = table.filter(pyarrow.array(kept))
        try:
            return columns_of(table)
        except (pyarrow.ArrowException, ValueError) as error:
            where, fault = f"row group {block + 1}", str(error)
            faults = bad_rows(table)
            if faults:
                number, fault = faults[0]
                where = f"row {_rows_before(self._source.path, block) + number}"
            raise UnreadableRowError(f"{self._source.path}, {where}: {fault}") from error

    def _table(self, block: int) -> Any:
        import pyarrow
        from pyarrow import parquet

        path = self._source.path
        try:
            file = parquet.ParquetFile(path)
            names = file.schema_arrow.names[:COLUMNS]
            return file.read_row_group(block, columns=names, use_threads=False)
        except (OSError, ValueError, IndexError, pyarrow.ArrowException) as error:
            raise UnreadableRowError(f"{path}, row group {block + 1}: {error}") from error


def _rows_before(path: Path, block: int) -> int:
    from pyarrow import parquet

    metadata = parquet.ParquetFile(path).metadata
    return sum(metadata.row_group(each).num_rows for each in range(block))


def rows(sources: Sequence[Source], fields: Mapping[str, Field], convert: Convert) -> BlockRows:
    """Return the rows of some files, one after another.

    Args:
        sources: The files.
        fields: What is in a row, by name.
        convert: From the columns of a block to its rows.
    """
    files = [
        blocks.BlockFile(
            source.path,
            source.sizes,
            functools.partial(_reader, source, convert),
            source.is_compressed,
        )
        for source in sources
    ]
    return blocks.rows(files, fields, WINDOW_ROWS)


def _reader(source: Source, convert: Convert) -> ReadBlock:
    reader = Reader(source)
    return lambda block: convert(reader(block))


# Folders


def find(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder: 'train' and 'held out', of which a half each is for validation
    and test.

    Either days (`day_0` to `day_23`, or some of them; a day may be in several files, as
    `day_23_04`), of which the last is held out; or `train` and `valid`, or `train` alone, of which
    the last seventh is held out, a day. Files end in nothing, .txt, .csv or .tsv, perhaps with .gz
    or .zst, or in .parquet.

    Raises:
        UserError: There are none, or two that differ only in their ending, as `gunzip -k` leaves
            them: their rows would be there twice.
    """
    days: dict[int, list[Path]] = {}
    names: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if not path.is_file():
            continue
        day = DAY.match(path.name)
        if day:
            days.setdefault(int(day[1]), []).append(path)
        else:
            names.setdefault(path.name.partition(".")[0], []).append(path)
    if len(days) > 1:
        _check_endings([path for paths in days.values() for path in paths])
        last = max(days)
        train = [path for day in sorted(days) if day != last for path in days[day]]
        return {"train": train, "held out": days[last]}
    if "train" in names:
        _check_endings([*names["train"], *names.get("valid", [])])
        return {"train": names["train"][:1], "held out": names.get("valid", [])[:1]}
    raise UserError(
        f"{folder}: no click logs; expected day_0 to day_23 (or at least two of them), or "
        "train.txt and perhaps valid.txt, as text (also .gz or .zst) or parquet"
    )


def _check_endings(paths: Sequence[Path]) -> None:
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(ENDING.sub("", path.name), path)
        if other is not path:
            raise UserError(
                f"{path.parent}: {other.name} and {path.name} differ only in their ending, so "
                "the same rows may be there twice; keep one"
            )


def splits(
    folder: Path, fields: Mapping[str, Field], convert: Convert, skip_bad_rows: bool = False
) -> tuple[dict[str, BlockRows], dict[str, Any]]:
    """Return the rows of every split of a folder, and notes.

    Args:
        folder: See `find`.
        fields: What is in a row, by name.
        convert: From the columns of a block to its rows.
        skip_bad_rows: Whether damaged rows are left out; the notes count them, as 'bad_rows'.

    Raises:
        UserError: There are no files, too few rows, or a file cannot be read.
    """
    paths = find(folder)
    sources = {part: [index(path, skip_bad_rows) for path in each] for part, each in paths.items()}
    train = rows(sources["train"], fields, convert)
    if sources["held out"]:
        held_out = rows(sources["held out"], fields, convert)
    else:
        count = len(train) * 6 // 7
        train, held_out = train.between(0, count), train.between(count, len(train))
    test = TEST_ROWS if len(held_out) > TEST_ROWS else len(held_out) // 2
    if test == 0:
        raise UserError(f"{folder}: {len(held_out)} rows to hold out, expected at least 2")
    by_split = {
        "train": train,
        "validation": held_out.between(test, len(held_out)),
        "test": held_out.between(0, test),
    }
    bad = {
        part: sum(len(lines) for source in each for lines in source.bad.values())
        for part, each in sources.items()
    }
    return by_split, {"bad_rows": {part: {"damaged": n} for part, n in bad.items() if n}}

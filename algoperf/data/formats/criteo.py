"""The files of Criteo's click logs: a row of 40 columns for each advertisement that was shown.

Files are text, plain or compressed (.gz, .zst), or parquet with the columns in their order
(`criteo_columns`). They are read in blocks, so that no file is ever held whole.
"""

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.formats import blocks
from algoperf.data.formats.criteo_columns import (
    COLUMNS,
    COUNTS,
    DamagedError,
    Parsed,
    columns_of,
    parse,
)
from algoperf.data.rows import BlockRows, UnreadableRowError
from algoperf.errors import UserError
from algoperf.workload import Field

BLOCK_ROWS = 2**16
WINDOW_ROWS = 2**19  # of which the numbers of all columns take 80 MB
PIECE_BYTES = 2**20
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
# As AlgoPerf: of the last day the first 95 million rows are the test split, of its 178 million.
TEST_ROWS = 95_000_000
DAY = re.compile(r"day_(\d+)(?![\d])")
Convert = Callable[[Parsed], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, and what is known of its blocks.

    Attributes:
        path: The file.
        sizes: The rows of each block, without those that are left out.
        offsets: Where the blocks begin, in bytes; of a compressed file, in what it unpacks to.
        bad: The lines of a block that are left out, counted from 1, by block.
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
    """Find the blocks of a file; it is read once, but for parquet.

    Args:
        path: The file.
        skip_bad_rows: Whether damaged rows are looked for and left out.

    Raises:
        UserError: It cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return Source(path, _row_groups(path))
        offsets, lines = _line_blocks(path)
        source = Source(path, tuple(lines), tuple(offsets))
        return _without_bad_rows(source) if skip_bad_rows else source
    except UserError:
        raise
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); download it again") from error


def _row_groups(path: Path) -> tuple[int, ...]:
    from pyarrow import parquet

    metadata = parquet.ParquetFile(path).metadata
    if metadata.num_columns < COLUMNS:
        raise UserError(
            f"{path}: {metadata.num_columns} columns, expected {COLUMNS} (label, 13 counts, "
            "26 categories)"
        )
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


def _pieces(path: Path) -> Iterator[bytes]:
    with _open(path) as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _without_bad_rows(source: Source) -> Source:
    sizes, bad = list(source.sizes), {}
    read = Reader(source).lines
    for block, size in enumerate(source.sizes):
        try:
            parse(read(block))
        except DamagedError as error:
            bad[block] = tuple(number for number, _ in error.lines)
            sizes[block] = size - len(bad[block])
    return dataclasses.replace(source, sizes=tuple(sizes), bad=bad)


class Reader:
    """Reads the blocks of a file; of a compressed one best in their order.

    Several threads may call it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._stream: Any = None
        self._at = 0

    def __call__(self, block: int) -> Parsed:
        """Return the columns of a block.

        Raises:
            UnreadableRowError: A row is damaged; the message names file and line.
        """
        source = self._source
        if source.is_parquet:
            return self._row_group(block)
        content = self.lines(block)
        bad = source.bad.get(block, ())
        if bad:
            lines = content.split(b"\n")
            kept = [line for number, line in enumerate(lines, start=1) if number not in bad]
            content = b"\n".join(kept)
        try:
            return parse(content)
        except DamagedError as error:
            number, fault = error.lines[0]
            raise UnreadableRowError(
                f"{source.path}, line {block * BLOCK_ROWS + number}: {fault}"
            ) from error

    def lines(self, block: int) -> bytes:
        """Return the text of a block."""
        start, end = self._source.offsets[block : block + 2]
        try:
            if not self._source.is_compressed:
                with self._source.path.open("rb") as file:
                    file.seek(start)
                    return file.read(end - start)
            with self._lock:
                return self._unpacked(start, end)
        except (OSError, EOFError) as error:
            raise UnreadableRowError(
                f"{self._source.path}: damaged after {start} bytes ({error}); download it again"
            ) from error

    def _unpacked(self, start: int, end: int) -> bytes:
        if self._stream is None or start < self._at:
            self._stream, self._at = _open(self._source.path), 0
        while self._at < start:
            self._at += len(self._stream.read(min(PIECE_BYTES, start - self._at)))
        content: bytes = self._stream.read(end - start)
        self._at = end
        return content

    def _row_group(self, block: int) -> Parsed:
        import pyarrow
        from pyarrow import parquet

        path = self._source.path
        try:
            file = parquet.ParquetFile(path)
            names = file.schema_arrow.names[:COLUMNS]
            table = file.read_row_group(block, columns=names, use_threads=False)
            kinds = [pyarrow.int8(), *[pyarrow.int32()] * COUNTS]
            for column, kind in enumerate(kinds):
                cast = table.column(column).cast(kind)
                table = table.set_column(column, names[column], cast)
            return columns_of(table)
        except (OSError, ValueError) as error:
            raise UnreadableRowError(f"{path}, row group {block + 1}: {error}") from error


def rows(sources: Sequence[Source], fields: Mapping[str, Field], convert: Convert) -> BlockRows:
    """Return the rows of some files, one after another.

    Args:
        sources: The files.
        fields: What is in a row, by name.
        convert: From the columns of a block to its rows.
    """
    files = [_file(source, convert) for source in sources]
    return blocks.rows(files, fields, WINDOW_ROWS)


def _file(source: Source, convert: Convert) -> blocks.BlockFile:
    reader = Reader(source)
    return blocks.BlockFile(
        source.path, source.sizes, lambda block: convert(reader(block)), source.is_compressed
    )


# Folders


def find(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder: 'train' and 'held out', of which a half each is for validation
    and test.

    Either days (`day_0` to `day_23`, or some of them; a day may be in several files, as
    `day_23_04`), of which the last is held out; or `train` and `valid`, or `train` alone, of which
    the last seventh is held out, a day. Files end in nothing, .txt, .csv or .tsv, perhaps with .gz
    or .zst, or in .parquet.

    Raises:
        UserError: There are none.
    """
    days: dict[int, list[Path]] = {}
    names: dict[str, Path] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if not path.is_file():
            continue
        day = DAY.match(path.name)
        if day:
            days.setdefault(int(day[1]), []).append(path)
        else:
            names.setdefault(path.name.partition(".")[0], path)
    if len(days) > 1:
        last = max(days)
        train = [path for day in sorted(days) if day != last for path in days[day]]
        return {"train": train, "held out": days[last]}
    if "train" in names:
        held_out = [names["valid"]] if "valid" in names else []
        return {"train": [names["train"]], "held out": held_out}
    raise UserError(
        f"{folder}: no click logs; expected day_0 to day_23 (or at least two of them), or "
        "train.txt and perhaps valid.txt, as text (also .gz or .zst) or parquet"
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

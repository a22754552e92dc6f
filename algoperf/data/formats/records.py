"""Rows of named text fields, from a folder or from the hub; a bad row is an error or counted.

A folder has a file for each split, named train, validation (or val, dev) and test, with one of the
endings in `READERS`, also gzipped (`val.json.gz`), or the hub's parquet shards
(`data/train-00000-of-00002.parquet`).
"""

import csv
import dataclasses
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats import sources
from algoperf.errors import UserError
from algoperf.workload import SPLITS

SPLIT_OF = {name: name for name in SPLITS} | {"val": "validation", "dev": "validation"}
HELD_OUT_SHARE, MOST_HELD_OUT_ROWS = 0.1, 6000
SHARD = re.compile(r"(?P<split>[a-z]+)-(?P<index>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.parquet")
# A tokenizer's and a data card's files, which may lie beside the rows.
NOT_ROWS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"),
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
)
Columns = dict[str, list[Any]]  # values by field, all equally long
Numbered = Iterator[tuple[int, object]]  # (row number from 1, what stands there)
Located = Iterator[tuple[str, Any]]  # (place as an error names it, what stands there)
LINE_END = re.compile("\r\n?")
TWICE = object()  # what a row has in a column that is there twice


@dataclasses.dataclass(frozen=True)
class Hub:
    """A data set of the hub: its name, its commit, and its configuration where it has several."""

    path: str
    revision: str
    config: str | None = None


@dataclasses.dataclass(frozen=True)
class BadRow:
    """Why a row is none: the reason, under which such rows are counted, and this row's detail."""

    reason: str
    detail: str = ""


def read(
    source: str, hub: Hub, fields: tuple[str, ...], seed: int = 0, skip_bad_rows: bool = False
) -> tuple[dict[str, Columns], dict[str, Any]]:
    """Return the texts of every split by field, and notes; `source` is 'hub' or a folder.

    Line ends become '\\n'. A validation or test split that the source does not have is a seeded
    tenth of its training rows, at most 6,000 (noted as 'held_out'). Notes count 'bad_rows' by split
    and reason, and name 'files_ignored'. Raises UserError with file and row for the first bad row
    unless `skip_bad_rows`.
    """
    notes: dict[str, Any] = {}
    if source == "hub":
        raw = _hub_rows(hub)
    else:
        files, ignored = find_splits(Path(source))
        raw = {split: file_rows(paths) for split, paths in files.items()}
        notes["files_ignored"] = ignored
    splits, notes["bad_rows"] = {}, {}
    for split, rows in raw.items():
        splits[split], bad = checked(f"{source}/{split}", rows, fields, skip_bad_rows)
        if bad:
            notes["bad_rows"][split] = bad
    splits, notes["held_out"] = hold_out(splits, seed)
    return splits, notes


def find_splits(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Return each split's files, and the names of other files with rows.

    Such another file is only ignored where all three splits are there: else it may be the missing
    one under a wrong name, and is an error.
    """
    files: dict[str, list[Path]] = {}
    unknown = []
    for path in [*sorted(folder.iterdir()), *sorted(folder.glob("*/*.parquet"))]:
        name, ending = _name_and_ending(path)
        if ending not in READERS or path.name in NOT_ROWS or not path.is_file():
            continue
        shard = SHARD.fullmatch(path.name)
        split = SPLIT_OF.get(shard["split"] if shard else name)
        if split is None:
            unknown.append(str(path.relative_to(folder)))
        elif split in files and not (shard and _siblings(path, files[split][0])):
            raise UserError(f"{path}: a second file of split {split!r}, beside {files[split][0]}")
        else:
            files.setdefault(split, []).append(path)
    if unknown and len(files) < len(SPLITS):
        raise UserError(
            f"{folder / unknown[0]}: unknown split; a file of rows is named train, validation "
            "(val, dev) or test"
        )
    if "train" not in files:
        raise UserError(
            f"{folder}: no train split; expected train, validation (val, dev) and test, each "
            f"with one of: {', '.join(f'.{ending}' for ending in READERS)} (or .gz of it)"
        )
    for split, paths in files.items():
        shard = SHARD.fullmatch(paths[0].name)
        if shard and len(paths) != int(shard["count"]):
            raise UserError(
                f"{paths[0].parent}: {len(paths)} of the {int(shard['count'])} files of {split!r}"
            )
    return files, unknown


def _name_and_ending(path: Path) -> tuple[str, str]:
    """'val' and 'json' of 'val.json.gz'."""
    name, _, ending = path.name.removesuffix(".gz").rpartition(".")
    return name, ending


def _siblings(path: Path, other: Path) -> bool:
    """Whether both are shards of one table."""
    shards = SHARD.fullmatch(path.name), SHARD.fullmatch(other.name)
    both = [(shard["split"], shard["count"]) for shard in shards if shard]
    return path.parent == other.parent and both[:1] == both[1:]


def file_rows(paths: list[Path]) -> Located:
    """Yield (place, row) of a split's files; UserError where a file breaks off or is another
    format.
    """
    for path in paths:
        number = 0
        opened: Any = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rb") as file:
                for number, row in READERS[_name_and_ending(path)[1]](file):
                    yield f"{path}:{number}", row
        except UNREADABLE as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UserError(f"{path}:{number + 1}: unreadable ({reason})") from error


# A broken gzip stream, bytes that are no text, quotes never closed, and pyarrow's (an OSError or a
# ValueError).
UNREADABLE = (OSError, EOFError, ValueError, csv.Error, zlib.error)


def _jsonl_rows(file: IO[bytes]) -> Numbered:
    for number, line in enumerate(file, start=1):
        text = line.decode("utf-8-sig", "surrogateescape")
        if text.strip():
            try:
                yield number, json.loads(text)
            except (ValueError, RecursionError) as error:  # A number may have too many digits.
                yield number, BadRow("not JSON", str(error))


def _json_rows(file: IO[bytes]) -> Numbered:
    """One list of objects, one object of lists, either also under 'data'; or, as many a tool
    writes, a file of lines.
    """
    content = file.read()
    try:
        value = json.loads(content.decode("utf-8-sig", "surrogateescape"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        yield from _jsonl_rows(io.BytesIO(content))
        return
    if isinstance(value, dict) and isinstance(value.get("data"), list | dict):
        value = value["data"]
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            sizes = ", ".join(f"{field} {len(column)}" for field, column in value.items())
            raise ValueError(f"lists of different lengths: {sizes}")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    yield from enumerate(value if isinstance(value, list) else [value], start=1)


def _csv_rows(file: IO[bytes]) -> Numbered:
    """The rows below the header, counted from 1."""
    csv.field_size_limit(1 << 30)  # articles are longer than the module's 128 KiB
    with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
        rows = csv.reader(text, strict=True)
        header = next(rows, [])
        twice = {name: TWICE for name in header if header.count(name) > 1}
        for number, fields in enumerate(rows, start=1):
            if len(fields) == len(header):
                yield number, dict(zip(header, fields, strict=True)) | twice
            elif fields:
                detail = f"{len(fields)} fields, the header has {len(header)}"
                yield number, BadRow("another number of fields than the header", detail)


def _parquet_rows(file: IO[bytes]) -> Numbered:
    from pyarrow import parquet

    number = 0
    for batch in parquet.ParquetFile(file).iter_batches():
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:  # It does not say which row has bytes that are no text.
            rows = [_parquet_row(batch.slice(index, 1)) for index in range(batch.num_rows)]
        yield from enumerate(rows, start=number + 1)
        number += len(rows)


def _parquet_row(batch: Any) -> object:
    """The only row of a batch of pyarrow's."""
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", str(error))


READERS: Mapping[str, Callable[[IO[bytes]], Numbered]] = {
    "jsonl": _jsonl_rows,
    "json": _json_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
}


def _hub_rows(hub: Hub) -> dict[str, Located]:
    """The rows of every split, at the pinned commit."""
    loaded = sources.load_dataset(hub.path, hub.revision, needed=("train",), config=hub.config)
    return {
        split: _placed(f"{hub.path}/{split}", loaded[split]) for split in SPLITS if split in loaded
    }


def _placed(where: str, rows: Iterable[object]) -> Located:
    for number, row in enumerate(rows, start=1):
        yield f"{where}:{number}", row


def checked(
    where: str, rows: Located, fields: tuple[str, ...], skip_bad_rows: bool
) -> tuple[Columns, dict[str, int]]:
    """Return the texts by field, and how many rows were left out for which reason.

    Args:
        where: What a message calls all of these rows.
        rows: Each with the place that a message names it by.
        fields: What each has as text.
        skip_bad_rows: Whether a row that cannot be used is left out and not an error.

    Raises:
        UserError: A row cannot be used, or none is left.
    """
    columns: Columns = {field: [] for field in fields}
    left_out: Counter[str] = Counter()
    for row_location, row in rows:
        fault = row if isinstance(row, BadRow) else _fault(row, fields)
        if fault is None:
            for field in fields:
                columns[field].append(LINE_END.sub("\n", row[field]))
        elif skip_bad_rows:
            left_out[fault.reason] += 1
        else:
            detail = f" ({_printable(fault.detail)})" if fault.detail else ""
            raise UserError(
                f"{row_location}: {fault.reason}{detail}; --skip-bad-rows counts such rows and "
                "goes on"
            )
    if not columns[fields[0]]:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in left_out.items())
        raise UserError(f"{where}: no row" + (f" is left ({reasons})" if reasons else ""))
    return columns, dict(left_out)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _fault(row: object, fields: tuple[str, ...]) -> BadRow | None:
    if not isinstance(row, dict):
        return BadRow("not an object with fields", f"it is {type(row).__name__}")
    for field in fields:
        if field not in row:
            return BadRow(f"no field {field!r}", f"it has: {', '.join(map(str, row))}")
        if row[field] is TWICE:
            return BadRow(f"column {field!r} is there twice")
        if not isinstance(row[field], str):
            return BadRow(f"{field!r} is not text", f"it is {type(row[field]).__name__}")
        if not row[field].strip():
            return BadRow(f"{field!r} is empty")
        reason = sources.undecodable(row[field])
        if reason:
            return BadRow(f"{field!r} is no Unicode text", reason)
    return None


def hold_out(splits: Mapping[str, Columns], seed: int) -> tuple[dict[str, Columns], dict[str, int]]:
    """Return all three splits and how many rows those that were missing took from train: a seeded
    tenth each, at most 6,000, the rest and they in their old order.
    """
    missing = [split for split in SPLITS if split not in splits]
    parts = held_out_rows(len(next(iter(splits["train"].values()))), missing, seed)
    taken = {
        split: {field: [texts[row] for row in chosen] for field, texts in splits["train"].items()}
        for split, chosen in parts.items()
    }
    whole = {split: taken.get(split) or splits[split] for split in SPLITS}
    return whole, {split: len(parts[split]) for split in missing}


def held_out_rows(rows: int, missing: Sequence[str], seed: int) -> dict[str, NDArray[np.int64]]:
    """Return which training rows become those of the splits that are missing, and which stay.

    Each missing split has a seeded tenth, at most 6,000; all keep their old order. Where none is
    missing nothing is returned.
    """
    if not missing:
        return {}
    each = min(int(rows * HELD_OUT_SHARE), MOST_HELD_OUT_ROWS)
    if each == 0:
        raise UserError(
            f"{rows} training rows leave none for {' and '.join(missing)}; at least 10 are needed"
        )
    order = np.random.default_rng(seed).permutation(rows)
    parts = {split: order[index * each :][:each] for index, split in enumerate(missing)}
    parts["train"] = order[len(missing) * each :]
    return {split: np.sort(chosen) for split, chosen in parts.items()}

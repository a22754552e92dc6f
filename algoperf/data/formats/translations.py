"""Pairs of sentences in two languages, from a folder; a bad pair is an error or counted.

A folder has a file for each split, as `records` names them: jsonl, json, csv or parquet, whose rows
have a field for each language (`{"de": ..., "en": ...}`), also inside of a field 'translation', as
the hub's files have it; or two files of lines, `train.de` and `train.en`, also gzipped, whose lines
belong together. Such a file's name may go on after the split's, as in `test_2016_flickr.de`.
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from algoperf.data.formats import records
from algoperf.errors import UserError

INSIDE = "translation"
NAME = re.compile(r"(?P<split>[a-z]+)(?:[_.-].*)?")
Languages = tuple[str, str]


def read(
    folder: str, languages: Languages, seed: int = 0, skip_bad_rows: bool = False
) -> tuple[dict[str, records.Columns], dict[str, Any]]:
    """Return the sentences of every split by language, and notes.

    A validation or test split that is not there is held out as `records.read` says.

    Args:
        folder: The folder.
        languages: The two languages, as fields and the endings of files name them.
        seed: What decides which rows are held out.
        skip_bad_rows: Whether pairs that cannot be used are left out and counted ('bad_rows').

    Raises:
        UserError: A file or a pair cannot be used, and which.
    """
    notes: dict[str, Any] = {"files_ignored": [], "bad_rows": {}}
    files = _line_files(Path(folder), languages)
    rows: dict[str, records.Located]
    if files:
        rows = {split: _paired_lines(pair, languages) for split, pair in files.items()}
    else:
        tables, notes["files_ignored"] = records.find_splits(Path(folder))
        rows = {split: _unwrapped(records.file_rows(paths)) for split, paths in tables.items()}
    splits = {}
    for split, located in rows.items():
        splits[split], bad = records.checked(f"{folder}/{split}", located, languages, skip_bad_rows)
        if bad:
            notes["bad_rows"][split] = bad
    splits, notes["held_out"] = records.hold_out(splits, seed)
    return splits, notes


def _line_files(folder: Path, languages: Languages) -> dict[str, tuple[Path, Path]]:
    """The two files of each split; nothing where the folder has no file of lines."""
    sides: list[dict[str, Path]] = []
    for language in languages:
        side: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            name, _, ending = path.name.removesuffix(".gz").rpartition(".")
            named = NAME.fullmatch(name)
            if ending != language or not path.is_file() or named is None:
                continue
            split = records.SPLIT_OF.get(named["split"])
            if split is None:
                raise UserError(
                    f"{path}: unknown split; a file of lines is named train, validation (val, dev) "
                    f"or test, as train.{language}"
                )
            if split in side:
                raise UserError(f"{path}: a second file of split {split!r}, beside {side[split]}")
            side[split] = path
        sides.append(side)
    for (language, other), (side, other_side) in (
        (languages, (sides[0], sides[1])),
        (languages[::-1], (sides[1], sides[0])),
    ):
        for split, path in side.items():
            if split not in other_side:
                raise UserError(f"{path}: there is no file of its lines in {other!r}, {language}'s")
    if sides[0] and "train" not in sides[0]:
        raise UserError(f"{folder}: no train split; expected train.{languages[0]}")
    return {split: (path, sides[1][split]) for split, path in sides[0].items()}


def _paired_lines(paths: tuple[Path, Path], languages: Languages) -> records.Located:
    """Yield (place, row) of two files' lines; UserError where one has more of them."""
    number = 0
    pairs = itertools.zip_longest(*map(_lines, paths))
    for number, pair in enumerate(pairs, start=1):
        if None in pair:
            longer, shorter = paths if pair[1] is None else paths[::-1]
            raise UserError(
                f"{shorter}: {number - 1} lines, and {longer.name} has more: the files' lines do "
                "not belong together"
            )
        yield f"{paths[0]}:{number}", dict(zip(languages, pair, strict=True))


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file; bytes that are no text become what `records` refuses."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for line in file:
                number += 1
                yield line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}:{number + 1}: unreadable ({error})") from error


def _unwrapped(rows: records.Located) -> records.Located:
    """Yield rows without the object that holds the languages."""
    for where, row in rows:
        is_inside = isinstance(row, dict) and isinstance(row.get(INSIDE), dict)
        yield where, row[INSIDE] if is_inside else row

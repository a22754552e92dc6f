"""Where rows come from: files of a folder, or the Hugging Face hub, each with errors in the user's
words.
"""

import csv
import difflib
import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from algoperf.errors import UserError, choose
from algoperf.workload import Scale, WorkloadDefinition


def resolve(definition: WorkloadDefinition, scale: Scale, given: str | None) -> tuple[str, str]:
    """Return (kind, source) for `--data`: kind is 'builtin', 'hub' or 'folder', source the same or
    a path.
    """
    source = given or scale.default_source
    if given is None and source == "folder":
        raise UserError(
            f"{definition.name} at this scale needs its data set's files: give --data FOLDER"
        )
    if source in ("builtin", "hub"):
        choose(f"data for {definition.name}", source, definition.sources)
        return source, source
    folder = Path(source)
    if not folder.is_dir():
        known = [name for name in definition.sources if name != "folder"]
        near = difflib.get_close_matches(source, known, n=1)
        reason = "not a folder" if folder.exists() else "no such folder"
        hint = f"did you mean {near[0]}?" if near else reason
        choices = ", ".join(name if name != "folder" else "FOLDER" for name in definition.sources)
        raise UserError(
            f"unknown data {source!r} for {definition.name}; {hint} (one of: {choices})"
        )
    if "folder" not in definition.sources:
        raise UserError(
            f"{definition.name} reads no folder; data is one of: {', '.join(definition.sources)}"
        )
    return "folder", str(folder.resolve())


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file, or its gzipped form, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def undecodable(text: str) -> str:
    """Return why a text is none that any program could write as UTF-8; '' where it is one.

    JSON can spell half of a surrogate pair, and readers of this package turn bytes that are no
    UTF-8 into such halves (`surrogateescape`), so that the one row is named and not its file.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start + 1} is no Unicode: half a surrogate pair, or no UTF-8"
    return ""


def read_csv(path: Path, columns: int | None) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, fields) of a CSV file, gzipped or not.

    Args:
        path: The file.
        columns: The fields of a row; None: as many as the first row has.

    Raises:
        UserError: A row has another number of fields, or the file cannot be read. The message
            names the file and the row.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    row_number = 0
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            # Strict: a quotation mark without its other would make one field of the rest.
            for row_number, fields in enumerate(csv.reader(file, strict=True), start=1):
                columns = len(fields) if columns is None else columns
                if len(fields) != columns:
                    raise UserError(
                        f"{path}:{row_number}: {len(fields)} fields, expected {columns}"
                    )
                fault = undecodable("".join(fields))
                if fault:
                    raise UserError(f"{path}:{row_number}: unreadable ({fault})")
                yield row_number, fields
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}:{row_number + 1}: unreadable ({error})") from error


def load_dataset(
    path: str,
    revision: str | None,
    columns: tuple[str, ...] = (),
    needed: tuple[str, ...] = ("train", "test"),
    config: str | None = None,
) -> Mapping[str, Any]:
    """Load a data set in the hub's layout, from the hub (pinned revision) or from a folder, by one
    call; the splits that are `needed` must be there and have the columns.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(path, config, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error.__cause__ or error).splitlines()[0][:200]
        if revision is None:
            raise UserError(
                f"{path}: neither the data set's original files nor the hub's "
                f"parquet layout ({reason})"
            ) from error
        raise UserError(
            f"the hub cannot give {path} at {revision[:8]} "
            f"({type(error).__name__}); with a network run this again, "
            "without one use --data FOLDER with the data set's files"
        ) from error
    for split in needed:
        if split not in loaded:
            raise UserError(f"{path}: no split {split!r}; it has: {', '.join(loaded)}")
        missing = [column for column in columns if column not in loaded[split].column_names]
        if missing:
            raise UserError(
                f"{path}: split {split!r} has no column {missing[0]!r}; expected: "
                f"{', '.join(columns)}"
            )
    splits: Mapping[str, Any] = loaded
    return splits

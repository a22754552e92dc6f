"""The rows of a workload as files, a file for each split: the form that `--data FOLDER` reads."""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.report import facts
from algoperf.data.report.facts import Rows
from algoperf.data.validation_seed import ValidationSeed
from algoperf.errors import UserError
from algoperf.workload import Scale, WorkloadDefinition

FORMATS = ("jsonl", "parquet")
Columns = dict[str, list[Any]]


def write(
    definition: WorkloadDefinition,
    scale: Scale,
    source: str,
    form: str,
    folder: Path,
    secret: ValidationSeed | None = None,
) -> list[Path]:
    """Load a workload's rows and write them; return the files. `form` is one of `FORMATS`.

    The texts are those that the loader gives, before any tokenizer. Fields are the data set's own
    where its module names them (`CORPUS.fields`), else text or pixels, and label.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; give one that is, or a new one to --out")
    _, rows = facts.read(definition, scale, source, secret)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, columns in _tables(definition, rows):
        path = folder / f"{split}.{form}"
        _WRITERS[form](columns, path)
        paths.append(path)
    return paths


def _tables(
    definition: WorkloadDefinition, rows: Mapping[str, Rows]
) -> Iterator[tuple[str, Columns]]:
    """The columns of every split by field."""
    corpus = getattr(importlib.import_module(f"{definition.package}.data"), "CORPUS", None)
    for split, part in rows.items():
        is_text = not isinstance(part.sources, np.ndarray)
        names = ("text" if is_text else "pixels", "label")
        if part.targets is not None:
            names = ("source", "target") if corpus is None else corpus.fields
        first = list(part.sources) if is_text else np.asarray(part.sources).tolist()
        if part.targets is not None:
            second: list[Any] = list(part.targets)
        elif part.labels is not None:
            second = part.labels.tolist()
        else:
            raise UserError(f"{definition.name} has neither texts nor labels to write")
        yield split, dict(zip(names, (first, second), strict=True))


def _write_jsonl(columns: Columns, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            # Separators of lines that are not "\n" must not end a line for any reader.
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


def _write_parquet(columns: Columns, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


_WRITERS = {"jsonl": _write_jsonl, "parquet": _write_parquet}

"""Choices of rows: classes made equal, duplicates or bad rows left out. The data says in its notes
what is gone.

Only training rows are ever dropped: the rows that a score is measured on stay what they are.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf.data.report.duplicates import normalise
from algoperf.data.rows import chosen as chosen_rows
from algoperf.errors import UserError
from algoperf.workload import Data, Scale, WorkloadDefinition
from algoperf.workload.rows import in_memory

TRAIN = "train"
OPTION = "skip_bad_rows"  # of a loader that can


def balance(data: Data, seed: int) -> Data:
    """Drop training rows of the larger classes, drawn by the seed, until all are as the smallest.

    The rows that stay keep their order. Raises UserError where the targets are no classes.
    """
    labels = in_memory(data.splits[TRAIN], "--balance")["targets"]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError("--balance makes classes equal; the rows of this workload have none")
    names, counts = np.unique(labels, return_counts=True)
    smallest = int(counts.min())
    generator = np.random.default_rng(np.random.SeedSequence([seed, len(labels)]))
    kept = [generator.permutation(np.flatnonzero(labels == name))[:smallest] for name in names]
    dropped = {str(name): int(count) - smallest for name, count in zip(names, counts, strict=True)}
    return keep(data, np.sort(np.concatenate(kept)), "balance", {"seed": seed, "dropped": dropped})


def drop_duplicates(data: Data) -> Data:
    """Drop training rows whose input an earlier training row, or a row of another split, has too.

    Texts are compared without case, punctuation and repeated spaces; other inputs as arrays. Where
    inputs are tokens without their texts, rows are the same if the model cannot tell them apart.
    Raises UserError where training rows hold several texts, or all are in other splits.
    """
    if data.text is not None and data.text.separator is not None:
        raise UserError(
            "--drop-duplicates compares rows, and those of this workload hold several texts each; "
            "algoperf data counts repeated texts: remove them from the files"
        )
    seen = {key for split in data.splits if split != TRAIN for key in _keys(data, split)}
    others = len(seen)
    kept, repeated, leaked = [], 0, 0
    elsewhere = frozenset(seen)
    for row, key in enumerate(_keys(data, TRAIN)):
        if key not in seen:
            seen.add(key)
            kept.append(row)
        elif key in elsewhere:
            leaked += 1
        else:
            repeated += 1
    assert len(seen) == others + len(kept)
    if not kept:
        raise UserError("--drop-duplicates leaves no training row: all are in other splits too")
    note = {"repeated": repeated, "in_other_splits": leaked}
    return keep(data, np.array(kept), "drop_duplicates", note)


def skip_bad_rows(definition: WorkloadDefinition, scale: Scale) -> Scale:
    """The scale whose data leaves bad rows out and counts them in its notes ('bad_rows')."""
    load = importlib.import_module(f"{definition.package}.data").load
    parameters = inspect.signature(load).parameters.values()
    if not any(each.name == OPTION or each.kind is each.VAR_KEYWORD for each in parameters):
        raise UserError(
            f"--skip-bad-rows: {definition.name} refuses bad rows, and cannot skip them"
        )
    return dataclasses.replace(scale, data={**scale.data, OPTION: True})


def _keys(data: Data, split: str) -> Sequence[Hashable]:
    if data.text is not None:
        return [normalise(text) for text in data.text.sources[split]]
    inputs = in_memory(data.splits[split], "--drop-duplicates")["inputs"]
    return [row.tobytes() for row in np.ascontiguousarray(inputs)]


def keep(data: Data, rows: NDArray[np.int64], choice: str, note: dict[str, Any]) -> Data:
    """Return the data with these training rows alone, and the note of the choice."""
    splits = {**data.splits, TRAIN: chosen_rows(data.splits[TRAIN], rows)}
    text = data.text
    if text is not None:
        chosen = [
            {**texts, TRAIN: [texts[TRAIN][row] for row in rows]}
            for texts in (text.sources, text.references)
        ]
        text = dataclasses.replace(text, sources=chosen[0], references=chosen[1])
    notes = {**data.notes, choice: note}
    return dataclasses.replace(data, splits=splits, notes=notes, text=text)

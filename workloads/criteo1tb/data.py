"""The rows of the criteo1tb workload: built-in clicks, or a folder of Criteo's click logs."""

import functools
from pathlib import Path

from algoperf.data.formats import criteo
from algoperf.workload import SPLITS, Data
from workloads.criteo1tb import generator
from workloads.parts import clicks


def load(
    source: str,
    rows: int,
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return clicks.

    Args:
        source: 'builtin' or a folder as `algoperf.data.formats.criteo` finds files in it.
        rows: The rows of the table of embeddings.
        seed: The seed of the built-in clicks.
        skip_bad_rows: Whether damaged rows are left out and counted; all files are then read once
            before.
        validation_seed: As of `generator.generate`.

    Returns:
        For each split, 'inputs' and 'targets', see `workloads.parts.clicks`.

    Raises:
        UserError: The folder cannot be used.
    """
    if source == "builtin":
        splits = {
            split: clicks.rows_of(generator.generate(split, seed, validation_seed).columns, rows)
            for split in SPLITS
        }
        return Data(splits)
    convert = functools.partial(clicks.rows_of, rows=rows)
    by_split, notes = criteo.splits(Path(source), clicks.FIELDS, convert, skip_bad_rows)
    return Data(by_split, notes=notes)

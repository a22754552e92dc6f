"""From a workload's facts to its rows, changed as a scale says."""

import importlib

from algoperf.data import row_changes
from algoperf.data.validation_seed import PARAMETER, check
from algoperf.workload import Data, Scale, WorkloadDefinition


def load_data(
    definition: WorkloadDefinition, scale: Scale, source: str, validation_seed: int | None = None
) -> Data:
    """Return the rows of a workload.

    Args:
        definition: The workload.
        scale: Its scale for rows of this kind; `scale.data` are the loader's settings, and
            `scale.row_changes` what a variant does to the training rows.
        source: 'builtin', 'hub' or a folder's path.
        validation_seed: What validation and test rows are drawn by, in place of the usual ones
            (`algoperf.data.validation_seed`); None for these.

    Raises:
        UserError: The rows cannot be had or read; the message names the source.
    """
    secret = {}
    if validation_seed is not None:
        check(definition, source)
        secret = {PARAMETER: validation_seed}
    load = importlib.import_module(f"{definition.package}.data").load
    data: Data = load(source, **scale.data, **secret)
    return row_changes.change(data, scale.row_changes) if scale.row_changes else data

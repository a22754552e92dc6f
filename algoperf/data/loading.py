"""From a workload's facts to its rows, changed as a scale says."""

import importlib

from algoperf.data import row_changes
from algoperf.workload import Data, Scale, WorkloadDefinition


def load_data(definition: WorkloadDefinition, scale: Scale, source: str) -> Data:
    """Return the rows of a workload.

    Args:
        definition: The workload.
        scale: Its scale for rows of this kind; `scale.data` are the loader's settings, and
            `scale.row_changes` what a variant does to the training rows.
        source: 'builtin', 'hub' or a folder's path.

    Raises:
        UserError: The rows cannot be had or read; the message names the source.
    """
    data: Data = importlib.import_module(f"{definition.package}.data").load(source, **scale.data)
    return row_changes.change(data, scale.row_changes) if scale.row_changes else data

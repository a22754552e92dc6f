"""One pass over one split: metric values, with every row counted once."""

from typing import Any

import numpy as np

from algoperf import spec
from algoperf.backends import Backend
from algoperf.data import batches
from algoperf.workload import Arrays, WorkloadDefinition
from workloads import metrics


def evaluate(
    backend: Backend,
    workload: spec.Workload,
    definition: WorkloadDefinition,
    arrays: Arrays,
    batch_size: int,
    params: Any,
    model_state: Any,
) -> dict[str, float]:
    """Return 'loss' (the mean over rows), the workload's metrics, and 'num_examples'.

    Losses and predictions are fetched row by row and summed in float64, so the result depends on
    neither the batch size nor the padding of the last batch.
    """
    rows = batches.row_count(arrays)
    outputs = [
        backend.predict(workload, params, model_state, backend.place(batch))
        for batch in batches.once(arrays, min(batch_size, rows))
    ]
    losses, predictions = (
        np.concatenate(parts)[:rows] for parts in zip(*backend.fetch(outputs), strict=True)
    )
    weights = np.asarray(arrays.get("weights", np.ones(losses.shape)), np.float64)
    values = {"loss": float((losses.astype(np.float64) * weights).sum() / weights.sum())}
    for name in definition.metrics:
        values[name] = getattr(metrics, name)(predictions, arrays["targets"], weights)
    values["num_examples"] = float(rows)
    return values

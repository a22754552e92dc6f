"""One pass over one split: metric values, with every row counted once."""

import time
from typing import Any

import numpy as np

from algoperf import spec
from algoperf.backends import Backend
from algoperf.data import batches
from algoperf.workload import Arrays, Data, Scale, WorkloadDefinition
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


class Evaluator:
    """Evaluates any split of a run's data; training is looked at on its first few rows only."""

    def __init__(
        self,
        backend: Backend,
        workload: spec.Workload,
        definition: WorkloadDefinition,
        data: Data,
        scale: Scale,
    ) -> None:
        self._backend = backend
        self._workload = workload
        self._definition = definition
        self._splits = dict(data.splits)
        self._splits["train"] = {
            key: array[: scale.eval_train_rows] for key, array in data.splits["train"].items()
        }
        self._batch_size = scale.eval_batch_size
        self.inference_s_per_example: float | None = None  # of the last pass over validation

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluation needs, so that no evaluation is timed with its compilation."""
        batch = next(batches.once(self._splits["validation"], self._size("validation")))
        placed = self._backend.place(batch)
        self._backend.fetch(self._backend.predict(self._workload, params, model_state, placed))

    def _size(self, split: str) -> int:
        return min(self._batch_size, batches.row_count(self._splits[split]))

    def __call__(self, split: str, params: Any, model_state: Any) -> dict[str, float]:
        """Return the metrics of a split (see `evaluate`)."""
        started_at_s = time.perf_counter()
        values = evaluate(
            self._backend,
            self._workload,
            self._definition,
            self._splits[split],
            self._size(split),
            params,
            model_state,
        )
        if split == "validation":
            elapsed_s = time.perf_counter() - started_at_s
            self.inference_s_per_example = elapsed_s / values["num_examples"]
        return values

"""The mean over tasks of the average precision of binary labels, some of which are missing.

As OGB's evaluator of ogbg-molpcba has it (Hu et al. 2020): a task counts if, among the rows that
have a label of it, there are both; its average precision is scikit-learn's, of those rows.

Legend: B rows of a batch, N of a split, T tasks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf.workload.metric import Batch


def average_precisions(
    labels_NT: NDArray[np.bool_], scores_NT: NDArray[Any], known_NT: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the average precision of each task, NaN for one without labels of both kinds.

    Args:
        labels_NT: The labels.
        scores_NT: What the rows are sorted by.
        known_NT: Which labels are not missing; the others do not count.
    """
    from sklearn.metrics import average_precision_score

    values_T = np.full(labels_NT.shape[1], np.nan)
    for task, known_N in enumerate(known_NT.T):
        labels_K = labels_NT[known_N, task]
        if labels_K.any() and not labels_K.all():
            values_T[task] = average_precision_score(labels_K, scores_NT[known_N, task])
    return values_T


class MeanAveragePrecision:
    """Holds the scores of all rows, since they have to be sorted."""

    def __init__(self, rows: int) -> None:
        self._parts: list[tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.bool_]]] = []

    def add(self, batch: Batch) -> None:
        """Count the next rows of the split; a weight of 0 is a missing label."""
        self._parts.append((batch.targets > 0.5, batch.predictions.copy(), batch.weights > 0))

    def finish(self) -> float:
        """Return the mean, in [0, 1]; NaN where no task counts, or a score is not finite."""
        labels_NT, scores_NT, known_NT = map(np.concatenate, zip(*self._parts, strict=True))
        if not np.isfinite(scores_NT[known_NT]).all():
            return float("nan")  # of a model that diverged; its rows cannot be sorted
        values_T = average_precisions(labels_NT, scores_NT, known_NT)
        counted = values_T[~np.isnan(values_T)]
        return float(counted.mean()) if counted.size else float("nan")


METRICS = {"mean_average_precision": MeanAveragePrecision}

"""Metrics on NumPy arrays, shared by the workloads. Each takes (predictions, targets, weights) of
one split.
"""

import numpy as np


def accuracy(predictions: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of rows (or tokens) whose predicted class is the target."""
    right = (predictions == targets).astype(np.float64)
    return float((right * weights).sum() / weights.sum())

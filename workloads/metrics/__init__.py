"""Metrics shared by the workloads. Each takes (predictions, targets, weights) of one split, NumPy
arrays; those of `OF_LOSS` take the split's mean loss instead.
"""

import math

import numpy as np


def accuracy(predictions: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of rows (or tokens) whose predicted class is the target."""
    right = (predictions == targets).astype(np.float64)
    return float((right * weights).sum() / weights.sum())


def perplexity(mean_loss: float) -> float:
    """exp of the mean cross-entropy, in nats, of the tokens that count; infinite beyond floats."""
    return math.inf if mean_loss > LARGEST_LOG else math.exp(mean_loss)


LARGEST_LOG = math.log(np.finfo(np.float64).max)
pseudo_perplexity = perplexity  # over masked tokens (Salazar et al. 2020 mask one at a time)
OF_LOSS = frozenset({"perplexity", "pseudo_perplexity"})

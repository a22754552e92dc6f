"""exp of the mean cross-entropy, in nats, of the tokens that count."""

import math

import numpy as np

from algoperf.workload.metric import MeanLoss

LARGEST_LOG = math.log(np.finfo(np.float64).max)


def perplexity(mean_loss: float) -> float:
    """Return exp of a mean loss in nats; infinity beyond floats."""
    return math.inf if mean_loss > LARGEST_LOG else math.exp(mean_loss)


class Perplexity(MeanLoss):
    """Of the mean over all tokens of the split, not the mean of rows' perplexities."""

    def finish(self) -> float:
        """Return the perplexity, at least 1 of a loss that is never negative."""
        return perplexity(super().finish())


METRICS = {"perplexity": Perplexity}

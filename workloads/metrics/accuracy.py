"""The share of rows (or tokens) whose predicted class is the target."""

from algoperf.workload.metric import Batch, WeightedMean


class Accuracy:
    """Weighted, as the loss is."""

    def __init__(self, rows: int) -> None:
        self._mean = WeightedMean(rows)

    def add(self, batch: Batch) -> None:
        """Count the next rows of the split."""
        self._mean.add(batch.predictions == batch.targets, batch.weights)

    def finish(self) -> float:
        """Return the share, in [0, 1]."""
        return self._mean.finish()


METRICS = {"accuracy": Accuracy}

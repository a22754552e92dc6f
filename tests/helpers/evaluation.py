"""One pass over a split by one device, as a referee's `Evaluator` makes it."""

from algoperf.data import batches
from algoperf.trial import evaluate as counting
from algoperf.trial import outputs


def evaluate(backend, workload, definition, arrays, batch_size, params, model_state):
    """Return 'loss', the definition's metrics and 'num_examples' of all rows of a split."""
    rows = batches.row_count(arrays)
    padded = batches.once(arrays, min(batch_size, rows))
    computed = outputs.predictions(backend, workload, padded, params, model_state)
    return counting.accumulate(computed, rows, definition.accumulators, definition.loss_type)

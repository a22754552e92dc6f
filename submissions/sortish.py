"""NAdamW on batches of rows of about the same length (sortish sampling), in both frameworks.

Less padding a batch is less work a step, where rows differ in length. Everything else is the
reference algorithm's.
"""

from reference_algorithms.nadamw import (  # noqa: F401  (what the library calls)
    DEFAULTS,
    SEARCH_SPACE,
    jax_optimizer,
    learning_rate,
    torch_optimizer,
)


def data_selection(input_queue):
    """Return the next batch, of rows grouped among those of 16 batches."""
    return input_queue.sortish(window=16)

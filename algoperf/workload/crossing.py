"""Where a metric meets its target between two evaluations, and when it will."""

import math


def share_of_way(start: float, end: float, target: float, *, higher_is_better: bool) -> float:
    """Return how far the target lies on the straight way from one value of a metric to another.

    A metric that falls to a positive target (a loss, a perplexity) falls by ever smaller amounts;
    the way is straight in its logarithm where all three values are positive.

    Args:
        start: The earlier value.
        end: The later value.
        target: The value to meet.
        higher_is_better: Whether the metric has to rise to the target.

    Returns:
        0 at the start, 1 at the end, more beyond it; inf where the way does not lead to the target,
        or a value is not finite.
    """
    values = [start, end, target]
    if not higher_is_better and min(values) > 0:
        values = [math.log(value) for value in values]
    start, end, target = values
    if not all(map(math.isfinite, values)) or start == end:
        return math.inf
    share = (target - start) / (end - start)
    return share if share >= 0 else math.inf

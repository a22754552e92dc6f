"""Where a metric meets its target between two evaluations, and when it will."""

import math
from collections.abc import Sequence
from typing import NamedTuple

LONGEST_LOG = 700.0  # Of a value that is still finite.


class Point(NamedTuple):
    """A value of a metric, and where training stood: the submission's seconds, and steps."""

    time_s: float
    step: float
    value: float


class Crossing(NamedTuple):
    """Where a target was met between two points, and the nearer bracket that it was read from.

    Attributes:
        time_s: The submission's seconds.
        step: The steps, in general no whole number.
        low_s: The seconds at the last point that missed the target.
        high_s: The seconds at the first that met it.
    """

    time_s: float
    step: float
    low_s: float
    high_s: float


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
    if falls_by_factors(*values, higher_is_better=higher_is_better):
        values = [math.log(value) for value in values]
    start, end, target = values
    if not all(map(math.isfinite, values)) or start == end:
        return math.inf
    share = (target - start) / (end - start)
    return share if share >= 0 else math.inf


def falls_by_factors(*values: float, higher_is_better: bool) -> bool:
    """Return whether values of a metric lie on a straight line in their logarithms."""
    return not higher_is_better and min(values) > 0


def crossing(
    miss: Point,
    hit: Point,
    target: float,
    *,
    higher_is_better: bool,
    probes: Sequence[Point] = (),
) -> Crossing | None:
    """Return where a metric met its target between an evaluation that missed it and one that met.

    With probes the way is not one straight line but goes by them. A probe is the metric of a few of
    the rows, so it differs from that of all; the difference is known at both ends, and between them
    it is taken to change at a constant rate.

    Args:
        miss: The evaluation that missed the target.
        hit: The next evaluation, which met it.
        target: The value to meet.
        higher_is_better: Whether the metric has to rise to the target.
        probes: The metric of the same few rows at the miss, at times between and at the hit. They
            are not used where they begin or end elsewhere, or a value is not finite.

    Returns:
        The crossing; None where nothing lies between: the target itself was hit, the miss measured
        nothing, or the clock went back.
    """
    if not 0 <= miss.time_s < hit.time_s:
        return None
    way = [miss, *_corrected(miss, hit, probes, target, higher_is_better), hit]
    sign = 1 if higher_is_better else -1
    places = range(1, len(way))
    after = next((at for at in places if sign * (way[at].value - target) >= 0), places[-1])
    low, high = way[after - 1], way[after]
    share = share_of_way(low.value, high.value, target, higher_is_better=higher_is_better)
    if high is hit and not share < 1:
        return None
    return Crossing(
        low.time_s + share * (high.time_s - low.time_s),
        low.step + share * (high.step - low.step),
        low.time_s,
        high.time_s,
    )


def _exp(value: float) -> float:
    return math.exp(min(value, LONGEST_LOG))


def _corrected(
    miss: Point, hit: Point, probes: Sequence[Point], target: float, higher_is_better: bool
) -> list[Point]:
    """Return the probes between miss and hit, corrected to what all rows would have said."""
    if len(probes) < 3 or probes[0][:2] != miss[:2] or probes[-1][:2] != hit[:2]:
        return []
    times_s = [probe.time_s for probe in probes]
    values = [miss.value, hit.value, target, *(probe.value for probe in probes)]
    if not all(map(math.isfinite, values)) or times_s != sorted(set(times_s)):
        return []
    factors = falls_by_factors(*values, higher_is_better=higher_is_better)
    into, back = (math.log, _exp) if factors else (float, float)
    first, last = (
        into(whole.value) - into(few.value) for whole, few in ((miss, probes[0]), (hit, probes[-1]))
    )
    shares = [(time_s - miss.time_s) / (hit.time_s - miss.time_s) for time_s in times_s]
    return [
        probe._replace(value=back(into(probe.value) + first + share * (last - first)))
        for probe, share in list(zip(probes, shares, strict=True))[1:-1]
    ]

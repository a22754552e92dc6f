"""When to look at the validation rows next, and at how many: numbers in, numbers out.

An evaluation of all rows is dear: few fit into the share of the time that evaluations may take, and
the target is met long before the next. A *probe* measures the target metric alone, on a fixed few
of the rows. Probes come often and steer: where one, corrected by how far the few rows were from all
when both were last measured, says that the target is met, all rows are evaluated, with the same
parameters. Only that decides whether it is. The probes between the last evaluation that missed the
target and the one that met it say where, between the two, it was met
(`algoperf.workload.crossing`).

Whoever measures has one `Cadence` a trial and tells it of every probe and every evaluation; it
knows no model, no clock and no loop.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from algoperf.workload.crossing import LONGEST_LOG, Point

# Evaluations of all rows that no probe asked for come when all of them have taken this share of the
# submission's time, and the time since the first step has grown by this factor.
UNASKED_SHARE, UNASKED_FACTOR = 0.03, 2.0
# The next probe follows after the shortest of three: AHEAD of the time in which the metric's slope
# leads to the target; WANDER of that in which its random changes typically would, could they be
# taken to add up (their variance grows with time, so that it is the square of what is left over the
# variance of a second); and MOST_GAP of the time since the first step. But no sooner than can be
# afforded.
AHEAD, WANDER, MOST_GAP = 0.5, 0.1, 0.1
# Time that was saved is spent at such a rate that it would last for this share of the time since
# the first step.
SAVED_FOR = 0.1
# The n-th probe is no closer to the one before than n over this of the clock, so that a trial which
# stays below its target is not probed a thousand times.
PROBES = 40_000
RECENT, CHANGES_OF = 40, 13  # So many probes are remembered; random changes are those of the last.
SLOPE_OVER = 0.1  # The share of the time since the first step that the slope is measured over.


@dataclasses.dataclass
class Cadence:
    """Decides when a trial is probed, and when all rows are evaluated.

    Attributes:
        target: The value to meet.
        higher_is_better: Whether the metric has to rise to it.
        share: The share of the submission's time that probes and evaluations may take together.
        longest_s: The most seconds of it between two evaluations of all rows.
        probes: The probes since the last evaluation of all rows that missed the target. The first
            is of the same parameters; once the target is met, the last is of those that met it.
        recent: The last probes, in the same form.
        count: How many there were in all.
        spent_s: The seconds of all probes and evaluations.
        whole_spent_s: Those of the evaluations of all rows.
        probe_s: Those of the last probe.
        whole_s: Those of the last evaluation of all rows; None before the first.
        first: The first evaluation of all rows.
        whole_at_s: The submission's time at the last one.
        offset: How far the few rows were from all then, in the units of `_straight`; 0 after the
            first, of initial parameters.
        met: Whether the target was met, so that there is nothing left to look for.
    """

    target: float
    higher_is_better: bool
    share: float
    longest_s: float = math.inf
    probes: list[Point] = dataclasses.field(default_factory=list)
    recent: list[Point] = dataclasses.field(default_factory=list)
    count: int = 0
    spent_s: float = 0.0
    whole_spent_s: float = 0.0
    probe_s: float = 0.0
    whole_s: float | None = None
    first: Point | None = None
    whole_at_s: float = 0.0
    offset: float = 0.0
    met: bool = False

    def probed(self, point: Point, cost_s: float) -> None:
        """Take the metric of the few rows, and the seconds that measuring it took."""
        self.probes.append(point)
        self.recent = [*self.recent, point][-RECENT:]
        self.count += 1
        self.spent_s += cost_s
        self.probe_s = cost_s

    def wants_all(self) -> bool:
        """Return whether all rows are to be evaluated at the parameters of the last probe."""
        if self.first is None or self.met or not self.probes:
            return True
        last = self.probes[-1]
        # Numbers that are not finite end a trial, and that is for an evaluation to say.
        unclear = not math.isfinite(last.value)
        return unclear or self._left() <= 0 or last.time_s >= self._whole_due_s()

    def evaluated(self, point: Point, cost_s: float) -> None:
        """Take the metric of all rows, and the seconds that measuring it took."""
        self.spent_s += cost_s
        self.whole_spent_s += cost_s
        self.whole_s, self.whole_at_s = cost_s, point.time_s
        self.met = self.met or self._sign * (point.value - self.target) >= 0
        if self.first is None:  # How initial parameters do on some rows says nothing of later ones.
            self.first = point
        elif self.probes:
            offset = self._straight(point.value) - self._straight(self.probes[-1].value)
            self.offset = offset if math.isfinite(offset) else 0.0
        if not self.met:
            del self.probes[:-1]

    def next_due_s(self) -> float:
        """Return the submission's time from which on the next probe or evaluation is due."""
        assert self.first is not None
        assert self.whole_s is not None
        if self.met or not self.probes:
            affordable_s = (self.spent_s + self.whole_s) / self.share
            return min(affordable_s, self.whole_at_s + self.longest_s)
        now_s = self.probes[-1].time_s
        # The evaluation that meets the target is to fit in, too.
        reserved_s = self.spent_s + self.probe_s + self.whole_s
        gap_s = max(self._gap_s(now_s), self.count / PROBES * now_s)
        due_s = max(reserved_s / self.share, now_s + gap_s)
        return min(due_s, max(self._whole_due_s(), now_s))

    def _whole_due_s(self) -> float:
        assert self.first is not None
        assert self.whole_s is not None
        affordable_s = (self.whole_spent_s + self.whole_s) / UNASKED_SHARE
        start_s = self.first.time_s
        later_s = start_s + UNASKED_FACTOR * (self.whole_at_s - start_s)
        return min(max(affordable_s, later_s), self.whole_at_s + self.longest_s)

    def _gap_s(self, now_s: float) -> float:
        """Return the seconds from the last probe to the next, were there no limit on all."""
        assert self.first is not None
        assert self.whole_s is not None
        trained_s = now_s - self.first.time_s
        saved_s = max(0.0, self.share * now_s - self.spent_s - self.whole_s)
        rate = self.share + (saved_s / (SAVED_FOR * trained_s) if trained_s > 0 else 0.0)
        affordable_s = self.probe_s / rate
        left = max(self._left(), 0.0)
        slope, variance = self._slope(now_s, SLOPE_OVER * trained_s), self._variance()
        gaps_s = [MOST_GAP * trained_s]
        if slope > 0:
            gaps_s.append(AHEAD * left / slope)
        if variance > 0:
            gaps_s.append(WANDER * left**2 / variance)
        return max(min(gaps_s), affordable_s)

    @property
    def _sign(self) -> int:
        return 1 if self.higher_is_better else -1

    def _straight(self, value: float) -> float:
        """Return a value where metrics come closer to their target along straight lines."""
        if self.higher_is_better or self.target <= 0:
            return value
        return math.log(value) if value > 0 else -math.inf

    @property
    def predicted(self) -> float | None:
        """The metric of all rows, as the last probe predicts it; None before the first."""
        if not self.probes:
            return None
        predicted = self._predicted()
        if self._straight(self.target) == self.target:
            return predicted
        return math.exp(predicted) if predicted < LONGEST_LOG else math.inf

    def _predicted(self) -> float:
        return self._straight(self.probes[-1].value) + self.offset

    def _left(self) -> float:
        """Return how far all rows are from the target, as the last probe predicts."""
        return self._sign * (self._straight(self.target) - self._predicted())

    def _slope(self, now_s: float, over_s: float) -> float:
        """Return how fast the metric comes closer to the target; 0 where that is not known."""
        before = [probe for probe in self.recent if probe.time_s < now_s]
        if not before:
            return 0.0
        start = next(
            (each for each in reversed(before) if now_s - each.time_s >= over_s), before[0]
        )
        rise = self._straight(self.probes[-1].value) - self._straight(start.value)
        slope = self._sign * rise / (now_s - start.time_s)
        return slope if math.isfinite(slope) else 0.0

    def _variance(self) -> float:
        """Return the variance of the metric's random changes in a second; 0 where it is not known.

        They are what a change has beside the next one, at the same rate: of two stretches a and b
        seconds long, this has the variance of a + a^2 / b seconds.
        """
        last = [(probe.time_s, self._straight(probe.value)) for probe in self.recent[-CHANGES_OF:]]
        squares = []
        for (start_s, start), (at_s, at), (end_s, end) in zip(
            last, last[1:], last[2:], strict=False
        ):
            before_s, after_s = at_s - start_s, end_s - at_s
            if before_s > 0 and after_s > 0:
                change = (at - start) - (end - at) * before_s / after_s
                squares.append(change**2 / (before_s + before_s**2 / after_s))
        squares = [each for each in squares if math.isfinite(each)]
        return statistics.fmean(squares) if squares else 0.0

    def position(self) -> dict[str, Any]:
        """Return all it knows as plain values, for a checkpoint."""
        return dataclasses.asdict(self)

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Take up what `position` returned in an earlier process."""
        for name, value in position.items():
            if name in ("probes", "recent"):
                value = [Point(*each) for each in value]
            elif name == "first" and value is not None:
                value = Point(*value)
            setattr(self, name, value)

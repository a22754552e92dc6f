"""How far the reported time to target is from the true one, by replaying dense curves.

    python tests/benchmarks/crossing_error.py [tests/benchmarks/dense_curves.jsonl]

A dense curve (`dense_curves.py` records them) is a trial that was evaluated every few steps, more
densely near its target, and went on past it. Each is replayed as a trial evaluates, with the
library's own `Cadence`: with steps that take each of several factors as long, and
evaluations that cost 0.85 to 1.15 times as much, which moves all but the first. Between two points
of a curve its values lie on a straight line. The true time is where the dense curve first meets the
target: what a trial would report that is evaluated all the time.

Rows: for each workload and framework and for all together, and for each rule: the number of curves
and replays, how many of these met no target before the curve ended (they count as if they had met
it there, which is too early), the mean error without sign, its 95th percentile, the mean with its
sign (a positive one is late), the largest, and what the evaluations took as a share of the
submission's time (the mean and the largest). `by period` is the grid of 10 or 15 s (digits: 0.1 s)
that the mini scale had before, put forward by parts of a period; `hit` is the evaluation that met
the target, `interpolated` the line between it and the one before. `by cost` is what a trial does:
`evaluations alone` leaves the probes out of the interpolation.
"""

import argparse
import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algoperf.trial.goal import Goal, Limits
from algoperf.workload import catalogue
from algoperf.workload.crossing import Point, crossing

Floats = NDArray[np.float64]

CURVES = Path(__file__).with_name("dense_curves.jsonl")
# Seconds between evaluations of the mini scale before crossings were interpolated.
EARLIER_S = {"digits": 0.1, "ag_news": 10.0} | dict.fromkeys(("lm", "mlm", "xsum", "samsum"), 15.0)
STEP_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.25)
SHIFTS = 12
MEAN_LIMIT, P95_LIMIT, COST_LIMIT = 0.02, 0.05, 0.2
FEWEST_CURVES = 40
RULES = (
    "by period, hit",
    "by period, interpolated",
    "by cost, hit",
    "by cost, evaluations alone",
    "by cost, interpolated",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A dense curve.

    Attributes:
        limits: When a trial of the workload evaluates.
        step_N: The steps at which it was evaluated.
        whole_N: The metric of all validation rows.
        few_N: That of the rows that a probe looks at.
        first_step_s: The seconds of the first step, and of the others,
        step_s: their median;
        whole_s: of an evaluation,
        probe_s: and of a probe.
    """

    workload: str
    framework: str
    goal: Goal
    limits: Limits
    step_N: Floats
    whole_N: Floats
    few_N: Floats
    first_step_s: float
    step_s: float
    whole_s: float
    probe_s: float

    def time_s(self, step: float, factor: float) -> float:
        """Return the clock after a step, where steps take `factor` times as long."""
        return self.first_step_s + factor * self.step_s * (step - 1)

    def step(self, time_s: float, factor: float) -> int:
        """Return the first step after which the clock is not before a time."""
        return max(1, math.ceil((time_s - self.first_step_s) / (factor * self.step_s) - 1e-9) + 1)

    def at(self, step: int, factor: float, value_N: Floats) -> Point:
        """Return the point of a step."""
        return Point(self.time_s(step, factor), step, float(np.interp(step, self.step_N, value_N)))

    def is_met(self, point: Point) -> bool:
        """Return whether a point meets the target."""
        return self.goal.is_met({f"validation/{self.goal.metric}": point.value})

    def crossing_s(self, miss: Point | None, hit: Point, probes: Sequence[Point] = ()) -> float:
        """Return the time that a score counts."""
        if miss is None:
            return hit.time_s
        assert self.goal.validation is not None
        higher = self.goal.higher_is_better
        found = crossing(miss, hit, self.goal.validation, higher_is_better=higher, probes=probes)
        return hit.time_s if found is None else found.time_s

    def true_s(self, factor: float) -> float:
        """Return where the curve first meets its target; inf where it does not."""
        points = [self.at(int(step), factor, self.whole_N) for step in self.step_N]
        for miss, point in zip([None, *points], points, strict=False):
            if self.is_met(point):
                return self.crossing_s(miss, point)
        return math.inf


def read(path: Path) -> Iterator[Curve]:
    """Yield the curves of a file."""
    for line in path.read_text().splitlines():
        values = json.loads(line)
        definition = catalogue.find(values["workload"])
        scale = definition.scales["mini"]
        target = scale.targets["builtin"].validation
        yield Curve(
            values["workload"],
            values["framework"],
            Goal(definition.target_metric, definition.higher_is_better, target),
            Limits(math.inf, scale.eval_every_s, eval_share=scale.eval_share),
            *(np.array(values[name], np.float64) for name in ("step", "whole", "few")),
            *(values[name] for name in ("first_step_s", "step_s", "whole_s", "probe_s")),
        )


def by_period(curve: Curve, factor: float, shift: float) -> dict[str, tuple[float, float]]:
    """Replay the earlier grid; return (time, seconds of evaluations by the hit's) by rule."""
    period_s, miss = EARLIER_S[curve.workload], None
    step = count = 1
    while step <= curve.step_N[-1]:
        point = curve.at(step, factor, curve.whole_N)
        if curve.is_met(point):
            share = count * curve.whole_s / point.time_s
            between_s = curve.crossing_s(miss, point)
            return dict(zip(RULES[:2], ((point.time_s, share), (between_s, share)), strict=True))
        miss, count = point, count + 1
        due_s = (math.floor(point.time_s / period_s + shift) + 1 - shift) * period_s
        step = max(step + 1, curve.step(due_s, factor))
    return {}


def by_cost(curve: Curve, factor: float, shift: float) -> dict[str, tuple[float, float]]:
    """Replay what a trial does; return the same."""
    cadence = curve.limits.cadence(curve.goal)
    assert cadence is not None
    dear, miss, step = 0.85 + 0.3 * shift, None, 1
    while step <= curve.step_N[-1]:
        cadence.probed(curve.at(step, factor, curve.few_N), dear * curve.probe_s)
        if cadence.wants_all():
            point = curve.at(step, factor, curve.whole_N)
            cadence.evaluated(point, dear * curve.whole_s)
            if cadence.met:
                share = cadence.spent_s / point.time_s
                alone_s = curve.crossing_s(miss, point)
                between_s = curve.crossing_s(miss, point, cadence.probes)
                times_s = (point.time_s, alone_s, between_s)
                return {
                    rule: (time_s, share) for rule, time_s in zip(RULES[2:], times_s, strict=True)
                }
            miss = point
        step = max(step + 1, curve.step(cadence.next_due_s(), factor))
    return {}


def replays(curve: Curve) -> dict[str, list[tuple[float, float]]]:
    """Return (relative error, share of the time) of each replay by rule.

    The share is NaN for one that met no target: its time is that of the curve's end.
    """
    errors: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
    for factor, shift in itertools.product(STEP_FACTORS, np.arange(SHIFTS) / SHIFTS):
        true_s, end_s = curve.true_s(factor), curve.time_s(curve.step_N[-1], factor)
        ended = by_period(curve, factor, shift) | by_cost(curve, factor, shift)
        for rule in RULES:
            time_s, share = ended.get(rule, (end_s, math.nan))
            errors[rule].append((time_s / true_s - 1, share))
    return errors


def row(name: str, rule: str, curves: int, errors: Sequence[tuple[float, float]]) -> str:
    """Return a row of the table."""
    error_N, share_N = np.array(errors).T
    lost, size_N = int(np.isnan(share_N).sum()), np.abs(error_N)
    share_N = share_N[~np.isnan(share_N)]
    return (
        f"{name:17} {rule:27} {curves:3} curves {len(errors):5} replays {lost:4} lost  "
        f"error {size_N.mean():6.2%}  95 % {np.percentile(size_N, 95):6.2%}  "
        f"bias {error_N.mean():+6.2%}  largest {size_N.max():6.1%}  "
        f"evaluation {share_N.mean():5.1%}, at most {share_N.max():5.1%}"
    )


def main() -> int:
    """Print the table; the exit code is 1 where the reported time misses a limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="?", type=Path, default=CURVES)
    arguments = parser.parse_args()
    every: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in read(arguments.curves):
        if math.isfinite(curve.true_s(1.0)):
            groups.setdefault((curve.workload, curve.framework), []).append(curve)
    for key, group in sorted(groups.items()):
        found = [replays(curve) for curve in group]
        for rule in RULES:
            errors = [each for of_curve in found for each in of_curve[rule]]
            every[rule] += errors
            print(row(" ".join(key), rule, len(group), errors))
    count = sum(map(len, groups.values()))
    for rule in RULES:
        print(row("all", rule, count, every[rule]))
    error_N, share_N = np.abs(np.array(every[RULES[-1]]).T)
    good = (
        count >= FEWEST_CURVES
        and error_N.mean() <= MEAN_LIMIT
        and np.percentile(np.where(np.isnan(share_N), math.inf, error_N), 95) <= P95_LIMIT
        and np.nanmax(share_N) <= COST_LIMIT
    )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())

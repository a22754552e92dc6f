"""What a time to target is made of: steps to the target, and seconds a step.

    time to target = steps to target x seconds a step
    seconds a step = the framework's x the algorithm's own factor

The framework's seconds a step, which are the model's and the data's in that framework, are the
cheapest seen of that workload in it; the algorithm's own factor is what a submission's steps cost
above that, at least 1. The factor cannot be told from a poor implementation, and in a framework
with one submission it is 1 by definition.

Where submissions of two frameworks are compared, a score compares the frameworks too. The
framework-neutral score takes every submission at the cheaper framework's step: its steps and its
own factor stay, so no time gets longer and no target is lost. It is an estimate: a missed target
stays missed, although a cheaper step would have left more steps in the budget.

Legend: S submissions, W workloads, N studies.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping

import numpy as np

from scoring.analysis.leaderboard import Cell, Leaderboard
from scoring.benchmarks.pools import Entry
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN
from scoring.rules import rules as scoring_rules
from scoring.rules.time_to_target import is_readable


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The factors of one entry's time to target on one workload.

    Attributes:
        label: The entry's label.
        workload: The workload.
        framework: The framework of the entry.
        steps: The median number of steps to the target; inf where it was missed.
        step_s: Seconds a step: the median time over the median steps where the target was reached,
            else those of the median trial until its end.
        framework_s: The cheapest seconds a step of the workload in that framework.
        neutral_s: The cheapest in any framework.
        time_s: The median time to target in seconds; inf where it was missed.
    """

    label: str
    workload: str
    framework: str
    steps: float
    step_s: float
    framework_s: float
    neutral_s: float
    time_s: float

    @property
    def own(self) -> float:
        """The algorithm's own factor: what its steps cost over the cheapest in its framework."""
        return self.step_s / self.framework_s

    @property
    def neutral_time_s(self) -> float:
        """The time to target if the framework's part of a step were the cheaper framework's."""
        return self.time_s * self.neutral_s / self.framework_s


@dataclasses.dataclass(frozen=True)
class FrameworkGap:
    """How far frameworks, and how far algorithms, move the times on one workload.

    Attributes:
        workload: The workload.
        step_s: The cheapest seconds a step by framework.
        apart: How many times the slower of two submissions takes the time of the faster one at the
            framework-neutral step, in the median over pairs that reached the target; NaN without
            such a pair.
        typical: The median of `apart` over all workloads, for those without such a pair.
    """

    workload: str
    step_s: Mapping[str, float]
    apart: float
    typical: float = math.nan

    @property
    def ratio(self) -> float:
        """The seconds a step of the dearer framework over those of the cheaper one."""
        return max(self.step_s.values()) / min(self.step_s.values())

    @property
    def moves_more(self) -> bool:
        """Whether the framework moves a time more than the choice between two algorithms does."""
        return self.ratio > (self.typical if math.isnan(self.apart) else self.apart)


@dataclasses.dataclass(frozen=True, eq=False)
class StepTimes:
    """What the times of a leaderboard are made of.

    Attributes:
        cells: The factors of each entry on each workload of which a step time is known.
        gaps: The frameworks beside the algorithms, for each workload that two frameworks ran.
        neutral_scores: The framework-neutral score of each entry, an estimate, in the order of the
            rows; empty unless there are two frameworks.
        held_back: The number of targets that were missed in the dearer framework: at the cheaper
            step they might have been reached.
    """

    cells: tuple[StepTime, ...]
    gaps: tuple[FrameworkGap, ...]
    neutral_scores: tuple[float, ...]
    held_back: int

    @property
    def framework_dominates(self) -> bool:
        """Whether frameworks move times more than algorithms do, on most workloads of both."""
        return 2 * sum(gap.moves_more for gap in self.gaps) > len(self.gaps) > 0


def step_times(board: Leaderboard) -> StepTimes:
    """Return what the times of a leaderboard are made of."""
    paces = {
        (row.entry.label, name): pace
        for row in board.rows
        for name in board.layout.workloads
        if (pace := _pace(row.entry, name, row.cells[name])) is not None
    }
    cheapest: dict[tuple[str, str], float] = {}
    for row in board.rows:
        for name in board.layout.workloads:
            pace = paces.get((row.entry.label, name))
            if pace is not None:
                key = name, row.entry.framework
                cheapest[key] = min(pace, cheapest.get(key, math.inf))
    by_workload: dict[str, dict[str, float]] = {}
    for (name, framework), pace in cheapest.items():
        by_workload.setdefault(name, {})[framework] = pace
    cells = tuple(
        StepTime(
            row.entry.label,
            name,
            row.entry.framework,
            row.cells[name].median_steps,
            paces[row.entry.label, name],
            by_workload[name][row.entry.framework],
            min(by_workload[name].values()),
            row.cells[name].median_time_s,
        )
        for row in board.rows
        for name in board.layout.workloads
        if (row.entry.label, name) in paces
    )
    apart = {name: _apart(cells, name) for name in sorted(by_workload)}
    known = [ratio for ratio in apart.values() if not math.isnan(ratio)]
    typical = statistics.median(known) if known else math.nan
    gaps = tuple(
        FrameworkGap(name, dict(sorted(by_workload[name].items())), ratio, typical)
        for name, ratio in apart.items()
        if len(by_workload[name]) > 1
    )
    held_back = sum(
        math.isinf(cell.time_s) and cell.framework_s > cell.neutral_s
        for cell in cells
        if cell.workload in board.benchmark.base_workloads
    )
    neutral = _neutral_scores(board, cells) if gaps else ()
    return StepTimes(cells, gaps, neutral, held_back)


def _pace(entry: Entry, workload: str, cell: Cell) -> float | None:
    """Return seconds a step of an entry on a workload; None where no trial tells them."""
    if math.isfinite(cell.median_time_s) and 0 < cell.median_steps < math.inf:
        return cell.median_time_s / cell.median_steps or None
    paces = []
    for run in entry.runs:
        if run.workload == workload and is_readable(run) and STEP_COLUMN in run.rows:
            times_s, steps = run.rows[TIME_COLUMN], run.rows[STEP_COLUMN]
            # A trial that ended at its first step says what compilation took.
            if len(steps) > 1 and steps[-1] > 1 and math.isfinite(times_s[-1] / steps[-1]):
                paces.append(float(times_s[-1] / steps[-1]))
    return (statistics.median(paces) or None) if paces else None


def _apart(cells: tuple[StepTime, ...], workload: str) -> float:
    """Return `FrameworkGap.apart` of a workload."""
    times_s = [
        cell.neutral_time_s
        for cell in cells
        if cell.workload == workload and 0 < cell.time_s < math.inf
    ]
    ratios = [max(pair) / min(pair) for pair in itertools.combinations(times_s, 2)]
    return statistics.median(ratios) if ratios else math.nan


def _neutral_scores(board: Leaderboard, cells: tuple[StepTime, ...]) -> tuple[float, ...]:
    """Return the scores with every entry at the cheaper framework's step."""
    labels, names = board.labels, board.layout.workloads
    factors_SW = np.ones(board.times_SWN.shape[:2])
    for cell in cells:
        row_and_column = labels.index(cell.label), names.index(cell.workload)
        factors_SW[row_and_column] = cell.neutral_s / cell.framework_s
    times_SWN = board.times_SWN * factors_SW[..., None]
    return tuple(scoring_rules.scores(times_SWN, board.layout, board.rules).tolist())

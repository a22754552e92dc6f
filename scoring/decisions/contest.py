"""What is compared, and what is known so far of each study of it.

A study of a submission on a workload is run as one: its trials, if there are several, are run side
by side, and its clock is the time that each of them has had. It meets its target when the first of
its trials does. What it costs is the sum over its trials.

Legend: S submissions, W workloads (base and held-out), N studies.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from scoring.analysis.bounds import score_bounds
from scoring.rules.rules import BY_THE_RULES, Floats, Layout, make_layout

LEAST_GAP = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Contest:
    """What is compared.

    Attributes:
        submissions: The names of the submissions.
        workloads: The workloads, base and held-out, sorted.
        base_workloads: Those that a score averages over.
        variant_of: The base workload of each held-out variant.
        budgets_s: The budget of each workload in seconds of submission time.
        studies: The number of studies of each workload when all have run.
    """

    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    base_workloads: tuple[str, ...]
    variant_of: Mapping[str, str]
    budgets_s: Mapping[str, float]
    studies: int

    @property
    def layout(self) -> Layout:
        """The meaning of the columns of times."""
        return make_layout(self.workloads, self.base_workloads, self.variant_of)

    @property
    def groups(self) -> list[list[int]]:
        """For each base workload, its column and those of its held-out variants."""
        groups = []
        for base in self.base_workloads:
            variants = [
                name for name, its_base in sorted(self.variant_of.items()) if its_base == base
            ]
            groups.append([self.workloads.index(name) for name in (base, *variants)])
        return groups


@dataclasses.dataclass
class Seen:
    """What is known so far of one study of one submission on one workload.

    Attributes:
        clock_s: The submission time that it has had; 0 before it begins.
        hit_s: The time at which it met its target; inf where it has not.
        is_over: Whether it has ended: it has met its target, or cannot any more.
        times_s: The times of the evaluations so far.
        gaps: The distance of the best metric so far from the target at those times; inf where
            nothing was measured. The evaluation of the first step is left out.
    """

    clock_s: float = 0.0
    hit_s: float = math.inf
    is_over: bool = False
    times_s: Sequence[float] | Floats = ()
    gaps: Sequence[float] | Floats = ()

    @property
    def has_begun(self) -> bool:
        """Whether anything is known: it has run, or there is nothing to run."""
        return self.clock_s > 0 or self.is_over

    @property
    def has_hit(self) -> bool:
        """Whether the target was met."""
        return math.isfinite(self.hit_s)

    def gap_at(self, time_s: float) -> float | None:
        """Return the distance from the target at a time; None where it is not known."""
        count = int(np.searchsorted(self.times_s, time_s * (1 + 1e-12), side="right"))
        if count == 0 or not math.isfinite(self.gaps[count - 1]):
            return None
        return max(float(self.gaps[count - 1]), LEAST_GAP)


Board = dict[tuple[int, int, int], Seen]


def nothing_seen(contest: Contest) -> Board:
    """Return what is known of a contest before anything has run, by (s, w, n)."""
    shape = len(contest.submissions), len(contest.workloads), contest.studies
    return {(s, w, n): Seen() for s, w, n in np.ndindex(*shape)}


def curve(
    time_s: Floats, value: Floats, goal: float, *, higher_is_better: bool
) -> tuple[Floats, Floats]:
    """Return times and distances to the target of a trial's evaluations, as `Seen` has them.

    Args:
        time_s: Submission times in seconds.
        value: The metric at each.
        goal: The target.
        higher_is_better: Whether the metric has to rise to it.
    """
    gap = goal - value if higher_is_better else value - goal
    best = np.minimum.accumulate(np.where(np.isfinite(gap), gap, np.inf)[1:])
    return time_s[1:], best


def end_bounds(contest: Contest, board: Board, pair: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the exact bounds of the scores of two submissions as a pool of their own.

    Returns:
        The lowest and the highest scores, two arrays (2,).
    """
    shape = 2, len(contest.workloads), contest.studies
    low, high = np.zeros(shape), np.full(shape, np.inf)
    for side, s in enumerate(pair):
        for w, n in np.ndindex(*shape[1:]):
            seen = board[s, w, n]
            low[side, w, n] = seen.hit_s if seen.is_over else seen.clock_s
            high[side, w, n] = seen.hit_s
    return score_bounds(low, high, contest.layout, BY_THE_RULES)


def settled_lead(contest: Contest, board: Board, pair: tuple[int, int]) -> int | None:
    """Return 1 or -1 where the first or the second of a pair surely scores higher.

    It is 0 where both surely score the same, and None where nothing is sure.
    """
    lowest, highest = end_bounds(contest, board, pair)
    if lowest[0] > highest[1]:
        return 1
    if lowest[1] > highest[0]:
        return -1
    return 0 if lowest.min() == highest.max() else None


def is_decisive(contest: Contest, board: Board, pair: tuple[int, int], w: int, n: int) -> bool:
    """Return whether the clock of a study of a pair may still change anything between the two.

    Nothing is left to learn once both have ended, or once one is past four times the time at which
    the other met the target: its credit is 0 then.
    """
    first, second = (board[s, w, n] for s in pair)
    for one, other in ((first, second), (second, first)):
        if not one.is_over and one.clock_s <= 4 * other.hit_s:
            return True
    return False

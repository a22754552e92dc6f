"""The exact interval that each score can still end in while trials are unfinished or missing.

A score never rises where a time of the submission itself rises, and never falls where a time of
another one does: a faster rival can only lower the ratio's reference, the cut-offs and so the
credit. So the lowest score that a submission can end with is the one for its own times as late as
they may be and all others as early as they may be; the highest is the other way around. Both are
scores of a possible end of the competition, so that the interval cannot be narrower.

What is known of a trial that has not ended is its clock: a target that it has not met so far is met
later, or never. Of a trial that has not begun nothing is known.

Legend: S submissions, W workloads (base and held-out), N studies.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.leaderboard import Leaderboard
from scoring.reading.evaluations import TIME_COLUMN
from scoring.reading.trials import TrialRun
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import Floats, Layout, Rules
from scoring.rules.time_to_target import Crossing, crossing_of, is_readable

# A time that is finite, but later than any: as-published sets no limit to times.
LATEST_S = 1e100


@dataclasses.dataclass(frozen=True)
class TrialState:
    """What is known so far of one trial.

    Attributes:
        trial: The number of the trial within its study.
        is_open: Whether the trial may still meet its target: it has not ended.
        clock_s: Submission time in seconds of the last evaluation so far; 0 where there is none.
        evaluations: The number of evaluations so far.
        hit: Where the trial met its target; None where it has not.
        is_readable: Whether it has recorded anything that counts.
    """

    trial: int
    is_open: bool
    clock_s: float
    evaluations: int
    hit: Crossing | None
    is_readable: bool = True


def trial_state(run: TrialRun, rules: Rules) -> TrialState:
    """Return what is known so far of a trial.

    A trial that has used up its budget is not open, under rules that look at budgets.
    """
    times_s = run.rows.get(TIME_COLUMN, np.empty(0))
    clock_s = float(times_s[-1]) if len(times_s) and times_s[-1] > 0 else 0.0
    crossing = crossing_of(run, rules) if is_readable(run) else None
    has_time = run.budget_s is None or not rules.budgets or clock_s <= run.budget_s
    return TrialState(
        run.trial,
        run.unfinished is not None and has_time,
        clock_s,
        len(times_s),
        crossing if crossing is not None and crossing.reached else None,
        is_readable(run),
    )


def study_bounds(states: Sequence[TrialState], rules: Rules, *, trials: int) -> tuple[float, float]:
    """Return the earliest and the latest time to target that one study can end with.

    Args:
        states: What is known of the trials of the study that have begun.
        rules: The rule set.
        trials: How many trials the study has when all have run.

    Returns:
        Seconds, inf for a missed target; both NaN where the study can only end without a readable
        trial.
    """
    waiting = [TrialState(0, True, 0.0, 0, None)] * max(0, trials - len(states))
    possible = [state for state in (*states, *waiting) if state.is_open and state.hit is None]
    hits = [state for state in states if state.hit is not None]
    if not hits and not possible:
        return (math.inf, math.inf) if any(s.is_readable for s in states) else (math.nan, math.nan)
    if rules.earliest == "evaluation":
        return _by_evaluation(hits, possible)
    ends = [_hit_bounds(state.hit, rules, state.is_open) for state in hits if state.hit is not None]
    earliest = [low for low, _ in ends] + [state.clock_s for state in possible]
    return min(earliest), min((high for _, high in ends), default=math.inf)


def _hit_bounds(hit: Crossing, rules: Rules, is_open: bool) -> tuple[float, float]:
    """Return the earliest and the latest time that the hit of a trial can end with.

    Probes, which are written where a trial ends, may move an interpolated time within its bracket.
    """
    if not (is_open and rules.interpolates):
        return hit.time_s, hit.time_s
    low_s = max(0.0, hit.last_miss.time_s) if hit.last_miss else hit.hit_time_s
    return low_s, hit.hit_time_s


def _by_evaluation(
    hits: Sequence[TrialState], possible: Sequence[TrialState]
) -> tuple[float, float]:
    """Return the bounds of a study that the trial with the earliest evaluation stands for.

    A trial that meets its target at an earlier evaluation counts even if it does so at a later
    time; at the same evaluation the smaller time counts.
    """
    if not hits:
        return min(state.clock_s for state in possible), math.inf
    number, time_s = min(
        (state.hit.evaluation or 0, state.hit.time_s) for state in hits if state.hit is not None
    )
    before = [state.clock_s for state in possible if state.evaluations < number]
    beside = [state.clock_s for state in possible if state.evaluations == number]
    return min([time_s, *before, *beside]), LATEST_S if before else time_s


def score_bounds(
    low_SWN: Floats, high_SWN: Floats, layout: Layout, rules: Rules
) -> tuple[Floats, Floats]:
    """Return the lowest and the highest score that each submission can end with.

    Args:
        low_SWN: Array (..., S, W, N) of the earliest times to target that studies can end with; NaN
            is no study.
        high_SWN: The same for the latest times; inf is a missed target.
        layout: The meaning of the columns.
        rules: The rule set.

    Returns:
        Two arrays (..., S) of scores in [0, 1].
    """
    lowest, highest = [], []
    count = low_SWN.shape[-3]
    for own in range(count):
        is_own = (np.arange(count) == own)[:, None, None]
        worst_SWN = np.where(is_own, high_SWN, low_SWN)
        best_SWN = np.where(is_own, low_SWN, high_SWN)
        lowest.append(scoring_rules.scores(worst_SWN, layout, rules)[..., own])
        highest.append(scoring_rules.scores(best_SWN, layout, rules)[..., own])
    return np.stack(lowest, axis=-1), np.stack(highest, axis=-1)


def place_bounds(
    lowest_S: Floats, highest_S: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the best and the worst place that each submission can end in, from score bounds.

    A place is settled where both are the same. Of two submissions whose intervals do not overlap
    one is surely ahead; of two alone the reverse holds too, as the lowest score of the one and the
    highest of the other belong to the same end.
    """
    surely_ahead = lowest_S[..., None, :] > highest_S[..., :, None]
    may_be_ahead = highest_S[..., None, :] > lowest_S[..., :, None]
    itself = np.eye(lowest_S.shape[-1], dtype=bool)
    best = 1 + (surely_ahead & ~itself).sum(axis=-1)
    worst = 1 + (may_be_ahead & ~itself).sum(axis=-1)
    return np.asarray(best, np.int64), np.asarray(worst, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreBounds:
    """What the scores of a leaderboard can still become; the order is that of its rows.

    Attributes:
        lowest: The lowest score that each entry can end with.
        highest: The highest.
        best_place: The best place that each entry can end in.
        worst_place: The worst.
        open_studies: The number of studies, of all entries and workloads, that may still change.
        studies: The number of all studies.
    """

    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    best_place: tuple[int, ...]
    worst_place: tuple[int, ...]
    open_studies: int
    studies: int

    @property
    def settled(self) -> int:
        """The number of entries whose place is settled."""
        return sum(a == b for a, b in zip(self.best_place, self.worst_place, strict=True))


def time_bounds(
    board: Leaderboard,
    *,
    studies: int | None = None,
    trials: int | None = None,
    missing_may_run: bool = True,
) -> tuple[Floats, Floats]:
    """Return the earliest and the latest times to target that the studies of a board can end with.

    Args:
        board: The leaderboard.
        studies: How many studies of each workload there are when all have run; None is as many as
            the board has.
        trials: How many trials a study has then; None is as many as any study of the board has.
        missing_may_run: Whether trials and studies that have not begun may still be run. If not,
            they stay missing.

    Returns:
        Two arrays (S, W, N), as `score_bounds` takes them.
    """
    states = _states(board)
    most = max((len(each) for each in states.values()), default=1)
    count = (trials or most) if missing_may_run else 0
    low, high = [], []
    for index, row in enumerate(board.rows):
        pairs = [
            [
                study_bounds(states.get((index, name, number), ()), board.rules, trials=count)
                for number in _numbers(
                    (result.study for result in row.cells[name].studies), studies
                )
            ]
            for name in board.layout.workloads
        ]
        low.append([[pair[0] for pair in cell] for cell in pairs])
        high.append([[pair[1] for pair in cell] for cell in pairs])
    return (
        scoring_rules.study_array(low, board.rules),
        scoring_rules.study_array(high, board.rules),
    )


def _states(board: Leaderboard) -> Mapping[tuple[int, str, int], list[TrialState]]:
    """Return the states of the trials of each entry, workload and study."""
    states: dict[tuple[int, str, int], list[TrialState]] = {}
    for index, row in enumerate(board.rows):
        for run in row.entry.runs:
            if run.workload in row.cells and run.target is not None:
                key = index, run.workload, run.study
                states.setdefault(key, []).append(trial_state(run, board.rules))
    return states


def _numbers(known: Iterable[int], studies: int | None) -> list[int]:
    """Return the numbers of the studies of a cell: those known, and enough others."""
    numbers = sorted(known)
    more = (number for number in range(10**6) if number not in numbers)
    return numbers + [next(more) for _ in range((studies or 0) - len(numbers))]


def bounds_of(
    board: Leaderboard,
    *,
    studies: int | None = None,
    trials: int | None = None,
    missing_may_run: bool = True,
) -> ScoreBounds:
    """Return what the scores and places of a leaderboard can still become.

    The arguments are those of `time_bounds`.
    """
    low_SWN, high_SWN = time_bounds(
        board, studies=studies, trials=trials, missing_may_run=missing_may_run
    )
    lowest_S, highest_S = score_bounds(low_SWN, high_SWN, board.layout, board.rules)
    best_S, worst_S = place_bounds(lowest_S, highest_S)
    is_study = ~np.isnan(low_SWN)
    return ScoreBounds(
        tuple(lowest_S.tolist()),
        tuple(highest_S.tolist()),
        tuple(best_S.tolist()),
        tuple(worst_S.tolist()),
        int((is_study & (low_SWN != high_SWN)).sum()),
        int(is_study.sum()),
    )

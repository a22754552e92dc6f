"""The exact interval that each score can still end in while trials are unfinished or missing.

A score never rises where a time of the submission itself rises. With others it is not so simple: a
ratio is to the fastest *credited* time, so a third submission that meets a held-out variant earlier
may take a rival's credit, and with it the reference, away. So lowest and highest are looked for on
each base workload by itself, over what all others may do there; both are scores of a possible end
of the competition, so that the interval cannot be narrower. (Where a base workload has two held-out
variants or more, the highest may be higher than any end.)

What is known of a trial that has not ended is its clock: a target that it has not met so far is met
later, or never. Of a trial that has not begun nothing is known.

Legend: S submissions, W workloads (base and held-out), B base workloads, N studies, R rivals (all
submissions but one), K held-out variants of one base workload, C candidates.
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
from scoring.rules.profiles import TAU_MAX
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
    early_SW, late_SW = (
        np.where(np.isnan(medians_SW), np.inf, medians_SW)
        for medians_SW in map(scoring_rules.median_over_studies, (low_SWN, high_SWN))
    )
    early_SB, late_SB = (scoring_rules.base_columns(each, layout) for each in (early_SW, late_SW))
    worst_SB, best_SB = np.empty_like(early_SB), np.empty_like(early_SB)
    for b in range(early_SB.shape[-1]):
        columns = [column for column, base in layout.variants if base == b]
        early = _Times(early_SB[..., b], early_SW[..., columns])
        late = _Times(late_SB[..., b], late_SW[..., columns])
        for own in range(early_SB.shape[-2]):
            worst_SB[..., own, b] = _largest_ratio(early, late, own, rules)
            best_SB[..., own, b] = _smallest_ratio(early, late, own, rules)
    return scoring_rules.mean_credit(worst_SB, rules), scoring_rules.mean_credit(best_SB, rules)


@dataclasses.dataclass(frozen=True, eq=False)
class _Times:
    """Times of submissions on a base workload (..., S) and on its variants (..., S, K)."""

    base: Floats
    variants: Floats

    def only(self, own: int) -> "_Times":
        """Return the times of one submission, without the axis S."""
        return _Times(self.base[..., own], self.variants[..., own, :])

    def without(self, own: int) -> "_Times":
        """Return the times of all other submissions; variants count where the base is reached."""
        base_R = np.delete(self.base, own, axis=-1)
        variants_RK = np.delete(self.variants, own, axis=-2)
        return _Times(base_R, np.where(np.isfinite(base_R)[..., None], variants_RK, np.inf))

    def is_cut(self, rivals: "_Times", rules: Rules) -> NDArray[np.bool_]:
        """Return whether one submission has no credit where its rivals have these times."""
        fastest_K = rivals.variants.min(axis=-2, initial=np.inf)
        cut = ~np.isfinite(self.base) | ~np.isfinite(self.variants).all(axis=-1)
        cut |= (self.variants > TAU_MAX * fastest_K).any(axis=-1)
        if not rules.one_reference:
            cut |= self.base > TAU_MAX * rivals.base.min(axis=-1, initial=np.inf)
        return np.asarray(cut)

    def ratio(self, reference: Floats, cut: NDArray[np.bool_]) -> Floats:
        """Return one submission's ratio to the faster of itself and a reference; inf if cut."""
        fastest = np.minimum(self.base, reference)
        ratio = np.where(self.base == fastest, 1.0, np.inf)
        is_slower = np.isfinite(self.base) & (fastest > 0) & (self.base > fastest)
        np.divide(self.base, fastest, out=ratio, where=is_slower)
        return np.where(cut | (self.base > TAU_MAX * fastest), np.inf, ratio)


def _largest_ratio(early: _Times, late: _Times, own: int, rules: Rules) -> Floats:
    """Return the largest ratio (...,) of a submission on a base workload.

    It is as late as it may be. Either all others are early and cut it off; or one rival is early
    and credited, and all others are late, so that they cut nobody off.
    """
    mine, first, last = late.only(own), early.without(own), late.without(own)
    others_RR = ~np.eye(first.base.shape[-1], dtype=bool)
    others_RK = np.where(others_RR[..., None], last.variants[..., None, :, :], np.inf)
    limit_RK = np.minimum(mine.variants[..., None, :], others_RK.min(axis=-2, initial=np.inf))
    is_rival = np.isfinite(first.base) & np.isfinite(first.variants).all(axis=-1)
    is_rival &= (first.variants <= TAU_MAX * limit_RK).all(axis=-1)
    if not rules.one_reference:
        others_R = np.where(others_RR, last.base[..., None, :], np.inf).min(axis=-1, initial=np.inf)
        is_rival &= first.base <= TAU_MAX * np.minimum(mine.base[..., None], others_R)
    reference = np.where(is_rival, first.base, np.inf).min(axis=-1, initial=np.inf)
    return mine.ratio(reference, mine.is_cut(first, rules))


def _smallest_ratio(early: _Times, late: _Times, own: int, rules: Rules) -> Floats:
    """Return the smallest ratio (...,) of a submission on a base workload.

    It is as early as it may be, and its rivals are late. A reference is reached if each rival that
    is faster than it even then can be kept without credit: late on a variant, which this submission
    or a rival that is no faster than the reference meets more than four times earlier, but not so
    early that this submission itself is cut off.
    """
    mine, first, last = early.only(own), early.without(own), late.without(own)
    floor_K = mine.variants / TAU_MAX
    every = [np.minimum(last.base, mine.base[..., None]), mine.base[..., None]]
    reference_C = np.concatenate(every, axis=-1)
    is_faster_CR = last.base[..., None, :] < reference_C[..., :, None]
    if mine.variants.shape[-1] > 1:  # Who is late on one variant may be early on another.
        cutters_CRR = np.broadcast_to(
            ~np.eye(last.base.shape[-1], dtype=bool), (*is_faster_CR.shape, last.base.shape[-1])
        )
    else:
        cutters_CRR = np.broadcast_to(
            ~is_faster_CR[..., None, :], (*is_faster_CR.shape, last.base.shape[-1])
        )
    # A rival that meets a variant so early in any case only helps where it misses the base.
    can_wait_RK = np.delete(late.variants, own, axis=-2) >= floor_K[..., None, :]
    cut_at_RK = np.where(can_wait_RK, first.variants, np.inf)
    cut_at_CRK = np.where(cutters_CRR[..., None], cut_at_RK[..., None, None, :, :], np.inf).min(
        axis=-2, initial=np.inf
    )
    fastest_CRK = np.minimum(
        mine.variants[..., None, None, :], np.maximum(floor_K[..., None, None, :], cut_at_CRK)
    )
    removable_CR = (last.variants[..., None, :, :] > TAU_MAX * fastest_CRK).any(axis=-1)
    is_reached_C = (~is_faster_CR | removable_CR).all(axis=-1)
    reference = np.where(is_reached_C, reference_C, 0.0).max(axis=-1)
    return mine.ratio(reference, mine.is_cut(last, rules))


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

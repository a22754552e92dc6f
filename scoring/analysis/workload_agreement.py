"""Which workloads tell the order: how each one's own order of submissions agrees with the suite's.

A workload orders submissions by the credit that it gives them, which is what it adds to a score.
Two orders are compared by Kendall's tau-b (Kendall 1945, The treatment of ties in ranking
problems): 1 where all pairs are in the same order, -1 where all are in the opposite one, about 0
where they have nothing to do with each other. Of pairs that one side ties neither order is counted.

A workload is part of the suite, so it agrees with it a little by itself. Therefore it is also
compared with the score of all other workloads, for which it does not vote. The same holds for
subsets of workloads. Ranges are those in which 95 % of fresh competitions of the same submissions
and workloads lie, drawn as for the intervals of scores. They say nothing of other submissions: an
agreement is of these submissions, at these targets.

Legend: R resamples, S submissions, B base workloads, T subsets, P pairs of submissions.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.costs import Cost
from scoring.analysis.leaderboard import Leaderboard
from scoring.analysis.pooled_model import fit
from scoring.analysis.statistics import Bootstrap, percentiles, pooled_medians, resampled_medians
from scoring.rules import rules as scoring_rules

Floats = NDArray[np.float64]

SUBSET = 3
LEAST_SUBMISSIONS = 3  # Two have one pair, on which two workloads agree or not by chance.
MOST_WORKLOADS = 40  # Of more the subsets are not tried: 9,880 of 40.
NEAR = 0.1  # How far below the best agreement a cheaper subset may stay: 1 pair in 20.
WITHIN = 1.5  # Times this close together separate little; a score's scale ends at 4.
RESAMPLES, CHUNK = 500, 50
DECIMALS = 9  # Scores that differ by less are equal: sums of one and the same credits.


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an order agrees with another.

    Attributes:
        tau: Kendall's tau-b; NaN where one side ties all submissions.
        low: The lower end of the range of 95 % of fresh competitions; NaN where not estimable.
        high: Its upper end.
    """

    tau: float
    low: float = math.nan
    high: float = math.nan


@dataclasses.dataclass(frozen=True)
class WorkloadOrder:
    """What one base workload, with its held-out variants, tells of the order.

    Attributes:
        workload: The workload.
        with_suite: How its order agrees with the suite's.
        with_others: How it agrees with that of the score of all other workloads.
        reached: How many submissions reach its target in the median.
        submissions: How many there are.
        fastest_s: The least of their median times in seconds; NaN where nobody reaches it.
        slowest_s: The largest of those that reach it.
        core_hours: What it cost (see `scoring.analysis.costs`); NaN where that is not known.
    """

    workload: str
    with_suite: Agreement
    with_others: Agreement
    reached: int
    submissions: int
    fastest_s: float
    slowest_s: float
    core_hours: float

    @property
    def spread(self) -> float:
        """How many times the fastest median the slowest is; NaN where nobody reaches the target."""
        return self.slowest_s / self.fastest_s if self.fastest_s > 0 else math.nan

    @property
    def separates(self) -> str:
        """Why the target separates little; '' where it does separate."""
        if not self.reached:
            return "nobody reaches it"
        if self.reached == self.submissions and self.spread <= WITHIN:
            return f"all reach it within {WITHIN:g} times"
        return ""


@dataclasses.dataclass(frozen=True)
class Subset:
    """A subset of the base workloads as a suite of its own.

    Attributes:
        workloads: Their names, cheapest first.
        with_suite: How its order agrees with that of the whole suite.
        with_others: How it agrees with that of the score of the workloads outside of it.
        core_hours: What its workloads cost; NaN where that is not known.
        stays_best: The share of fresh competitions in which no other subset agrees better with the
            suite; NaN where not estimable.
    """

    workloads: tuple[str, ...]
    with_suite: Agreement
    with_others: Agreement
    core_hours: float
    stays_best: float = math.nan


@dataclasses.dataclass(frozen=True)
class WorkloadAgreement:
    """Which workloads tell the order of a leaderboard.

    Attributes:
        orders: Each base workload that was run, that which agrees best with all others first.
        subsets: The subsets of `SUBSET` workloads, that which agrees best with the suite first, of
            equal ones the cheapest; empty where there are no more workloads than that.
        cheap: The cheapest of those whose agreement with the suite is at most `NEAR` below the
            best one's; None without subsets.
        core_hours: What all base workloads cost together.
    """

    orders: tuple[WorkloadOrder, ...]
    subsets: tuple[Subset, ...]
    cheap: Subset | None
    core_hours: float

    @property
    def best(self) -> Subset | None:
        """The subset that agrees best with the suite."""
        return self.subsets[0] if self.subsets else None


def workload_agreement(
    board: Leaderboard, costs: dict[str, Cost], studies: Bootstrap, *, seed: int = 0
) -> WorkloadAgreement | None:
    """Return which workloads tell the order of a leaderboard.

    Args:
        board: The leaderboard.
        costs: What each workload cost, by its name.
        studies: The intervals of its scores, for their method, and whether they are estimable.
        seed: The seed of the random draws.

    Returns:
        None where there are fewer than `LEAST_SUBMISSIONS` submissions or two base workloads.
    """
    columns = [index for index, column in enumerate(board.layout.base) if column >= 0]
    if len(board.rows) < LEAST_SUBMISSIONS or len(columns) < 2:
        return None
    credits_SB = scoring_rules.credits(board.ratios, board.rules)[:, columns]
    drawn_RSB = _drawn(board, studies, seed)[..., columns]
    names = [board.benchmark.base_workloads[column] for column in columns]
    hours = [_core_hours(board, costs, column) for column in columns]
    singles = np.eye(len(columns), dtype=np.bool_)
    suite_B, others_B = _taus(credits_SB, singles)
    drawn_suite_RB, drawn_others_RB = _drawn_taus(drawn_RSB, singles)
    with_suite = _agreements(suite_B, drawn_suite_RB)
    with_others = _agreements(others_B, drawn_others_RB)
    orders = [
        _order(board, name, suite, others, cost)
        for name, suite, others, cost in zip(names, with_suite, with_others, hours, strict=True)
    ]
    orders.sort(key=lambda one: (-_or_least(one.with_others.tau), -_or_least(one.with_suite.tau)))
    subsets = _subsets(credits_SB, drawn_RSB, names, hours)
    known = [cost for cost in hours if math.isfinite(cost)]
    return WorkloadAgreement(
        tuple(orders), subsets, _cheap(subsets), sum(known) if known else math.nan
    )


def tau_b(first_XS: Floats, second_XS: Floats) -> Floats:
    """Return Kendall's tau-b of two orders of S things, along the last axis.

    Args:
        first_XS: Values to order by, with any axes before the last.
        second_XS: Others, whose axes before the last match.

    Returns:
        Array of the axes before: values in [-1, 1], NaN where one side has all values equal.
    """
    one, other = np.triu_indices(first_XS.shape[-1], 1)
    a_XP, b_XP = (
        np.sign(np.round(each[..., one] - each[..., other], DECIMALS))
        for each in (first_XS, second_XS)
    )
    scale_X = np.sqrt((a_XP != 0).sum(axis=-1) * (b_XP != 0).sum(axis=-1, dtype=np.float64))
    agreeing_X = (a_XP * b_XP).sum(axis=-1)
    return np.asarray(np.where(scale_X > 0, agreeing_X / np.maximum(scale_X, 1), np.nan))


def _drawn(board: Leaderboard, studies: Bootstrap, seed: int) -> Floats:
    """Return the credits (R, S, B) of fresh competitions; none where not estimable."""
    if studies.not_estimable:
        return np.empty((0, len(board.rows), len(board.layout.base)))
    generator = np.random.default_rng(seed)
    if studies.method == "pooled":
        model = fit(board.times_SWN, board.log_errors_SWN)
        medians_RSW = pooled_medians(model, RESAMPLES, generator)
    else:
        medians_RSW = resampled_medians(board.times_SWN, RESAMPLES, generator)
    ratios_RSB = scoring_rules.credited_ratios(medians_RSW, board.layout, board.rules)
    return scoring_rules.credits(ratios_RSB, board.rules)


def _taus(credits_SB: Floats, masks_TB: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return tau-b of each subset's order with the suite's, and with that of all others.

    Args:
        credits_SB: Array (..., S, B) of credits.
        masks_TB: Which workloads each subset has.

    Returns:
        Two arrays (..., T).
    """
    suite_S = credits_SB.mean(axis=-1)
    # The axes are put as (..., T, S), for which a sum over B is a product of matrices.
    inside_TS = np.moveaxis(credits_SB @ masks_TB.T.astype(np.float64), -1, -2)
    outside_TS = suite_S[..., None, :] * credits_SB.shape[-1] - inside_TS
    suite_TS = np.broadcast_to(suite_S[..., None, :], inside_TS.shape)
    return tau_b(inside_TS, suite_TS), tau_b(inside_TS, outside_TS)


def _drawn_taus(drawn_RSB: Floats, masks_TB: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return what `_taus` does for each resample, arrays (R, T), a few at a time."""
    parts = [
        _taus(drawn_RSB[start : start + CHUNK], masks_TB)
        for start in range(0, len(drawn_RSB), CHUNK)
    ]
    if not parts:
        none = np.empty((0, len(masks_TB)))
        return none, none
    return np.concatenate([each for each, _ in parts]), np.concatenate([each for _, each in parts])


def _agreements(tau_T: Floats, drawn_RT: Floats) -> list[Agreement]:
    """Return the agreement of each subset, with its range."""
    return [Agreement(tau, *_range(drawn_RT[:, index])) for index, tau in enumerate(tau_T.tolist())]


def _range(drawn_R: Floats) -> tuple[float, float]:
    """Return the central 95 % of values; NaN where more than half have none."""
    known = drawn_R[~np.isnan(drawn_R)]
    if 2 * len(known) <= len(drawn_R):
        return math.nan, math.nan
    low, high = percentiles(known[:, None], discrete=True)[0].tolist()
    return low, high


def _order(
    board: Leaderboard,
    workload: str,
    with_suite: Agreement,
    with_others: Agreement,
    core_hours: float,
) -> WorkloadOrder:
    medians = [row.cells[workload].median_time_s for row in board.rows]
    reached = [time_s for time_s in medians if math.isfinite(time_s)]
    return WorkloadOrder(
        workload,
        with_suite,
        with_others,
        len(reached),
        len(medians),
        min(reached, default=math.nan),
        max(reached, default=math.nan),
        core_hours,
    )


def _core_hours(board: Leaderboard, costs: dict[str, Cost], column: int) -> float:
    """Return what a base workload and its held-out variants cost."""
    layout = board.layout
    members = [layout.base[column], *(each for each, base in layout.variants if base == column)]
    return sum(costs[layout.workloads[each]].core_hours for each in members)


def _subsets(
    credits_SB: Floats, drawn_RSB: Floats, names: Sequence[str], hours: Sequence[float]
) -> tuple[Subset, ...]:
    if not SUBSET < len(names) <= MOST_WORKLOADS:
        return ()
    every = list(itertools.combinations(range(len(names)), SUBSET))
    masks_TB = np.zeros((len(every), len(names)), np.bool_)
    for index, chosen in enumerate(every):
        masks_TB[index, list(chosen)] = True
    suite_T, others_T = _taus(credits_SB, masks_TB)
    costs = [sum(hours[member] for member in chosen) for chosen in every]
    order = sorted(
        range(len(every)),
        key=lambda index: (-_or_least(float(suite_T[index])), _or_most(costs[index])),
    )
    drawn_suite_RT, drawn_others_RT = _drawn_taus(drawn_RSB, masks_TB)
    with_suite = _agreements(suite_T, drawn_suite_RT)
    with_others = _agreements(others_T, drawn_others_RT)
    best_R = np.where(np.isnan(drawn_suite_RT), -2, drawn_suite_RT).max(axis=1, initial=-2)
    subsets = []
    for index in order:
        members = sorted(every[index], key=lambda member: (_or_most(hours[member]), member))
        stays_R = drawn_suite_RT[:, index] >= best_R - 10.0**-DECIMALS
        subsets.append(
            Subset(
                tuple(names[member] for member in members),
                with_suite[index],
                with_others[index],
                costs[index],
                float(stays_R.mean()) if len(stays_R) else math.nan,
            )
        )
    return tuple(subsets)


def _cheap(subsets: Sequence[Subset]) -> Subset | None:
    """Return the cheapest subset whose agreement is near the best; of equal ones the better."""
    if not subsets or math.isnan(subsets[0].with_suite.tau):
        return None
    least = subsets[0].with_suite.tau - NEAR - 10.0**-DECIMALS
    near = [each for each in subsets if each.with_suite.tau >= least]
    return min(near, key=lambda each: (_or_most(each.core_hours), -each.with_suite.tau))


def _or_least(tau: float) -> float:
    return -2.0 if math.isnan(tau) else tau


def _or_most(hours: float) -> float:
    return math.inf if math.isnan(hours) else hours

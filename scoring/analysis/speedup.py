"""Speed-up over a reference submission, a companion of the score.

Other submissions cannot change it, unlike the score. It is the geometric mean over base workloads
of (the reference's median time / the submission's median time), as the AlgoPerf documentation
proposes under "Alternative scores". Held-out variants play no part.

Legend: R resamples, S submissions, W workloads, B base workloads.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from algoperf import errors
from algoperf.trial.plan import LATE
from scoring.analysis.leaderboard import Leaderboard
from scoring.analysis.pooled_model import fit
from scoring.analysis.statistics import (
    expectations,
    mean_of_known,
    percentiles,
    why_not_estimable,
)
from scoring.benchmarks.pools import Entry
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import Layout

Floats = NDArray[np.float64]

RESAMPLES = 4_000
# An expectation that this share of the draws does not have is not estimated.
MOST_UNKNOWN = 0.05
USUAL_REFERENCES = ("baseline", "nadamw")


@dataclasses.dataclass(frozen=True, eq=False)
class Speedups:
    """The speed-ups of all submissions over a reference submission; above 1 is faster.

    Attributes:
        reference: The label of the reference submission.
        mean_S: Array (S submissions,): the geometric mean over base workloads, without those that
            are NaN in `by_workload_SB`.
        interval: Array (S, 2): the ends of the 95 % interval of the mean; NaN where not estimable.
        by_workload_SB: Array (S, B base workloads) of ratios of times. A miss counts at the budget,
            or where trials of that side were late at the shortest clock of these; the ratio is NaN
            where both sides missed the target, where one did and no budget is known, where one took
            exactly 0 seconds and the other did not, and where no study of one is decided.
        censored_SB: For each ratio, '<=' where the submission missed (its time is at least the
            budget, so the ratio is an upper bound), '>=' where the reference missed, '' where
            neither did.
    """

    reference: str
    mean_S: Floats
    interval: Floats
    by_workload_SB: Floats
    censored_SB: tuple[tuple[str, ...], ...]

    def note(self, index: int) -> str:
        """Return a text about the workloads of a submission that were censored or left out.

        Args:
            index: The row of the submission, from 0.

        Returns:
            A text such as '1 missed by it, 1 left out'; '' where all workloads count in full.
        """
        marks = self.censored_SB[index]
        counts = (
            (marks.count("<="), "missed by it"),
            (marks.count(">="), f"missed by {self.reference}"),
            (int(np.isnan(self.by_workload_SB[index]).sum()), "left out"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def choose_reference(labels: list[str], given: str | None) -> str:
    """Return the label of the reference submission.

    Args:
        labels: The labels of the submissions, best first.
        given: The label that the user asked for. None takes the first of USUAL_REFERENCES that took
            part, else the best submission.

    Raises:
        UserError: `given` is none of the labels.
    """
    if given is None:
        return next((name for name in USUAL_REFERENCES if name in labels), labels[0])
    if given not in labels:
        raise errors.UserError(f"no submission {given!r} to refer to; one of: {', '.join(labels)}")
    return given


def speedups(board: Leaderboard, reference: str, *, seed: int = 0) -> Speedups:
    """Return the speed-ups of all entries over a reference entry.

    The interval is for the exponential of the expected log mean of another competition, and
    estimated as that of a score is (see `scoring.analysis.statistics`). It has the workloads that
    at least one side reaches in that competition.

    Args:
        board: The leaderboard.
        reference: The label of the reference entry.
        seed: The seed of the random draws.
    """
    index = board.labels.index(reference)
    budgets_s = {name: _budget_s(board, name) for name in board.benchmark.base_workloads}
    misses_SB = np.array(
        [
            [_miss_s(row.entry, name, budget_s) for name, budget_s in budgets_s.items()]
            for row in board.rows
        ]
    )
    medians_SB = scoring_rules.base_columns(
        scoring_rules.median_over_studies(board.times_SWN), board.layout
    )
    undecided_SB = np.array(
        [
            [row.cells[name].undecided for name in board.benchmark.base_workloads]
            for row in board.rows
        ],
        bool,
    )
    unknown_SB = undecided_SB | undecided_SB[index]
    logs_SB = _log_ratios(medians_SB, index, misses_SB)
    logs_SB[unknown_SB] = np.nan
    mean_S = mean_of_known(logs_SB, axis=-1)
    interval = np.full((len(mean_S), 2), np.nan)
    if not why_not_estimable(board.times_SWN, board.layout, "studies"):
        interval = log_interval(
            board.times_SWN,
            board.layout,
            index,
            misses_SB,
            unknown_SB,
            seed=seed,
            log_errors_SWN=board.log_errors_SWN,
        )
        interval = np.exp(interval)
        interval[np.isnan(mean_S)] = np.nan
    marks = tuple(
        tuple(
            _mark(own, of_reference, logs)
            for own, of_reference, logs in zip(row, medians_SB[index], log_row, strict=True)
        )
        for row, log_row in zip(medians_SB, logs_SB, strict=True)
    )
    return Speedups(reference, np.exp(mean_S), interval, np.exp(logs_SB), marks)


def _budget_s(board: Leaderboard, workload: str) -> float:
    """Return the largest budget of a workload's runs in seconds; NaN where no run has one."""
    budgets_s = [run.budget_s for run in board.pool.runs if run.workload == workload]
    return max((budget_s for budget_s in budgets_s if budget_s is not None), default=np.nan)


def _miss_s(entry: Entry, workload: str, budget_s: float) -> float:
    """Return the seconds at which an entry's miss of a workload counts: the budget, or where trials
    of the entry were late, the shortest clock of these; NaN where nothing is known.
    """
    own = [run for run in entry.runs if run.workload == workload and run.status == LATE]
    return min([*(run.clock_s for run in own if math.isfinite(run.clock_s)), budget_s])


def _log_ratios(times_SB: Floats, reference: int, misses_SB: Floats) -> Floats:
    """Return log(reference / own), where a miss counts at its limit; NaN where both missed.

    Equal times have the ratio 1, those of exactly 0 seconds too; no other time has a ratio to 0.
    """
    reached = np.isfinite(times_SB)
    missed = ~reached & ~reached[..., [reference], :]
    own = np.where(reached, times_SB, misses_SB)
    of_reference = own[..., [reference], :]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(own == of_reference, 0.0, np.log(of_reference) - np.log(own))
    return np.where(missed | ~np.isfinite(logs), np.nan, logs)


def log_means(
    medians_SW: Floats,
    layout: Layout,
    reference: int,
    misses_SB: Floats,
    unknown_SB: NDArray[np.bool_],
) -> Floats:
    """Return the logarithm of each submission's speed-up.

    Args:
        medians_SW: Array (..., S submissions, W workloads) of median times; inf is a miss.
        layout: The meaning of the columns.
        reference: The row of the reference submission.
        misses_SB: Array (S, B base workloads), or one that broadcasts to it, of seconds that a miss
            counts as; NaN for no budget.
        unknown_SB: Array (S, B): the workloads that are left out.

    Returns:
        Array (..., S); NaN where no workload has a ratio.
    """
    columns_SB = scoring_rules.base_columns(medians_SW, layout)
    logs_SB = _log_ratios(columns_SB, reference, misses_SB)
    return mean_of_known(np.where(unknown_SB, np.nan, logs_SB), axis=-1)


def log_interval(
    times_SWN: Floats,
    layout: Layout,
    reference: int,
    misses_SB: Floats,
    unknown_SB: NDArray[np.bool_],
    *,
    seed: int = 0,
    log_errors_SWN: Floats | None = None,
) -> Floats:
    """Return the 95 % interval of the expected logarithm of each speed-up.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times; inf is a miss.
        layout: The meaning of the columns.
        reference: The row of the reference submission.
        misses_SB: Array (S, B base workloads), or one that broadcasts to it, of seconds that a miss
            counts as; NaN for no budget.
        unknown_SB: Array (S, B): the workloads that are left out.
        seed: The seed of the random draws.
        log_errors_SWN: Array (S, W, N): what the distance between evaluations leaves open in each
            time (see `scoring.analysis.pooled_model.fit`).

    Returns:
        Array (S, 2) of the ends; NaN where too many fresh competitions have no ratio.
    """
    _, expected_PS = expectations(
        fit(times_SWN, log_errors_SWN),
        lambda medians_SW: log_means(medians_SW, layout, reference, misses_SB, unknown_SB),
        RESAMPLES,
        np.random.default_rng(seed),
    )
    return _ends(expected_PS)


def _ends(expected_PS: Floats) -> Floats:
    """Return the central 95 % of each column's known values; NaN where too many are not known."""
    ends = np.full((expected_PS.shape[1], 2), np.nan)
    for index, column_P in enumerate(expected_PS.T):
        known_P = column_P[~np.isnan(column_P)]
        if len(known_P) >= (1 - MOST_UNKNOWN) * len(column_P):
            ends[index] = percentiles(known_P[:, None])[0]
    return ends


def _mark(own: float, reference: float, log_ratio: float) -> str:
    if np.isnan(log_ratio) or (np.isfinite(own) and np.isfinite(reference)):
        return ""
    return ">=" if np.isfinite(own) else "<="

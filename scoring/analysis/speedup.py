"""Speed-up over a reference submission, a companion of the score.

Other submissions cannot change it, unlike the score. It is the geometric mean over base workloads
of (the reference's median time / the submission's median time), as the AlgoPerf documentation
proposes under "Alternative scores". Held-out variants play no part.

Legend: R resamples, S submissions, W workloads, B base workloads.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from algoperf import errors
from scoring.analysis.leaderboard import Leaderboard
from scoring.analysis.pooled_model import fit, t_quantile
from scoring.analysis.statistics import pooled_medians, why_not_estimable
from scoring.rules import rules as scoring_rules

Floats = NDArray[np.float64]

RESAMPLES = 2_000
USUAL_REFERENCES = ("baseline", "nadamw")


@dataclasses.dataclass(frozen=True, eq=False)
class Speedups:
    """The speed-ups of all submissions over a reference submission; above 1 is faster.

    Attributes:
        reference: The label of the reference submission.
        mean_S: Array (S submissions,): the geometric mean over base workloads, without those that
            are NaN in `by_workload_SB`.
        interval: Array (S, 2): the ends of the 95 % interval of the mean; NaN where not estimable.
        by_workload_SB: Array (S, B base workloads) of ratios of times. A miss counts at the budget;
            the ratio is NaN where both sides missed the target, where one did and no budget is
            known, where one took exactly 0 seconds and the other did not, and where no study of
            one is decided.
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

    The interval is exp(log mean +- t standard deviations) over fresh competitions drawn from the
    pooled model (see `scoring.analysis.statistics`).

    Args:
        board: The leaderboard.
        reference: The label of the reference entry.
        seed: The seed of the random draws.
    """
    index = board.labels.index(reference)
    budgets_B = np.array([_budget_s(board, name) for name in board.benchmark.base_workloads])
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
    logs_SB = _log_ratios(medians_SB, medians_SB[index], budgets_B)
    logs_SB[unknown_SB] = np.nan
    mean_S = _mean(logs_SB)
    interval = np.full((len(mean_S), 2), np.nan)
    if not why_not_estimable(board.times_SWN, board.layout, "studies"):
        model = fit(board.times_SWN, board.log_errors_SWN)
        drawn_RSW = pooled_medians(model, RESAMPLES, np.random.default_rng(seed))
        drawn_RSB = scoring_rules.base_columns(drawn_RSW, board.layout)
        drawn_logs_RSB = _log_ratios(drawn_RSB, drawn_RSB[:, index, None], budgets_B)
        drawn_RS = _mean(np.where(unknown_SB, np.nan, drawn_logs_RSB))
        spread_S = _spread(drawn_RS)
        half_S1 = t_quantile(model.freedom) * spread_S[:, None]
        interval = np.exp(mean_S[:, None] + half_S1 * [-1, 1])
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


def _log_ratios(own: Floats, reference: Floats, budgets_B: Floats) -> Floats:
    """Return log(reference / own), where a miss counts at the budget; NaN where both missed.

    Equal times have the ratio 1, those of exactly 0 seconds too; no other time has a ratio to 0.
    """
    missed = ~np.isfinite(own) & ~np.isfinite(reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(np.isfinite(own), own, budgets_B)
        reference = np.where(np.isfinite(reference), reference, budgets_B)
        logs = np.where(own == reference, 0.0, np.log(reference) - np.log(own))
    return np.where(missed | ~np.isfinite(logs), np.nan, logs)


def _mean(logs: Floats) -> Floats:
    """Return the mean over the last axis of the values that are not NaN; NaN where all are."""
    known = ~np.isnan(logs)
    count = known.sum(axis=-1)
    total = np.where(known, logs, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _spread(values_RS: Floats) -> Floats:
    """Return the standard deviation over resamples, (S,), leaving out NaN.

    A resample is NaN where no workload could be compared.
    """
    mean_S = _mean(values_RS.T)
    squares_RS = (values_RS - mean_S) ** 2
    count_S = (~np.isnan(values_RS)).sum(axis=0)
    variance_S = np.nansum(squares_RS, axis=0) / np.maximum(count_S - 1, 1)
    return np.where(count_S > 1, np.sqrt(variance_S), np.nan)


def _mark(own: float, reference: float, log_ratio: float) -> str:
    if np.isnan(log_ratio) or (np.isfinite(own) and np.isfinite(reference)):
        return ""
    return ">=" if np.isfinite(own) else "<="

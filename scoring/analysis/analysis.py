"""The statistics of one leaderboard beside its scores, computed once for all outputs.

Legend: R resamples, S submissions, B base workloads, T values of tau.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scoring.analysis import sensitivity
from scoring.analysis.bounds import ScoreBounds
from scoring.analysis.costs import Cost, by_workload, costs
from scoring.analysis.fragility import Fragility, fragility
from scoring.analysis.leaderboard import Leaderboard
from scoring.analysis.pooled_model import fit
from scoring.analysis.restated import Restated
from scoring.analysis.robustness import Robustness, robustness
from scoring.analysis.sensitivity import TargetSweep
from scoring.analysis.speedup import Speedups, choose_reference, speedups
from scoring.analysis.statistics import OVER, Bootstrap, bootstrap, percentiles, pooled_medians
from scoring.analysis.step_times import StepTimes, step_times
from scoring.analysis.workload_agreement import WorkloadAgreement, workload_agreement
from scoring.rules import profiles
from scoring.rules import rules as scoring_rules

Floats = NDArray[np.float64]

BAND_TAUS = np.linspace(1.0, profiles.TAU_MAX, 61)
BAND_RESAMPLES = 1_000
BAND_CHUNK = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """The statistics that the screen shows beside the scores of a leaderboard.

    Attributes:
        board: The leaderboard.
        studies: Intervals of scores and ranks, resampled over studies.
        speedups: Speed-ups over the reference submission.
        robustness: Slow-downs on held-out variants.
        steps: What times are made of: steps, the framework's step and the algorithm's own factor.
        costs: What each entry took on each workload.
        agreement: Which workloads tell the order; None where there are too few to say.
        bounds: What scores and places can still become; None where that is not asked for.
        restated: Estimates of the times in another hardware class; None likewise, and where there
            is nothing to estimate by.
    """

    board: Leaderboard
    studies: Bootstrap
    speedups: Speedups
    robustness: Robustness
    steps: StepTimes
    costs: tuple[Cost, ...]
    agreement: WorkloadAgreement | None
    bounds: ScoreBounds | None = dataclasses.field(default=None, kw_only=True)
    restated: Restated | None = dataclasses.field(default=None, kw_only=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis(Summary):
    """The statistics that the files and the page show, in addition to those of the screen.

    Attributes:
        resampled: Intervals of scores and ranks, by what is resampled: 'studies', 'workloads',
            'both'.
        band_TS2: Array (T values of BAND_TAUS, S submissions, 2): the lower and upper share between
            which the performance profiles of 95 % of fresh competitions lie; NaN where not
            estimable.
        without_workload: For each base workload, the scores (S,) without it and its variants.
        without_submission_SS: Scores of the column's submission without the row's submission (see
            `scoring.analysis.sensitivity`).
        aggregations: The scores (S,) by 'median', 'mean' and 'best' over studies.
        trials_KS: Array (K, S): expected scores when each study keeps 1 to K of its trials (see
            `scoring.analysis.sensitivity`).
        targets: The scores at easier and harder targets.
        fragility: How little would have changed the order.
    """

    resampled: Mapping[str, Bootstrap]
    band_TS2: Floats
    without_workload: Mapping[str, Floats]
    without_submission_SS: Floats
    aggregations: Mapping[str, Floats]
    trials_KS: Floats
    targets: TargetSweep
    fragility: Fragility


def summarise(
    board: Leaderboard,
    *,
    reference: str | None = None,
    method: str = "pooled",
    resamples: int,
    seed: int = 0,
    bounds: ScoreBounds | None = None,
    restated: Restated | None = None,
) -> Summary:
    """Compute the intervals over studies, the speed-ups and the robustness of a leaderboard.

    Args:
        board: The leaderboard.
        reference: The label of the submission that speed-ups are relative to; None chooses one.
        method: The method of the intervals, 'pooled' or 'percentile'.
        resamples: The number of competitions to draw.
        seed: The seed of the random draws.
        bounds: What scores and places can still become, if that is to be shown.
        restated: Estimates of the times in another hardware class, likewise.

    Raises:
        UserError: The reference or the method is unknown.
    """
    studies = bootstrap(
        board.times_SWN,
        board.layout,
        board.rules,
        method=method,
        resamples=resamples,
        seed=seed,
        log_errors_SWN=board.log_errors_SWN,
    )
    chosen = choose_reference(board.labels, reference)
    of_reference = speedups(board, chosen, seed=seed)
    spent = costs(board)
    return Summary(
        board,
        studies,
        of_reference,
        robustness(board),
        step_times(board),
        spent,
        workload_agreement(board, by_workload(spent), studies, seed=seed),
        bounds=bounds,
        restated=restated,
    )


def analyse(summary: Summary, *, resamples: int, seed: int = 0) -> Analysis:
    """Compute all remaining statistics of a leaderboard, on top of its summary.

    Args:
        summary: The result of `summarise`.
        resamples: The number of competitions to draw for intervals.
        seed: The seed of the random draws.
    """
    board = summary.board
    others = {
        over: bootstrap(
            board.times_SWN, board.layout, board.rules, over=over, resamples=resamples, seed=seed
        )
        for over in OVER[1:]
    }
    return Analysis(
        board,
        summary.studies,
        summary.speedups,
        summary.robustness,
        summary.steps,
        summary.costs,
        summary.agreement,
        {OVER[0]: summary.studies, **others},
        profile_bands(board, estimable=not summary.studies.not_estimable, seed=seed),
        sensitivity.leave_one_workload_out(board),
        sensitivity.leave_one_submission_out(board),
        sensitivity.aggregations(board),
        sensitivity.trials_needed(board, seed=seed),
        sensitivity.target_sweep(board),
        fragility(board),
        bounds=summary.bounds,
        restated=summary.restated,
    )


def profile_bands(board: Leaderboard, *, estimable: bool, seed: int = 0) -> Floats:
    """Return 95 % bands of the performance profiles.

    The bands come from fresh competitions that are drawn from the pooled model of studies.

    Args:
        board: The leaderboard.
        estimable: Whether its studies allow an estimate; otherwise the bands are NaN.
        seed: The seed of the random draws.

    Returns:
        Array (T values of BAND_TAUS, S submissions, 2): the lower and upper share of workloads.
    """
    if not estimable:
        return np.full((len(BAND_TAUS), len(board.rows), 2), np.nan)
    model, generator = fit(board.times_SWN, board.log_errors_SWN), np.random.default_rng(seed)
    profiles_RST = []
    for _ in range(0, BAND_RESAMPLES, BAND_CHUNK):
        medians_RSW = pooled_medians(model, BAND_CHUNK, generator)
        ratios_RSB = scoring_rules.credited_ratios(medians_RSW, board.layout, board.rules)
        profiles_RST.append(profiles.performance_profile(ratios_RSB, BAND_TAUS))
    every = np.concatenate(profiles_RST)
    flat = percentiles(every.reshape(len(every), -1), discrete=True)  # The shape is (S * T, 2).
    return np.moveaxis(flat.reshape(*every.shape[1:], 2), 1, 0)

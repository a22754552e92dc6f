"""Everything that is said about one leaderboard beside its scores, made once for all outputs.

Legend: R resamples, S submissions, B base workloads, T values of tau.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scoring.analysis import sensitivity
from scoring.analysis.leaderboard import Leaderboard
from scoring.analysis.pooled_model import fit
from scoring.analysis.robustness import Robustness, robustness
from scoring.analysis.sensitivity import TargetSweep
from scoring.analysis.speedup import Speedups, choose_reference, speedups
from scoring.analysis.statistics import OVER, Bootstrap, bootstrap, percentiles, pooled_medians
from scoring.rules import profiles
from scoring.rules import rules as scoring_rules

Floats = NDArray[np.float64]

BAND_TAUS = np.linspace(1.0, profiles.TAU_MAX, 61)
BAND_RESAMPLES = 1_000
BAND_CHUNK = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """What the screen shows: intervals over studies, speed-ups over the reference, robustness."""

    board: Leaderboard
    studies: Bootstrap
    speedups: Speedups
    robustness: Robustness


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis(Summary):
    """What the files and the page show beside.

    `band_TS2`: between which shares 95 % of fresh competitions' profiles lie at BAND_TAUS, (T, S,
    2), NaN where not estimable. `trials_KS`, `without_submission_SS`: see
    `scoring.analysis.sensitivity`.
    """

    resampled: Mapping[str, Bootstrap]
    band_TS2: Floats
    without_workload: Mapping[str, Floats]
    without_submission_SS: Floats
    aggregations: Mapping[str, Floats]
    trials_KS: Floats
    targets: TargetSweep


def summarise(
    board: Leaderboard,
    *,
    reference: str | None = None,
    method: str = "pooled",
    resamples: int,
    seed: int = 0,
) -> Summary:
    """Intervals, speed-ups and robustness. Raises UserError for an unknown reference or method."""
    studies = bootstrap(
        board.times_SWN, board.layout, board.rules, method=method, resamples=resamples, seed=seed
    )
    chosen = choose_reference(board.labels, reference)
    return Summary(board, studies, speedups(board, chosen, seed=seed), robustness(board))


def analyse(summary: Summary, *, resamples: int, seed: int = 0) -> Analysis:
    """Everything else, on top of a summary."""
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
        {OVER[0]: summary.studies, **others},
        profile_bands(board, estimable=not summary.studies.not_estimable, seed=seed),
        sensitivity.leave_one_workload_out(board),
        sensitivity.leave_one_submission_out(board),
        sensitivity.aggregations(board),
        sensitivity.trials_needed(board, seed=seed),
        sensitivity.target_sweep(board),
    )


def profile_bands(board: Leaderboard, *, estimable: bool, seed: int = 0) -> Floats:
    """Between which shares 95 % of the profiles of fresh competitions lie, (T, S, 2)."""
    if not estimable:
        return np.full((len(BAND_TAUS), len(board.rows), 2), np.nan)
    model, generator = fit(board.times_SWN), np.random.default_rng(seed)
    profiles_RST = []
    for _ in range(0, BAND_RESAMPLES, BAND_CHUNK):
        medians_RSW = pooled_medians(model, BAND_CHUNK, generator)
        ratios_RSB = scoring_rules.credited_ratios(medians_RSW, board.layout, board.rules)
        profiles_RST.append(profiles.performance_profile(ratios_RSB, BAND_TAUS))
    every = np.concatenate(profiles_RST)
    flat = percentiles(every.reshape(len(every), -1), discrete=True)  # (S * T, 2)
    return np.moveaxis(flat.reshape(*every.shape[1:], 2), 1, 0)

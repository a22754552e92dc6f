"""How far the scores depend on choices of the benchmark: pool, target, trials and aggregation.

Legend: C changes of the targets, S submissions, W workloads, B base workloads, N studies, K trials
of a study.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.leaderboard import Leaderboard
from scoring.reading.evaluations import TIME_COLUMN
from scoring.reading.trials import Target, TrialRun
from scoring.rules import population
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import Layout, Rules
from scoring.rules.time_to_target import (
    EARLY,
    StudyResult,
    crossing_of,
    is_readable,
    may_reach,
    study_results,
    time_to_target,
    times_of,
)

Floats = NDArray[np.float64]

# Targets are changed by these shares of their value; a negative change makes a target easier.
TARGET_CHANGES = (-0.05, -0.02, -0.01, -0.005, -0.002, 0.0, 0.002, 0.005, 0.01)
TRIAL_DRAWS = 200


def leave_one_workload_out(board: Leaderboard) -> Mapping[str, Floats]:
    """Return the scores that result when one base workload and its variants are left out.

    Returns:
        For each base workload, an array (S submissions,) of scores. Empty if there is only one.
    """
    return {
        name: scoring_rules.scores(board.times_SWN, without_base(board.layout, column), board.rules)
        for column, name in enumerate(board.benchmark.base_workloads)
        if len(board.layout.base) > 1
    }


def without_base(layout: Layout, removed: int) -> Layout:
    """Return a layout without one of its base workloads and the variants of that workload.

    Args:
        layout: The layout.
        removed: The index in `layout.base` of the base workload to remove.
    """
    base = (*layout.base[:removed], *layout.base[removed + 1 :])
    variants = tuple(
        (column, base_index - (base_index > removed))
        for column, base_index in layout.variants
        if base_index != removed
    )
    return dataclasses.replace(layout, base=base, variants=variants)


def leave_one_submission_out(board: Leaderboard) -> Floats:
    """Return the scores that result when one submission is left out.

    Scores are relative to the fastest submission, so they change when a submission leaves.

    Returns:
        Array (S, S): the score of the column's submission without the row's submission; NaN on the
        diagonal.
    """
    count = len(board.rows)
    table = np.full((count, count), np.nan)
    for index in range(count):
        others = [other for other in range(count) if other != index]
        table[index, others] = scoring_rules.scores(
            board.times_SWN[others], board.layout, board.rules
        )
    return table


def aggregations(board: Leaderboard) -> Mapping[str, Floats]:
    """Return the scores by three ways to aggregate the times of studies.

    Returns:
        Arrays (S submissions,) of scores by 'median', 'mean' and 'best' time over studies.
    """

    def over(reduce: Callable[[Floats], Floats]) -> Floats:
        present = ~np.isnan(board.times_SWN)
        reduced_SW = np.where(present.any(axis=-1), reduce(board.times_SWN), np.nan)
        ratios_SB = scoring_rules.credited_ratios(reduced_SW, board.layout, board.rules)
        return scoring_rules.mean_credit(ratios_SB, board.rules)

    def mean(times_SWN: Floats) -> Floats:
        count_SW = np.maximum((~np.isnan(times_SWN)).sum(axis=-1), 1)
        return np.asarray(np.where(np.isnan(times_SWN), 0.0, times_SWN).sum(axis=-1) / count_SW)

    def best(times_SWN: Floats) -> Floats:
        absent_last = np.where(np.isnan(times_SWN), np.inf, times_SWN)
        return np.asarray(absent_last.min(axis=-1, initial=np.inf))

    return {
        "median": over(scoring_rules.median_over_studies),
        "mean": over(mean),
        "best": over(best),
    }


def trials_needed(board: Leaderboard, draws: int = TRIAL_DRAWS, seed: int = 0) -> Floats:
    """Return the expected score of each submission when studies keep only k of their trials.

    Args:
        board: The leaderboard.
        draws: The number of random orders of the trials to average over.
        seed: The seed of the random draws.

    Returns:
        Array (K, S submissions), where row k - 1 is for k trials and K is the largest number of
        trials of any study. A study with fewer trials keeps all of its trials, so the last row is
        the score itself.
    """
    times_SWNK, studies_SWN = trial_times(board)
    generator = np.random.default_rng(seed)
    # Absent trials go last, so that k counts only trials that were run.
    order = generator.random((draws, *times_SWNK.shape)) + 2.0 * np.isnan(times_SWNK)
    present = np.where(np.isnan(times_SWNK), np.inf, times_SWNK)
    shuffled = np.take_along_axis(present[None], order.argsort(axis=-1), axis=-1)
    best = np.minimum.accumulate(shuffled, axis=-1)
    best = np.where(studies_SWN[..., None], best, np.nan)
    scores_KRS = scoring_rules.scores(np.moveaxis(best, -1, 0), board.layout, board.rules)
    return np.asarray(scores_KRS.mean(axis=1), np.float64)


def trial_times(board: Leaderboard) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the time to target of each single trial.

    Returns:
        Array (S submissions, W workloads, N studies, K trials) of times in seconds, inf where the
        target was missed, NaN where there is no trial; and a boolean array (S, W, N): which studies
        count.
    """
    lists = [
        [
            [
                _times_of_trials(row.entry.runs, name, result, board.rules)
                for result in row.cells[name].studies
            ]
            for name in board.layout.workloads
        ]
        for row in board.rows
    ]
    most = max((len(trials) for cells in lists for cell in cells for trials in cell), default=1)
    times_SWNK = np.full((*board.times_SWN.shape, max(1, most)), np.nan)
    for s, cells in enumerate(lists):
        for w, cell in enumerate(cells):
            for n, trials in enumerate(cell):
                times_SWNK[s, w, n, : len(trials)] = trials
    return times_SWNK, ~np.isnan(board.times_SWN)


def _times_of_trials(
    runs: Sequence[TrialRun], workload: str, result: StudyResult, rules: Rules
) -> list[float]:
    """Return the time of each trial of a study; the study's alone where they are a population."""
    of_study = [run for run in runs if _is_of(run, workload, result.study)]
    if any(map(population.is_member, of_study)):
        return [result.time_s]
    return [crossing_of(run, rules).time_s for run in of_study]


def _is_of(run: TrialRun, workload: str, study: int) -> bool:
    return run.workload == workload and run.study == study and is_readable(run)


@dataclasses.dataclass(frozen=True, eq=False)
class TargetSweep:
    """The scores at changed targets.

    Attributes:
        changes: The changes C, as shares of the target's value; negative changes are easier.
        scores_CS: Array (C changes, S submissions) of scores.
        unknown: For each change, the number of trials that stopped, at their own target or early,
            before they could show whether they reach the changed target. They count as missed.
    """

    changes: tuple[float, ...]
    scores_CS: Floats
    unknown: tuple[int, ...]


def target_sweep(board: Leaderboard, changes: tuple[float, ...] = TARGET_CHANGES) -> TargetSweep:
    """Score the logged evaluations against easier and harder targets.

    Args:
        board: The leaderboard.
        changes: The changes, as shares of the target's value; negative changes are easier.
    """
    times_CSWN, unknown = (
        _sweep_one_by_one(board, changes) if board.rules.interpolates else _sweep(board, changes)
    )
    scores_CS = scoring_rules.scores(times_CSWN, board.layout, board.rules)
    return TargetSweep(tuple(changes), scores_CS, unknown)


def _sweep(board: Leaderboard, changes: tuple[float, ...]) -> tuple[Floats, tuple[int, ...]]:
    """Return times (C, S, W, N) at changed targets, and how many trials are unknown at each.

    A trial's best value so far never falls, so all targets are looked up in it at once.
    """
    rules = board.rules
    times_CSWN = np.full((len(changes), *board.times_SWN.shape), np.nan)
    unknown_C = np.zeros(len(changes), np.int64)
    of_study: dict[tuple[int, str, int], list[TrialRun]] = {}
    for s, row in enumerate(board.rows):
        for run in row.entry.runs:
            if run.target is not None:
                of_study.setdefault((s, run.workload, run.study), []).append(run)
    for s, row in enumerate(board.rows):
        for w, name in enumerate(board.layout.workloads):
            for n, result in enumerate(row.cells[name].studies):
                runs = of_study.get((s, name, result.study), [])
                hits = [_hits(run, changes, budgets=rules.budgets) for run in runs]
                for run, (times_C, _) in zip(runs, hits, strict=True):
                    if not rules.budgets:
                        times_C, _ = _hits(run, changes, budgets=True)
                    if _stopped_short(run):
                        unknown_C += ~np.isfinite(times_C)
                if not any(is_readable(run) for run in runs):
                    is_out = rules.absent_is_missed and not any(map(may_reach, runs))
                    times_CSWN[:, s, w, n] = np.inf if is_out else np.nan
                    continue
                times_CSWN[:, s, w, n] = _earliest(hits, rules.earliest)
                if any(map(may_reach, runs)):
                    missed_C = np.isinf(times_CSWN[:, s, w, n])
                    times_CSWN[missed_C, s, w, n] = np.nan
    unknown = zip(changes, unknown_C.tolist(), strict=True)
    return times_CSWN, tuple(count if change > 0 else 0 for change, count in unknown)


def _earliest(hits: Sequence[tuple[Floats, Floats]], by: str) -> Floats:
    """Return the time of the trial that stands for its study, at each changed target."""
    times_KC, evaluations_KC = (np.stack(each) for each in zip(*hits, strict=True))
    if by == "evaluation":
        first_C = evaluations_KC.min(axis=0)
        times_KC = np.where(evaluations_KC == first_C, times_KC, np.inf)
    return np.asarray(times_KC.min(axis=0), np.float64)


def _hits(run: TrialRun, changes: Sequence[float], *, budgets: bool) -> tuple[Floats, Floats]:
    """Return time and number of the first evaluation that meets each changed target, inf if none.

    It does what `time_to_target` does for a single target.
    """
    target = run.target
    never_C = np.full(len(changes), np.inf)
    if target is None or target.validation is None or not is_readable(run):
        return never_C, never_C
    sign = 1.0 if target.higher_is_better else -1.0
    time_s, value = run.rows[TIME_COLUMN], sign * run.rows[target.column]
    counts = np.isfinite(value) & np.isfinite(time_s) & (time_s >= 0)
    if budgets and run.budget_s is not None:
        counts &= time_s <= run.budget_s
    best = np.maximum.accumulate(np.where(counts, value, -np.inf))
    goals_C = target.validation + sign * np.asarray(changes) * abs(target.validation)
    index_C = np.searchsorted(best, sign * goals_C)
    is_met_C = index_C < len(best)
    times_C, evaluations_C = never_C.copy(), never_C.copy()
    times_C[is_met_C] = time_s[index_C[is_met_C]]
    evaluations_C[is_met_C] = index_C[is_met_C]
    return times_C, evaluations_C


def _sweep_one_by_one(
    board: Leaderboard, changes: tuple[float, ...]
) -> tuple[Floats, tuple[int, ...]]:
    """Return what `_sweep` does, target by target; rules that interpolate need it."""
    every, unknown = [], []
    for change in changes:
        times: list[list[Sequence[StudyResult]]] = []
        stopped = 0
        for row in board.rows:
            times.append([])
            for name in board.layout.workloads:
                runs = [
                    dataclasses.replace(run, target=_changed(run.target, change))
                    for run in row.entry.runs
                    if run.workload == name and run.target is not None
                ]
                results = study_results(
                    runs, [result.study for result in row.cells[name].studies], board.rules
                )
                times[-1].append(results)
                if change > 0:
                    stopped += sum(_is_unknown(run) for run in runs)
        every.append(times_of(times, board.rules))
        unknown.append(stopped)
    return np.array(every), tuple(unknown)


def _changed(target: Target | None, change: float) -> Target | None:
    """Return a target made harder by a share of its value, or easier if that is negative."""
    if target is None or target.validation is None:
        return target
    sign = 1 if target.higher_is_better else -1
    return dataclasses.replace(
        target, validation=target.validation + sign * change * abs(target.validation)
    )


def _is_unknown(run: TrialRun) -> bool:
    """Return whether a trial missed its target and stopped before nine tenths of its budget."""
    if run.target is None or not _stopped_short(run):
        return False
    return not time_to_target(run.rows, run.target, run.budget_s).reached


def _stopped_short(run: TrialRun) -> bool:
    """Return whether a trial stopped before nine tenths of its budget."""
    if run.target is None or not is_readable(run) or not len(run.rows[TIME_COLUMN]):
        return False
    return run.budget_s is None or bool(run.rows[TIME_COLUMN][-1] < EARLY * run.budget_s)

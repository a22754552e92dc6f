"""From the rows of a trial to the time at which it met its target, and from trials to studies.

The clock is `accumulated_submission_time`; steps are those of the same evaluation, so that a time
and its steps always belong to one run.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from scoring.evaluations import STEP_COLUMN, TIME_COLUMN, Rows
from scoring.runs import Target, TrialRun

REACHED = "reached"
MISSING = "missing"
# Why a study missed its target; the first that holds for one of its trials is told.
REASONS = ("budget", "not reached", "diverged", "failed")


@dataclasses.dataclass(frozen=True)
class Miss:
    """An evaluation that did not meet the target."""

    time_s: float
    step: float


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where a trial met its target; infinite time and steps, and no evaluation, where it did not.

    `evaluation` counts rows from 0. `last_miss` is the evaluation before the crossing (without one,
    the last evaluation of all), so that the true crossing lies between the two.
    """

    time_s: float
    step: float
    evaluation: int | None
    last_miss: Miss | None

    @property
    def reached(self) -> bool:
        """Whether the target was met."""
        return self.evaluation is not None


NEVER = Crossing(math.inf, math.inf, None, None)


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """The trial of a study that met the target first; `trial` is None where none did.

    `outcome` is 'reached', 'missing' (no trial of this study) or one of REASONS.
    """

    study: int
    trial: int | None
    crossing: Crossing
    outcome: str


def time_to_target(rows: Rows, target: Target, budget_s: float | None = None) -> Crossing:
    """The earliest evaluation that meets the target within the budget (None: no limit).

    A value that is not finite never meets a target.
    """
    if target.validation is None or TIME_COLUMN not in rows or target.column not in rows:
        return NEVER
    time_s, value = rows[TIME_COLUMN], rows[target.column]
    step = rows.get(STEP_COLUMN, np.full(len(time_s), math.nan))
    met = value >= target.validation if target.higher_is_better else value <= target.validation
    met &= np.isfinite(value) & np.isfinite(time_s)
    if budget_s is not None:
        met &= time_s <= budget_s
    hit = int(np.argmax(met)) if met.any() else None
    before = (len(time_s) if hit is None else hit) - 1
    last_miss = Miss(float(time_s[before]), float(step[before])) if before >= 0 else None
    if hit is None:
        return dataclasses.replace(NEVER, last_miss=last_miss)
    return Crossing(float(time_s[hit]), float(step[hit]), hit, last_miss)


def why_not(run: TrialRun) -> str:
    """Which of REASONS describes a trial that did not reach its target in budget."""
    if run.status in ("diverged", "failed"):
        return run.status
    late = run.target is not None and time_to_target(run.rows, run.target).reached
    return "budget" if late or run.status == "budget" else "not reached"


def study_result(study: int, trials: Iterable[TrialRun]) -> StudyResult:
    """The earliest crossing of a study's trials (equal times: the lower trial number)."""
    crossings = [
        (run, time_to_target(run.rows, run.target, run.budget_s))
        for run in trials
        if run.target is not None
    ]
    if not crossings:
        return StudyResult(study, None, NEVER, MISSING)
    run, first = min(crossings, key=lambda pair: (pair[1].time_s, pair[0].trial))
    if first.reached:
        return StudyResult(study, run.trial, first, REACHED)
    reasons = {why_not(run): crossing for run, crossing in reversed(crossings)}
    reason = min(reasons, key=REASONS.index)
    return StudyResult(study, None, reasons[reason], reason)


def study_results(trials: Sequence[TrialRun], studies: Iterable[int]) -> tuple[StudyResult, ...]:
    """One result for each expected study of one submission and workload, by study number."""
    return tuple(
        study_result(study, [run for run in trials if run.study == study])
        for study in sorted(studies)
    )


def median_time_s(results: Iterable[StudyResult]) -> float:
    """The median over studies of the time to target; a study that missed it counts as infinite."""
    return statistics.median(result.crossing.time_s for result in results)


def median_steps(results: Iterable[StudyResult]) -> float:
    """The median over studies of the steps to target, of the trials that gave the times."""
    return statistics.median(result.crossing.step for result in results)

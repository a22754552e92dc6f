"""From the rows of a trial to the time at which it met its target, and from trials to studies.

The clock is `accumulated_submission_time`; steps are those of the same evaluation, so that a time
and its steps always belong to one run.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN, Rows
from scoring.reading.trials import Target, TrialRun
from scoring.rules.rules import Rules

REACHED = "reached"
MISSING = "missing"
# Why a study missed its target; the first that holds for one of its trials is told.
REASONS = ("budget", "not reached", "ended early", "diverged", "failed")
EARLY = 0.9  # of the budget: a trial that stopped before it, short of its target, ended early


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

    `outcome` is 'reached', 'missing' (no readable trial of this study) or one of REASONS. `absent`
    says that no trial of it could be read, whatever its outcome.
    """

    study: int
    trial: int | None
    crossing: Crossing
    outcome: str
    absent: bool = False

    @property
    def time_s(self) -> float:
        """Seconds to the target, inf where it was missed, NaN where no trial could be read."""
        return math.nan if self.absent else self.crossing.time_s

    @property
    def step(self) -> float:
        """Steps to the target, of the trial that gave the time; inf and NaN as in `time_s`."""
        return math.nan if self.absent else self.crossing.step


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
    if late or run.status == "budget":
        return "budget"
    return "ended early" if run.status is None and ended_early(run) else "not reached"


def ended_early(run: TrialRun) -> bool:
    """Whether the last evaluation came before nine tenths of the budget."""
    times_s = run.rows.get(TIME_COLUMN, np.empty(0))
    return run.budget_s is not None and bool(len(times_s)) and times_s[-1] < EARLY * run.budget_s


def is_readable(run: TrialRun) -> bool:
    """Whether a trial has an evaluation of the metric that decides."""
    return run.target is not None and {TIME_COLUMN, run.target.column} <= run.rows.keys()


def study_result(study: int, trials: Iterable[TrialRun], rules: Rules) -> StudyResult:
    """The trial of a study that the rules choose, and where it met the target.

    by-the-rules: the earliest time (equal times: the lower trial number). as-published: the
    earliest evaluation (equal ones: the smallest time).
    """
    runs = [run for run in trials if run.target is not None]
    crossings = [
        (run, time_to_target(run.rows, run.target, run.budget_s if rules.budgets else None))
        for run in runs
        if is_readable(run) and run.target is not None
    ]
    if not crossings:
        outcomes = [why_not(run) for run in runs if run.status in ("diverged", "failed")]
        return StudyResult(
            study, None, NEVER, min(outcomes, key=REASONS.index, default=MISSING), True
        )
    run, first = min(crossings, key=lambda pair: _order(pair[1], pair[0].trial, rules))
    if first.reached:
        return StudyResult(study, run.trial, first, REACHED)
    reasons = {why_not(run): crossing for run, crossing in reversed(crossings)}
    reason = min(reasons, key=REASONS.index)
    return StudyResult(study, None, reasons[reason], reason)


def _order(crossing: Crossing, trial: int, rules: Rules) -> tuple[float, float, int]:
    evaluation = math.inf if crossing.evaluation is None else crossing.evaluation
    return (
        evaluation if rules.earliest == "evaluation" else crossing.time_s,
        crossing.time_s,
        trial,
    )


def study_results(
    trials: Sequence[TrialRun], studies: Iterable[int], rules: Rules
) -> tuple[StudyResult, ...]:
    """One result for each expected study of one submission and workload, by study number."""
    return tuple(
        study_result(study, [run for run in trials if run.study == study], rules)
        for study in sorted(studies)
    )

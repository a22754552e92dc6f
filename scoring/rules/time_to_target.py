"""From the evaluations of a trial to its time to target, and from trials to studies.

The clock is the column `accumulated_submission_time`, in seconds. Steps are taken from the same
evaluations as the time, so that both always belong to the same trial.

A trial is evaluated now and then, so the target is met somewhere between the last evaluation that
missed it and the first that met it. Rules that interpolate take the point on the straight line
between the two at which the metric equals the target (of its logarithm, where the metric falls to a
positive target: losses and perplexities fall by ever smaller amounts). Where a few of the rows were
probed in between, the line goes by the probes, corrected so that it ends at the two evaluations.
The result never leaves the bracket, and a submission cannot gain by evaluating badly before it
evaluates well: the lower the miss, the closer the crossing is to the hit.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from algoperf.trial.plan import LATE
from algoperf.workload.crossing import Point, crossing
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN, Rows
from scoring.reading.trials import CONTENDED, INTERRUPTED, RUNNING, Target, TrialRun
from scoring.rules import population
from scoring.rules.rules import Floats, Rules, study_array

REACHED = "reached"
MISSING = "missing"
# These are the reasons why a study may miss its target. The first one that holds for a trial of the
# study is reported.
REASONS = ("budget", "not reached", LATE, "ended early", "diverged", "failed")
# A trial ended early if it stopped, short of its target, before this share of its budget.
EARLY = 0.9


@dataclasses.dataclass(frozen=True)
class Miss:
    """An evaluation that did not meet the target: its submission time in seconds, and its step."""

    time_s: float
    step: float


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where a trial first met its target, and the evaluations around that.

    Attributes:
        time_s: Submission time in seconds; inf where the target was never met.
        step: The training step; inf where the target was never met. It is no whole number where it
            was interpolated.
        evaluation: The index of the first evaluation that met the target, counted from 0; None
            where the target was never met.
        last_miss: The evaluation just before, so that the true crossing lies between the two. Where
            the target was never met it is the trial's last evaluation. None where there is no such
            evaluation.
        hit_time_s: Submission time in seconds of the evaluation that met the target; inf where the
            target was never met. It differs from `time_s` where that was interpolated.
        low_time_s: The submission time from which on the time was interpolated: that of the last
            miss, or of a later probe.
        high_time_s: The submission time up to which it was; NaN, both, where it was not.
        hit_step: The training step of that evaluation; inf likewise.
    """

    time_s: float
    step: float
    evaluation: int | None
    last_miss: Miss | None
    hit_time_s: float = math.inf
    hit_step: float = math.inf
    low_time_s: float = math.nan
    high_time_s: float = math.nan

    @property
    def reached(self) -> bool:
        """Whether the target was met."""
        return self.evaluation is not None

    def after(self, time_s: float, step: float) -> "Crossing":
        """Return the crossing as it is where so many seconds and steps of others come before."""
        miss = self.last_miss
        return dataclasses.replace(
            self,
            time_s=self.time_s + time_s,
            step=self.step + step,
            last_miss=None if miss is None else Miss(miss.time_s + time_s, miss.step + step),
            hit_time_s=self.hit_time_s + time_s,
            hit_step=self.hit_step + step,
            low_time_s=self.low_time_s + time_s,
            high_time_s=self.high_time_s + time_s,
        )

    @property
    def interpolated(self) -> bool:
        """Whether the time lies before the evaluation that met the target."""
        return self.time_s < self.hit_time_s

    @property
    def log_error(self) -> float:
        """Standard deviation of the error that the bracket leaves in the logarithm of the time.

        Where the time was interpolated, it is INTERPOLATION_ERROR of the distance between the two
        points it was read from. Where the hit counts, any time of the bracket is as likely as
        another. 0 where there is no bracket, and at most 1.
        """
        low_s = 0.0 if self.last_miss is None else self.last_miss.time_s
        if not self.reached or not 0 < low_s < self.hit_time_s:
            return 0.0
        share, high_s = 1 / math.sqrt(12), self.hit_time_s
        if self.low_time_s > 0:
            share, low_s, high_s = INTERPOLATION_ERROR, self.low_time_s, self.high_time_s
        return min(share * (math.log(high_s) - math.log(low_s)), 1.0)


NEVER = Crossing(math.inf, math.inf, None, None)
# The error of an interpolated time has this standard deviation, as a share of the distance between
# the points it was read from. On the curves of tests/benchmarks/dense_curves.jsonl it is 0.15 to
# 0.5 by workload; more on digits, where hits are overlooked.
INTERPOLATION_ERROR = 0.3


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """The result of one study: the trial that met the target first, or why none did.

    Attributes:
        study: The number of the study.
        trial: The number of the trial that met the target; None where no trial did.
        crossing: Where that trial met the target; of a population, after what the other members
            had trained. Where no trial did, time and step are inf.
        outcome: 'reached', 'missing' (the study has no readable trial), one of REASONS, or, where
            it is not decided, 'running', 'interrupted' or 'contended'.
        first_step_s: The seconds of that trial's first step, of a population of all members'; NaN
            where they are not recorded.
        absent: Whether no trial of the study could be read, whatever the outcome.
        undecided: Whether no trial met the target, and one that has not ended still may: such a
            study is neither reached nor missed, and left out of medians.
    """

    study: int
    trial: int | None
    crossing: Crossing
    outcome: str
    absent: bool = False
    undecided: bool = False
    first_step_s: float = math.nan

    @property
    def time_s(self) -> float:
        """Seconds to the target; inf where it was missed, NaN where it is undecided or absent."""
        return math.nan if self.absent or self.undecided else self.crossing.time_s

    @property
    def time_without_first_step_s(self) -> float:
        """Seconds to the target without those of the first step, which hold the compilation.

        NaN where the target was missed, or where the first step's seconds are not recorded.
        """
        without_s = self.crossing.time_s - self.first_step_s
        return max(0.0, without_s) if math.isfinite(without_s) else math.nan

    @property
    def step(self) -> float:
        """Steps to the target, in the same trial as `time_s`; inf and NaN mean the same."""
        return math.nan if self.absent or self.undecided else self.crossing.step


def time_to_target(
    rows: Rows,
    target: Target,
    budget_s: float | None = None,
    *,
    interpolates: bool = False,
    probes: Sequence[Point] = (),
) -> Crossing:
    """Return where a trial first met the target within the budget.

    Args:
        rows: The columns of the trial's evaluations. A value that is not finite never meets a
            target, nor does one at a time below 0; a time of exactly 0 seconds is a time.
        target: The target.
        budget_s: The limit of submission time in seconds; None is no limit. The evaluation that
            meets the target has to keep to it.
        interpolates: Whether the time is interpolated between the last evaluation that missed the
            target and the first that met it; otherwise it is the latter's.
        probes: The metric of a few rows from the one to the other; probes of another stretch are
            not used.

    Returns:
        The crossing. It is infinite where the target was not met, where the target has no
        validation value, or where the time or the metric was not recorded.
    """
    if target.validation is None or TIME_COLUMN not in rows or target.column not in rows:
        return NEVER
    time_s, value = rows[TIME_COLUMN], rows[target.column]
    step = rows.get(STEP_COLUMN, np.full(len(time_s), math.nan))
    met = value >= target.validation if target.higher_is_better else value <= target.validation
    met &= np.isfinite(value) & np.isfinite(time_s) & (time_s >= 0)
    if budget_s is not None:
        met &= time_s <= budget_s
    hit = int(np.argmax(met)) if met.any() else None
    before = (len(time_s) if hit is None else hit) - 1
    last_miss = Miss(float(time_s[before]), float(step[before])) if before >= 0 else None
    if hit is None:
        return dataclasses.replace(NEVER, last_miss=last_miss)
    hit_time_s, hit_step = float(time_s[hit]), float(step[hit])
    at_the_hit = Crossing(hit_time_s, hit_step, hit, last_miss, hit_time_s, hit_step)
    if not interpolates or last_miss is None:
        return at_the_hit
    between = crossing(
        Point(last_miss.time_s, last_miss.step, float(value[before])),
        Point(hit_time_s, hit_step, float(value[hit])),
        target.validation,
        higher_is_better=target.higher_is_better,
        probes=probes,
    )
    if between is None:
        return at_the_hit
    return dataclasses.replace(
        at_the_hit,
        time_s=between.time_s,
        step=between.step,
        low_time_s=between.low_s,
        high_time_s=between.high_s,
    )


def crossing_of(run: TrialRun, rules: Rules) -> Crossing:
    """Return where a trial met its own target, as the rules count it."""
    if run.target is None:
        return NEVER
    budget_s = run.budget_s if rules.budgets else None
    return time_to_target(
        run.rows, run.target, budget_s, interpolates=rules.interpolates, probes=run.probes
    )


def why_not(run: TrialRun) -> str:
    """Return which of REASONS describes a trial that missed its target within the budget."""
    if run.status in ("diverged", "failed", LATE):
        return run.status
    late = run.target is not None and time_to_target(run.rows, run.target).reached
    if late or run.status == "budget":
        return "budget"
    return "ended early" if run.status is None and ended_early(run) else "not reached"


def ended_early(run: TrialRun) -> bool:
    """Return whether a trial's last evaluation came before nine tenths of its budget.

    It is False for a trial without a budget or without an evaluation.
    """
    times_s = run.rows.get(TIME_COLUMN, np.empty(0))
    return run.budget_s is not None and bool(len(times_s)) and times_s[-1] < EARLY * run.budget_s


def may_reach(run: TrialRun) -> bool:
    """Return whether a trial has not ended, and has not used up its budget."""
    times_s = run.rows.get(TIME_COLUMN, np.empty(0))
    is_over = run.budget_s is not None and bool((times_s >= run.budget_s).any())
    return run.unfinished is not None and not is_over


def is_readable(run: TrialRun) -> bool:
    """Return whether a trial recorded times and the metric of its target."""
    return run.target is not None and {TIME_COLUMN, run.target.column} <= run.rows.keys()


def study_result(study: int, trials: Iterable[TrialRun], rules: Rules) -> StudyResult:
    """Return the result of one study, from the trial that the rules choose.

    By-the-rules chooses the trial with the earliest time (equal times: the lower trial number),
    as-published the trial with the earliest evaluation (equal ones: the smallest time). Of a
    population it is the member that met the target first in the order of their turns, and the time
    is that of all members until then (`population.spent`), and so are the steps. Where no
    trial met the target and one is running, interrupted or left out, the study is undecided; else
    the outcome is the first of REASONS that describes one of them.

    Args:
        study: The number of the study.
        trials: The trials of that study on one workload.
        rules: The rule set.
    """
    runs = [run for run in trials if run.target is not None]
    crossings = [(run, crossing_of(run, rules)) for run in runs if is_readable(run)]
    states = [run.unfinished for run in runs if may_reach(run)]
    undecided = next((state for state in (RUNNING, INTERRUPTED) if state in states), CONTENDED)
    if not crossings and states:
        return StudyResult(study, None, NEVER, undecided, undecided=True)
    if not crossings:
        outcomes = [why_not(run) for run in runs if run.status in ("diverged", "failed")]
        return StudyResult(
            study, None, NEVER, min(outcomes, key=REASONS.index, default=MISSING), True
        )
    is_population = any(map(population.is_member, runs))
    if is_population:
        run, first = min(crossings, key=lambda pair: population.turn(pair[0], pair[1].hit_step))
    else:
        run, first = min(crossings, key=lambda pair: _order(pair[1], pair[0].trial, rules))
    if first.reached and is_population and any(each.unfinished == CONTENDED for each in runs):
        return StudyResult(study, None, NEVER, CONTENDED, undecided=True)  # Its time is not known.
    if first.reached:
        first_step_s = run.first_step_s
        if is_population:
            first = first.after(*population.spent(runs, run, first.hit_step))
            # Of a member that had no turn yet there is nothing.
            first_step_s = sum(each.first_step_s for each in runs)
        return StudyResult(study, run.trial, first, REACHED, first_step_s=first_step_s)
    if states:
        return StudyResult(study, None, first, undecided, undecided=True)
    reasons = {why_not(run): crossing for run, crossing in reversed(crossings)}
    reason = min(reasons, key=REASONS.index)
    return StudyResult(study, None, reasons[reason], reason)


def _order(crossing: Crossing, trial: int, rules: Rules) -> tuple[float, float, int]:
    """Return the key by which the rules order trials; the first trial stands for its study."""
    evaluation = math.inf if crossing.evaluation is None else crossing.evaluation
    return (
        evaluation if rules.earliest == "evaluation" else crossing.time_s,
        crossing.time_s,
        trial,
    )


def study_results(
    trials: Sequence[TrialRun], studies: Iterable[int], rules: Rules
) -> tuple[StudyResult, ...]:
    """Return one result per expected study of one submission on one workload.

    Args:
        trials: The submission's trials on the workload, of any studies.
        studies: The numbers of the studies that are expected.
        rules: The rule set.

    Returns:
        The results, sorted by the number of the study.
    """
    return tuple(
        study_result(study, [run for run in trials if run.study == study], rules)
        for study in sorted(studies)
    )


def times_of(results: Sequence[Sequence[Sequence[StudyResult]]], rules: Rules) -> Floats:
    """Return seconds to the target by submission, workload and study, as the rules count them.

    Args:
        results: The results of each submission on each workload.
        rules: The rule set.

    Returns:
        Array (S submissions, W workloads, N studies): inf where the target was missed, NaN where
        there is no such study or it is undecided.
    """
    return _array(results, rules, lambda result: result.time_s)


def steps_of(results: Sequence[Sequence[Sequence[StudyResult]]], rules: Rules) -> Floats:
    """Return steps to the target as `times_of` returns seconds."""
    return _array(results, rules, lambda result: result.step)


def log_errors_of(results: Sequence[Sequence[Sequence[StudyResult]]], rules: Rules) -> Floats:
    """Return what the distance between evaluations leaves open, as `times_of` returns seconds.

    Returns:
        Array (S, W, N) of `Crossing.log_error`; 0 where the rules do not interpolate: AlgoPerf's
        take the time of an evaluation as it is.
    """
    if not rules.interpolates:
        return np.zeros_like(times_of(results, rules))
    return np.nan_to_num(_array(results, rules, lambda result: result.crossing.log_error))


def _array(
    results: Sequence[Sequence[Sequence[StudyResult]]],
    rules: Rules,
    value: Callable[[StudyResult], float],
) -> Floats:
    values_SWN = study_array(
        [[[value(result) for result in cell] for cell in cells] for cells in results], rules
    )
    for index, cells in enumerate(results):
        for column, cell in enumerate(cells):
            undecided = [study for study, result in enumerate(cell) if result.undecided]
            values_SWN[index, column, undecided] = math.nan
    return values_SWN

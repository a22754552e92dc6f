"""Remarks on logs that are complete but unusual: nothing to mend, but a reader should know."""

import itertools
import math
from collections.abc import Iterable

import numpy as np

from algoperf.study.outrun import late_after_s
from algoperf.trial.plan import LATE
from scoring.analysis.leaderboard import Leaderboard
from scoring.benchmarks.pools import Entry
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN
from scoring.reading.trials import INTERRUPTED, RUNNING, Finding, TrialRun, grouped
from scoring.rules.time_to_target import ended_early, is_readable, time_to_target

SPREAD = 2.0  # Step times of an entry on a workload are odd from this multiple of the fastest on.


def find_oddities(entries: Iterable[Entry]) -> list[Finding]:
    """Return findings about everything unusual in the runs of each entry; none is of damage.

    They are about runs that were flagged, or delayed by others' work; submission times that go
    back; targets that were met after exactly 0 seconds; trials that ended early without a result;
    step times that differ between trials; trials that tie, so that the order of folders would
    decide; and studies with different numbers of trials.
    """
    findings = []
    for entry in entries:
        for runs in grouped(entry.runs, lambda run: run.workload):
            readable = [run for run in runs if is_readable(run)]
            for message in (
                *_flagged(runs),
                *_contended(runs),
                *_clocks(readable),
                *_instant(readable),
                *_early(readable),
                *_unfinished(runs),
                *_step_times(readable),
                *_busy(runs),
                *_ties(readable),
                *_trial_counts(runs),
            ):
                path = entry.runs[0].submission_folder
                text = f"{entry.label} on {runs[0].workload}: {message}"
                findings.append(Finding(path, text, damage=False))
    return findings


def find_unfounded(board: Leaderboard) -> list[Finding]:
    """Return findings about trials that were ended as late beside a submission that is not here.

    A workload gives no credit for a median later than 4 times the fastest credited one, so a trial
    that was ended at least that late has lost nothing. Of another one it is not known whether it
    would have met the target in time.
    """
    findings = []
    for row, name in itertools.product(board.rows, board.layout.workloads):
        late = [run for run in row.entry.runs if run.workload == name and run.status == LATE]
        if not late:
            continue
        cells = [each.cells[name] for each in board.rows]
        credited_s = [cell.median_time_s for cell in cells if math.isfinite(cell.ratio)]
        studies = max(len(cell.studies) for cell in cells)
        limit_s = late_after_s(min(credited_s, default=math.inf), studies)
        count = sum(not run.clock_s >= limit_s for run in late)
        if count:
            text = (
                f"{row.entry.label} on {name}: {count} trials were ended by --stop-late beside a "
                "submission that is not here, or was faster then; they might have met the target "
                "in time"
            )
            findings.append(Finding(row.entry.runs[0].submission_folder, text, damage=False))
    return findings


def _flagged(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message for each kind of suspicious behaviour that runs recorded."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for text in run.flags:
            names.setdefault(text, []).append(_name(run))
    return [f"FLAGGED in {', '.join(trials)}: {text}" for text, trials in names.items()]


def _contended(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message about trials whose clock counted others' work."""
    names = [_name(run) for run in runs if run.contended]
    if not names:
        return []
    return [
        f"CONTENDED in {', '.join(names)}: others had its cores for over 5 % of the clock; "
        "--exclude-contended leaves such trials out"
    ]


def _clocks(runs: Iterable[TrialRun]) -> list[str]:
    back = [_name(run) for run in runs if (np.diff(run.rows[TIME_COLUMN]) < 0).any()]
    return [f"the submission time goes back in {', '.join(back)}"] if back else []


def _instant(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message about trials that meet their target after exactly 0 seconds.

    It is a time as any other, but no ratio to it exists, so that every other submission is cut off.
    """
    instant = [
        _name(run)
        for run in runs
        if run.target is not None and time_to_target(run.rows, run.target).time_s == 0
    ]
    if not instant:
        return []
    return [f"the target is met after 0 s of submission time in {', '.join(instant)}"]


def _early(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message about killed trials that ended far from the target and from the budget.

    Such a trial has no result, did not meet its target, and used less than nine tenths of its
    budget.
    """
    shares = [
        float(run.rows[TIME_COLUMN][-1] / run.budget_s)
        for run in runs
        if run.status is None
        and run.unfinished is None
        and run.budget_s is not None
        and run.target is not None
        and not time_to_target(run.rows, run.target, run.budget_s).reached
        and ended_early(run)
    ]
    if not shares:
        return []
    trials = "1 trial" if len(shares) == 1 else f"{len(shares)} trials"
    return [f"{trials} ended early without the target, at {100 * max(shares):.2g} % of the budget"]


def _unfinished(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message about the trials that are running, and one about those interrupted."""
    messages = []
    for state, more in ((RUNNING, ""), (INTERRUPTED, " (the same command goes on)")):
        names = [_name(run) for run in runs if run.unfinished == state]
        if names:
            messages.append(
                f"{state}{more}: {', '.join(names)}; a study that may still be decided is left "
                "out of medians, but with --count-unfinished"
            )
    return messages


def step_time_spread(runs: Iterable[TrialRun]) -> tuple[float, float] | None:
    """Return the least and the largest mean seconds per step of trials; None where that is usual.

    Args:
        runs: Readable trials of one entry on one workload. They are odd where the times of two
            differ SPREAD-fold or more, as on a machine that is busy with other work.
    """
    times_s = []
    for run in runs:
        if STEP_COLUMN in run.rows and len(run.rows[STEP_COLUMN]) > 1:
            step, time_s = run.rows[STEP_COLUMN][-1], run.rows[TIME_COLUMN][-1]
            if step > 0 and np.isfinite(time_s / step) and time_s > 0:
                times_s.append(float(time_s / step))
    if not times_s or max(times_s) < SPREAD * min(times_s):
        return None
    return min(times_s), max(times_s)


def _step_times(runs: Iterable[TrialRun]) -> list[str]:
    spread = step_time_spread(runs)
    if spread is None:
        return []
    low, high = spread
    return [f"step times differ {high / low:.1f} times between trials ({low:.3g} to {high:.3g} s)"]


def _busy(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message about trials beside which other processes used the trial's cores."""
    busy = [run for run in runs if run.is_on_busy_machine]
    if not busy:
        return []
    most = max(run.busy_share for run in busy)
    trials = "1 trial" if len(busy) == 1 else f"{len(busy)} trials"
    return [f"busy machine: other processes used up to {most:.0%} of the cores of {trials}"]


def _ties(runs: Iterable[TrialRun]) -> list[str]:
    """Return a message about studies in which trials tie for the earliest evaluation.

    The trials first meet the target at the same evaluation, but at different times. The scoring
    code of the AlgoPerf benchmark takes the first of them in the order of its folders. Trials of
    this library, which record how they ended, are ranked by time.
    """
    tied = []
    logs = [run for run in runs if run.status is None]
    for of_study in grouped(logs, lambda run: run.study):
        hits = [time_to_target(run.rows, run.target) for run in of_study if run.target is not None]
        reached = [hit for hit in hits if hit.evaluation is not None]
        first = min((hit.evaluation for hit in reached if hit.evaluation is not None), default=None)
        if len({hit.time_s for hit in reached if hit.evaluation == first}) > 1:
            tied.append(f"study_{of_study[0].study}")
    if not tied:
        return []
    return [f"trials of {', '.join(tied)} meet the target at one evaluation with different times"]


def _trial_counts(runs: Iterable[TrialRun]) -> list[str]:
    counts = {of_study[0].study: len(of_study) for of_study in grouped(runs, lambda run: run.study)}
    if len(set(counts.values())) <= 1:
        return []
    listing = ", ".join(f"study_{study}: {count}" for study, count in sorted(counts.items()))
    return [f"studies have different numbers of trials ({listing})"]


def _name(run: TrialRun) -> str:
    return f"study_{run.study}/trial_{run.trial}"

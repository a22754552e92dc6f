"""What a leaderboard's trials took, and what they would have taken had none been ended early.

A trial costs the seconds from its beginning to its end, evaluations and set-up included, times the
cores that it was given. One that was outrun, or late, ended early; without `--stop-outrun` and
`--stop-late` it would have gone on to its budget at the most: its cost times its budget over its
clock. That also stretches its set-up, so it is a limit at the pace that it had. What was set aside
to be run again (contended or interrupted trials) is in no score, and is not counted here.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from algoperf.trial.plan import LATE, OUTRUN
from scoring.analysis.leaderboard import Leaderboard
from scoring.reading.trials import TrialRun

HOUR_S = 3600.0
ENDED_EARLY = (OUTRUN, LATE)


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of the trials of an entry, or of all, on one workload.

    Attributes:
        label: The entry's label; '' for all entries together.
        workload: The workload, base or held-out.
        trials: How many trials there are.
        ended_early: How many of these ended as they had been outrun, or were late.
        unknown: How many do not record how long they took, and are not in the hours.
        core_hours: Hours times cores of the others; NaN where there is no other. Where the cores
            are not recorded a trial counts as one core's.
        full_core_hours: The same, had all trials gone on, at the most.
    """

    label: str
    workload: str
    trials: int
    ended_early: int
    unknown: int
    core_hours: float
    full_core_hours: float


def costs(board: Leaderboard) -> tuple[Cost, ...]:
    """Return the costs of each entry on each workload, best entry first."""
    return tuple(
        _cost(row.entry.label, name, [run for run in row.entry.runs if run.workload == name])
        for row in board.rows
        for name in board.layout.workloads
    )


def by_workload(every: Sequence[Cost]) -> dict[str, Cost]:
    """Return the costs of all entries together, by workload."""
    names = dict.fromkeys(one.workload for one in every)
    return {name: _sum("", name, (one for one in every if one.workload == name)) for name in names}


def total(every: Sequence[Cost]) -> Cost:
    """Return the costs of all entries on all workloads; its `workload` is ''."""
    return _sum("", "", every)


def _cost(label: str, workload: str, runs: Sequence[TrialRun]) -> Cost:
    known = [run for run in runs if math.isfinite(run.wall_s)]
    spent_s = [run.wall_s * _cores(run) for run in known]
    full_s = [each * _longer(run) for each, run in zip(spent_s, known, strict=True)]
    return Cost(
        label,
        workload,
        len(runs),
        sum(run.status in ENDED_EARLY for run in runs),
        len(runs) - len(known),
        sum(spent_s) / HOUR_S if known else math.nan,
        sum(full_s) / HOUR_S if known else math.nan,
    )


def _sum(label: str, workload: str, every: Iterable[Cost]) -> Cost:
    costs = list(every)
    known = [one for one in costs if math.isfinite(one.core_hours)]
    return Cost(
        label,
        workload,
        sum(one.trials for one in costs),
        sum(one.ended_early for one in costs),
        sum(one.unknown for one in costs),
        sum(one.core_hours for one in known) if known else math.nan,
        sum(one.full_core_hours for one in known) if known else math.nan,
    )


def _cores(run: TrialRun) -> float:
    """Return how many cores a trial was given; 1 where that is not recorded."""
    hardware = run.pool.get("hardware")
    threads = hardware.get("threads") if isinstance(hardware, dict) else None
    is_count = isinstance(threads, int) and not isinstance(threads, bool) and threads > 0
    return float(threads) if is_count and threads is not None else 1.0


def _longer(run: TrialRun) -> float:
    """Return how many times as long a trial would have taken at most had it gone on."""
    if run.status not in ENDED_EARLY or run.budget_s is None or not run.clock_s > 0:
        return 1.0
    return max(1.0, run.budget_s / run.clock_s)

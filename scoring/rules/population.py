"""What a population took until one of its members met a target.

Members take turns (`algoperf.study.population`): in round r each trains up to step r times
`every_steps`, in the order of their numbers. What is counted when a member meets the target is what
had been trained by then: the clock of that member at the target, of those before it at the end of
the round, of those after it at the end of the round before. Members that had ended count whole.
"""

import math
from collections.abc import Iterable

import numpy as np

from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN
from scoring.reading.trials import TrialRun

RULESET = "population"


def is_member(run: TrialRun) -> bool:
    """Return whether a trial is a member of a population, and says how long its turns are."""
    return run.pool.get("tuning_ruleset") == RULESET and _every_steps(run) > 0


def turn(run: TrialRun, hit_step: float) -> tuple[float, int]:
    """Return the round and the member of an evaluation, by which turns are ordered.

    Args:
        run: The member.
        hit_step: The step of its evaluation; inf comes last.
    """
    number = math.ceil(hit_step / _every_steps(run)) if math.isfinite(hit_step) else math.inf
    return number, run.trial


def spent(members: Iterable[TrialRun], first: TrialRun, hit_step: float) -> tuple[float, float]:
    """Return what all other members had trained when one met the target.

    Args:
        members: The members of the study.
        first: The member that met the target first.
        hit_step: The step of the evaluation at which it did.

    Returns:
        Seconds of submission time, and steps.
    """
    number, _ = turn(first, hit_step)
    seconds, steps = 0.0, 0.0
    for run in members:
        if run is first:
            continue
        last = number if run.trial < first.trial else number - 1
        clock_s, step = _until(run, last * _every_steps(run))
        seconds, steps = seconds + clock_s, steps + step
    return seconds, steps


def _until(run: TrialRun, step: float) -> tuple[float, float]:
    """Return a member's clock in seconds and its step when it had made so many steps at most."""
    times_s, steps = (run.rows.get(column, np.empty(0)) for column in (TIME_COLUMN, STEP_COLUMN))
    within = np.flatnonzero(steps <= step)
    if not len(within):
        return 0.0, 0.0
    last = within[-1]
    clock_s, last_step = float(times_s[last]), float(steps[last])
    if last == len(steps) - 1:  # It may have gone on for a while after its last evaluation.
        clock_s = max(clock_s, 0.0 if math.isnan(run.clock_s) else run.clock_s)
        last_step = max(last_step, 0.0 if math.isnan(run.last_step) else run.last_step)
    return clock_s, last_step


def _every_steps(run: TrialRun) -> int:
    settings = run.pool.get("population")
    every = settings.get("every_steps") if isinstance(settings, dict) else None
    return every if isinstance(every, int) and not isinstance(every, bool) else 0

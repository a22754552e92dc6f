"""The table of all trials of a workload: each point that was tried, and what came of it."""

import math
from typing import Any

import numpy as np

from scoring.analysis.leaderboard import Leaderboard, Row
from scoring.output.page import texts
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN
from scoring.reading.trials import Target, TrialRun
from scoring.rules.time_to_target import REACHED, crossing_of, is_readable, why_not


def trials(board: Leaderboard, row: Row, workload: str) -> dict[str, Any] | None:
    """Return the table of a submission's trials on a workload; None where it has none.

    Returns:
        'count', how many there are; 'head', the names of the columns; 'rows', each with 'chosen'
        (whether its study rests on the trial), 'reached' and 'cells'; and 'folded', the columns
        without a value, which are left out.
    """
    target = board.benchmark.workloads[workload].target
    runs = [run for run in row.entry.runs if run.workload == workload]
    if not runs:
        return None
    runs.sort(key=lambda run: (run.study, run.trial))
    chosen = {(result.study, result.trial) for result in row.cells[workload].studies}
    names = list(dict.fromkeys(name for run in runs for name in run.hyperparameters))
    head = ["study", "trial", "outcome", "time s", "steps", f"best {target.metric}", *names]
    every = []
    for run in runs:
        outcome, time_s, steps = _outcome(board, run)
        known = run.hyperparameters
        every.append(
            [
                str(run.study),
                str(run.trial),
                outcome,
                texts.count(time_s),
                texts.count(steps),
                _best(run, target),
                *(texts.foreign(known[name]) if name in known else texts.NONE for name in names),
            ]
        )
    kept, folded = texts.fold(head, every)
    rows = [
        {
            "chosen": (run.study, run.trial) in chosen,
            "reached": cells[head.index("outcome")] == REACHED,
            "cells": [cells[column] for column in kept],
        }
        for run, cells in zip(runs, every, strict=True)
    ]
    return {
        "count": texts.plural(len(runs), "trial"),
        "head": [head[column] for column in kept],
        "folded": folded,
        "rows": rows,
    }


def _outcome(board: Leaderboard, run: TrialRun) -> tuple[str, float, float]:
    """Return how a trial ended, and the seconds and steps to its target or to its end."""
    if run.target is None or not is_readable(run):
        return run.unfinished or run.status or "no logs", math.nan, math.nan
    hit = crossing_of(run, board.rules)
    if hit.reached:
        return REACHED, hit.time_s, hit.step
    times_s = run.rows[TIME_COLUMN]
    steps = run.rows.get(STEP_COLUMN, np.full(len(times_s), np.nan))
    outcome = run.unfinished or why_not(run)
    return (outcome, float(times_s[-1]), float(steps[-1])) if len(times_s) else (outcome, 0.0, 0.0)


def _best(run: TrialRun, target: Target) -> str:
    values = run.rows.get(target.column, np.empty(0))
    values = values[np.isfinite(values)]
    if not len(values):
        return texts.NONE
    best = values.max() if target.higher_is_better else values.min()
    return texts.foreign(float(best))

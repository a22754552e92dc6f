"""Build the contents of `result.json` for a trial that has ended."""

import itertools
from collections.abc import Sequence
from typing import Any

from algoperf.machine import load
from algoperf.trial import seeds
from algoperf.trial.assemble import Assembled
from algoperf.trial.loop import Trial
from algoperf.workload.crossing import Point, crossing

EXAMPLES = 3  # The number of generated texts that the result shows.


def of(assembled: Assembled) -> dict[str, Any]:
    """Return the result of a trial as plain values.

    Args:
        assembled: The trial with everything around it, after it has ended.
    """
    trial, flags = assembled.trial, assembled.flags
    evaluations = trial.evaluations
    reached = trial.status == "reached"
    misses = evaluations[:-1] if reached else evaluations
    totals = trial.ledger.totals()
    trained_s = trial.ledger.submission.elapsed_s - (trial.ledger.first_step_s or 0.0)
    steps = trial.state.step
    resources = assembled.meter.report(totals["wall_s"] or 0.0)
    clock_load = assembled.clock_load.report()
    buckets, written = assembled.buckets, assembled.evaluator.written
    return {
        **{
            key: flags[key]
            for key in ("workload", "framework", "submission", "study", "trial", "target")
        },
        **{key: flags[key] for key in ("budget_s", "step_hint", "batch_size", "config_hash")},
        "seed": seeds.trial_seed(assembled.plan.seed, assembled.plan.study, assembled.plan.trial),
        "status": trial.status,
        "scoreable": assembled.plan.max_steps is None and flags["target"]["validation"] is not None,
        "steps": steps,
        "time_to_target_s": evaluations[-1][1] if reached else None,
        "steps_to_target": evaluations[-1][0] if reached else None,
        "last_miss": {"step": misses[-1][0], "time_s": misses[-1][1]} if misses else None,
        "interpolated": _interpolated(trial) if reached and misses else None,
        "probes": [list(probe) for probe in _probes(trial)] if reached else [],
        "best": _best(trial),
        "final": evaluations[-1][2] if evaluations else {},
        "ledger": totals,
        "samples_per_s": (steps - 1) * assembled.batch_size / trained_s
        if trained_s > 0 and steps > 1
        else None,
        "real_token_share": None if buckets is None else buckets.real_share,
        "examples": [] if written is None else list(itertools.islice(written.rows(), EXAMPLES)),
        "inference_s_per_example": assembled.evaluator.inference_s_per_example,
        "parameters": assembled.parameters,
        "parameters_crc32": _checksum(assembled),
        "not_finite": trial.not_finite.seen,
        **{name: resources[name] for name in ("peak_process_bytes", "peak_device_bytes")},
        "resources": resources,
        "load": clock_load,
        "contended": load.is_contended(clock_load),
        "error": trial.error,
        "flags": assembled.guard.flags,
    }


def _checksum(assembled: Assembled) -> int | None:
    """Return the checksum of the last parameters.

    It is None for a trial that failed, whose last step may have used up (donated) the parameters.
    """
    trial = assembled.trial
    return (
        None
        if trial.status == "failed"
        else assembled.backend.checksum(trial.state.params, trial.state.model_state)
    )


def _interpolated(trial: Trial) -> dict[str, float] | None:
    """Return where the target was met between the last two evaluations, as a score counts it.

    It is None where nothing lies between: the target itself was hit, or the miss measured nothing.
    """
    goal, column = trial.goal, f"validation/{trial.goal.metric}"
    if goal.until != "validation":
        return None
    assert goal.validation is not None
    miss, hit = (
        Point(time_s, step, metrics[column]) for step, time_s, metrics in trial.evaluations[-2:]
    )
    between = crossing(
        miss, hit, goal.validation, higher_is_better=goal.higher_is_better, probes=_probes(trial)
    )
    return None if between is None else {"step": between.step, "time_s": between.time_s}


def _probes(trial: Trial) -> Sequence[Point]:
    """Return the probes from the last evaluation that missed the target to the one that met it."""
    return [] if trial.cadence is None else trial.cadence.probes


def _best(trial: Trial) -> dict[str, float]:
    column = f"validation/{trial.goal.metric}"
    best: dict[str, float] = {}
    for step, elapsed_s, metrics in trial.evaluations:
        if trial.goal.is_better(metrics[column], best.get(column)):
            best = {column: metrics[column], "step": step, "time_s": elapsed_s}
    return best

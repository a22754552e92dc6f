"""Build the contents of `result.json` for a trial that has ended."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from algoperf.machine import load
from algoperf.machine.load import Load
from algoperf.machine.resources import Meter
from algoperf.run_folder import device_history
from algoperf.trial import seeds
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.plan import LATE, OUTRUN, PAUSED, TrialPlan
from algoperf.trial.referee import Referee
from algoperf.workload.crossing import Point, crossing

EXAMPLES = 3  # The number of generated texts that the result shows.


class Ended(Protocol):
    """A trial that has ended, with what judged and measured it (`assemble.Assembled`)."""

    # ruff: noqa: D102
    @property
    def plan(self) -> TrialPlan: ...
    @property
    def referee(self) -> Referee: ...
    @property
    def flags(self) -> Mapping[str, Any]: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def evaluator(self) -> Evaluator: ...
    @property
    def meter(self) -> Meter: ...
    @property
    def clock_load(self) -> Load: ...
    @property
    def parameters(self) -> Mapping[str, float]: ...

    def real_token_share(self) -> float | None:
        """Return the share of training tokens that were no padding; None without buckets."""
        ...

    def processes(self) -> Sequence[Mapping[str, Any]]:
        """Return what each of several processes used that trained together; nothing of one."""
        ...

    def checksum(self) -> int | None:
        """Return the checksum of the last parameters."""
        ...

    def raised_flags(self) -> Sequence[str]:
        """Return what the submission should not have done and was seen to do."""
        ...


def of(ended: Ended) -> dict[str, Any]:
    """Return the result of a trial as plain values.

    Args:
        ended: The trial with everything around it, after it has ended.
    """
    referee, flags = ended.referee, ended.flags
    evaluations = referee.evaluations
    reached = referee.status == "reached"
    misses = evaluations[:-1] if reached else evaluations
    totals = referee.ledger.totals()
    trained_s = referee.ledger.submission.elapsed_s - (referee.ledger.first_step_s or 0.0)
    steps = referee.step
    resources = ended.meter.report(totals["wall_s"] or 0.0)
    processes = list(ended.processes())
    clock_load = ended.clock_load.report()
    written = ended.evaluator.written
    # The last step of a trial that failed may have used its parameters up (donated them).
    checksum = None if referee.status == "failed" else ended.checksum()
    return {
        **{
            key: flags[key]
            for key in ("workload", "framework", "submission", "study", "trial", "target")
        },
        **{key: flags[key] for key in ("budget_s", "step_hint", "batch_size", "config_hash")},
        **{
            key: flags[key]
            for key in ("validation_commitment", "hardware_class", device_history.FIELD)
            if key in flags
        },
        "seed": seeds.trial_seed(ended.plan.seed, ended.plan.study, ended.plan.trial),
        "status": referee.status,
        "scoreable": ended.plan.max_steps is None and flags["target"]["validation"] is not None,
        **({"outrun_s": ended.plan.outrun_s} if referee.status == OUTRUN else {}),
        **({"late": dict(ended.plan.late or {})} if referee.status == LATE else {}),
        "steps": steps,
        "time_to_target_s": evaluations[-1][1] if reached else None,
        "steps_to_target": evaluations[-1][0] if reached else None,
        "last_miss": {"step": misses[-1][0], "time_s": misses[-1][1]} if misses else None,
        "interpolated": _interpolated(referee) if reached and misses else None,
        "probes": [list(probe) for probe in _probes(referee)] if reached else [],
        "best": _best(referee),
        "final": evaluations[-1][2] if evaluations else {},
        "ledger": totals,
        "samples_per_s": (steps - 1) * ended.batch_size / trained_s
        if trained_s > 0 and steps > 1
        else None,
        "real_token_share": ended.real_token_share(),
        "examples": [] if written is None else list(itertools.islice(written.rows(), EXAMPLES)),
        "inference_s_per_example": ended.evaluator.inference_s_per_example,
        "parameters": ended.parameters,
        "parameters_crc32": checksum,
        "not_finite": referee.not_finite.seen,
        **{name: resources[name] for name in ("peak_process_bytes", "peak_device_bytes")},
        "resources": {**resources, **({"processes": processes} if processes else {})},
        "load": clock_load,
        "contended": load.is_contended(clock_load),
        "error": referee.error,
        "flags": list(ended.raised_flags()),
    }


def of_paused(ended: Ended, point: Mapping[str, Any] | None, search_space: Any) -> dict[str, Any]:
    """Return what a population has to know of a member that is left for a later process.

    Args:
        ended: The trial with everything around it.
        point: Its hyperparameters.
        search_space: What they are explored in, in AlgoPerf's form.
    """
    values = {**of(ended), "status": PAUSED}
    return {**values, "point": dict(point or {}), "search_space": search_space}


def _interpolated(referee: Referee) -> dict[str, float] | None:
    """Return where the target was met between the last two evaluations, as a score counts it.

    It is None where nothing lies between: the target itself was hit, or the miss measured nothing.
    """
    goal, column = referee.goal, f"validation/{referee.goal.metric}"
    if goal.until != "validation":
        return None
    assert goal.validation is not None
    miss, hit = (
        Point(time_s, step, metrics[column]) for step, time_s, metrics in referee.evaluations[-2:]
    )
    between = crossing(
        miss, hit, goal.validation, higher_is_better=goal.higher_is_better, probes=_probes(referee)
    )
    return None if between is None else {"step": between.step, "time_s": between.time_s}


def _probes(referee: Referee) -> Sequence[Point]:
    """Return the probes from the last evaluation that missed the target to the one that met it."""
    return [] if referee.cadence is None else referee.cadence.probes


def _best(referee: Referee) -> dict[str, float]:
    column = f"validation/{referee.goal.metric}"
    best: dict[str, float] = {}
    for step, elapsed_s, metrics in referee.evaluations:
        if referee.goal.is_better(metrics[column], best.get(column)):
            best = {column: metrics[column], "step": step, "time_s": elapsed_s}
    return best

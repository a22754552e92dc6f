"""Measure what a step and an evaluation of the reference algorithm take on this machine.

The algorithm runs at its DEFAULTS for as many steps on every machine, several times in processes of
their own, workload by workload in turn, so that whatever slows the machine for a while slows all of
them. What a run took is read from its run folder: its evaluations cut it into stretches, of which
each has a time a step. The first step, which compiles, and the first evaluation are told apart.
"""

import dataclasses
import hashlib
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import class_file, hardware, hardware_class
from algoperf.machine.hardware_class import Against, HardwareClass, Key, Measurement, Ratio, Spread
from algoperf.run_folder import run_log, writing
from algoperf.study import run_plan, study
from algoperf.study.request import RunRequest, check_whole

REFERENCE = "nadamw"
EXPERIMENT = "calibration"
FILE = "hardware_class.json"
RUNS = "runs"
REPEATS = 3
STRETCHES = 5  # Of a run; each is timed.
STRETCH_S = 6.0  # About what one takes at a workload's own budget; most machines are faster.
LEAST_STEPS = 2 * STRETCHES
# What must be equal on two machines for their times to be of the same work.
WORK = (
    *("workload", "workload_hash", "scale", "data", "data_fingerprint", "framework", "seed"),
    *("batch_size", "max_steps", "eval_every_steps", "precision", "submission_hash"),
)
Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class CalibrateRequest:
    """What `algoperf calibrate` is asked.

    Attributes:
        workloads: Names from `algoperf workloads`, or folders of workloads.
        frameworks: 'jax', 'pytorch', or both.
        scale: The scale of all workloads.
        data: 'builtin', 'hub' or a folder; None for the scale's own source.
        steps: The length of each run in steps; None for the other class's, or about 30 s of the
            workload's own budget.
        repeats: How many runs there are of each workload in each framework.
        threads: How many cores a run is given; None for all.
        against: The file of the class that budgets are to be relative to; None keeps the workloads'
            own budgets.
        name: The class's name; None for one made of the machine's.
        out: The folder of the run folders and of the class's file.
    """

    workloads: Sequence[str]
    frameworks: Sequence[str] = ("jax", "pytorch")
    scale: str = RunRequest.scale
    data: str | None = None
    steps: int | None = None
    repeats: int = REPEATS
    threads: int | None = None
    against: str | None = None
    name: str | None = None
    out: Path = Path("calibration")

    def __post_init__(self) -> None:
        for field in ("workloads", "frameworks"):
            if not getattr(self, field):
                raise UserError(f"{field} names nothing; give at least one")
        if self.steps is not None:
            check_whole("steps", self.steps, STRETCHES)
        check_whole("repeats", self.repeats)
        if self.name is not None:
            hardware_class.check_name(self.name)


@dataclasses.dataclass(frozen=True, eq=False)
class Calibrated:
    """What came of a calibration.

    Attributes:
        hardware_class: The class of this machine: a new one, or the one that it was measured
            against, where that is the same.
        measurements: What was measured here.
        ratios: These times over the other class's; empty where there is none.
        joins: Whether the machine is of the other class.
        differences: In what this machine differs from those of the other class.
        own_budgets_s: The workloads' own budgets in seconds.
        path: The file.
    """

    hardware_class: HardwareClass
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    joins: bool
    differences: tuple[str, ...]
    own_budgets_s: Mapping[Key, float]
    path: Path


def calibrate(request: CalibrateRequest, note: Note, command: str = "") -> Calibrated:
    """Measure, and write the class of this machine.

    Args:
        request: What is asked.
        note: Called with a line for the user about each run.
        command: The command line, for the runs' meta data.

    Raises:
        UserError: A workload is not found, the other class cannot be compared, the folder has a
            class already, or the reference algorithm failed.
        InterruptedRunError: A signal stopped the runs; the same call goes on after those that have
            ended.
    """
    path = request.out / FILE
    if path.exists():
        raise UserError(
            f"{path}: is there; give another --out, and --against {path} to compare with it"
        )
    other = None if request.against is None else class_file.read(request.against)
    if request.threads is not None:
        hardware.check_threads(request.threads)
    writing.make_folder("--out", request.out)
    plans = _plans(request, other, command)
    for repeat, plan in plans:
        _carry_out(plan, repeat, request.repeats, note)
    groups: dict[tuple[Key, str], list[Path]] = {}
    for _, plan in plans:
        groups.setdefault((_key(plan), plan.trial.framework), []).append(_folder(plan))
    measured = tuple(measurement(folders) for folders in groups.values())
    own_s = {_key(plan): _own_budget_s(plan) for _, plan in plans}
    machine = _machine([_folder(plan) for _, plan in plans], request.threads)
    calibrated = conclude(machine, measured, own_s, other, request.name, path)
    with writing.asked("--out", path):
        run_log.write_json(path, class_file.to_json(calibrated.hardware_class))
    return calibrated


def conclude(
    machine: Mapping[str, Any],
    measured: tuple[Measurement, ...],
    own_s: Mapping[Key, float],
    other: HardwareClass | None,
    name: str | None,
    path: Path,
) -> Calibrated:
    """Return the class of what was measured: a new one, or the other one if it is the same.

    Args:
        machine: What the machine is.
        measured: Its times.
        own_s: The workloads' own budgets in seconds.
        other: The class to compare with; None for none.
        name: The class's name, if it is a new one; None for the machine's.
        path: The class's file.

    Raises:
        UserError: The other class has not measured the same.
    """
    ratios = () if other is None else hardware_class.ratios(measured, other)
    apart = () if other is None else hardware_class.differences(machine, other.machine)
    if other is not None and hardware_class.is_same(machine, ratios, other):
        joined = dataclasses.replace(other, confirmations=(*other.confirmations, ratios))
        return Calibrated(joined, measured, ratios, True, (), own_s, path)
    created = HardwareClass(
        name or hardware_class.usual_name(machine),
        dict(machine),
        REFERENCE,
        measured,
        hardware_class.budgets(own_s, ratios, other),
        None if other is None else Against(other.name, other.id, ratios),
    )
    return Calibrated(created, measured, ratios, False, tuple(apart), own_s, path)


def measurement(folders: Sequence[Path]) -> Measurement:
    """Return the times of the runs of one workload in one framework, from their run folders.

    Runs that lost over 5 % of their clock to others are left out, unless all of them did.

    Args:
        folders: The run folders; each has ended with a result.
    """
    contended = [folder for folder in folders if run_log.is_contended(folder)]
    kept = [folder for folder in folders if folder not in contended] or folders
    flags = run_log.read_flags(folders[0]) or {}
    results = [run_log.read_result(folder) or {} for folder in kept]
    return Measurement(
        flags["workload"],
        flags["scale"],
        flags["data"],
        flags["framework"],
        flags["max_steps"],
        flags["batch_size"],
        work_digest(flags),
        len(folders),
        len(contended),
        _spread(statistics.median(step_times_s(folder)) for folder in kept),
        _spread(statistics.median(evaluation_times_s(folder)) for folder in kept),
        _spread(result["ledger"]["first_step_s"] for result in results),
    )


def work_digest(flags: Mapping[str, Any]) -> str:
    """Return a digest of what must be equal for two runs to have done the same work.

    Args:
        flags: The configuration of a run.
    """
    work = {name: flags.get(name) for name in WORK}
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:12]


def step_times_s(folder: Path) -> list[float]:
    """Return the seconds a step of each stretch of a run from one evaluation to the next.

    What comes before the first evaluation, the first step, is left out.

    Args:
        folder: The run folder.
    """
    rows = run_log.evaluations(folder)
    return [
        (after["accumulated_submission_time"] - before["accumulated_submission_time"])
        / (after["global_step"] - before["global_step"])
        for before, after in itertools.pairwise(rows)
    ]


def evaluation_times_s(folder: Path) -> list[float]:
    """Return the seconds of each evaluation of a run but the first, which compiles, and the last.

    The last one measures the test split as well; it counts where there is no other.

    Args:
        folder: The run folder.
    """
    totals_s = [row["accumulated_eval_time"] for row in run_log.evaluations(folder)]
    times_s = [after - before for before, after in itertools.pairwise(totals_s)]
    return times_s[:-1] or times_s


def usual_steps(step_hint: int, budget_s: float) -> int:
    """Return how long a run is: the same on every machine.

    Args:
        step_hint: The workload's.
        budget_s: The workload's own budget in seconds of submission time.

    Returns:
        The steps that take about `STRETCHES` times `STRETCH_S` seconds if the budget is just spent
        on the step hint; at least `LEAST_STEPS`.
    """
    return max(LEAST_STEPS, STRETCHES * round(STRETCH_S * step_hint / budget_s))


def _plans(
    request: CalibrateRequest, other: HardwareClass | None, command: str
) -> list[tuple[int, run_plan.RunPlan]]:
    """Return the runs, each with the number of its round: all workloads once in each round."""
    lengths: dict[tuple[str, str], int] = {}
    plans = []
    for repeat in range(request.repeats):
        for name in dict.fromkeys(request.workloads):
            for framework in dict.fromkeys(request.frameworks):
                asked = RunRequest(
                    workload=name,
                    submission=REFERENCE,
                    framework=framework,
                    scale=request.scale,
                    data=request.data,
                    studies=request.repeats,
                    study_range=f"{repeat}:{repeat}",
                    until="end",
                    max_steps=1,  # until it is known
                    checkpoints=False,
                    experiment=EXPERIMENT,
                    out=request.out / RUNS,
                    threads=request.threads,
                )
                if (name, framework) not in lengths:
                    plan = run_plan.make(asked, command)
                    lengths[name, framework] = _steps(plan, request.steps, other)
                steps = lengths[name, framework]
                limited = dataclasses.replace(
                    asked, max_steps=steps, eval_every_steps=max(1, steps // STRETCHES)
                )
                plans.append((repeat, run_plan.make(limited, command)))
    return plans


def _steps(plan: run_plan.RunPlan, asked: int | None, other: HardwareClass | None) -> int:
    """Return the length of a run: the other class's, or what was asked, or the usual one.

    Raises:
        UserError: The other class has no such run, or one of another length than was asked.
    """
    if other is None:
        scale = run_plan.scale_of(plan.trial)
        return asked or usual_steps(scale.step_hint, scale.budget_s)
    theirs = other.measurement(_key(plan), plan.trial.framework)
    if theirs is None:
        raise UserError(
            f"--against: hardware class {other} has no times of {_key(plan)} in "
            f"{plan.trial.framework}; it has {hardware_class.known(other)}"
        )
    if asked not in (None, theirs.steps):
        raise UserError(
            f"--steps {asked}: hardware class {other} measured {theirs} over {theirs.steps} steps; "
            "leave --steps out"
        )
    return theirs.steps


def _key(plan: run_plan.RunPlan) -> Key:
    return Key(plan.trial.workload, plan.trial.scale, plan.trial.source_kind)


def _own_budget_s(plan: run_plan.RunPlan) -> float:
    return run_plan.scale_of(plan.trial).budget_s


def _folder(plan: run_plan.RunPlan) -> Path:
    (number, _), *_ = plan.chosen
    return study.trial_folder(dataclasses.replace(plan.trial, study=number), plan.outline)


def _carry_out(plan: run_plan.RunPlan, repeat: int, repeats: int, note: Note) -> None:
    """Run once, and say what it took.

    Raises:
        UserError: The reference algorithm failed.
    """
    (result,) = plan.carry_out(lambda _plan, _event: None)
    trial, folder = plan.trial, _folder(plan)
    what = f"{trial.workload} {trial.framework} run {repeat + 1} of {repeats}"
    if result["status"] != "complete":
        cause = (result.get("error") or {}).get("cause") or f"it is {result['status']}"
        raise UserError(f"{what}: {REFERENCE} did not train {trial.max_steps} steps: {cause}")
    step_s = statistics.median(step_times_s(folder))
    evaluation_s = statistics.median(evaluation_times_s(folder))
    contended = ", contended: others used its cores" if result.get("contended") else ""
    note(f"{what}: {step_s:.3g} s a step, {evaluation_s:.3g} s an evaluation{contended}")


def _machine(folders: Iterable[Path], threads: int | None) -> dict[str, Any]:
    """Return what the runs ran on, as they recorded it.

    Raises:
        UserError: They are of different machines: what was interrupted went on elsewhere.
    """
    machines = []
    for folder in folders:
        flags = run_log.read_flags(folder) or {}
        recorded = {"hardware": flags["hardware"], "versions": flags["versions"]}
        recorded["environment"] = flags.get("environment", {})
        machines.append(recorded)
        apart = hardware_class.differences(recorded, machines[0])
        if apart:
            raise UserError(f"{folder}: of another machine ({'; '.join(apart)}); use another --out")
    library_threads = hardware_class.describe(threads)["library_threads"]
    return {**machines[0], "library_threads": library_threads}


def _spread(values_s: Iterable[float]) -> Spread:
    listed = list(values_s)
    return Spread(statistics.median(listed), min(listed), max(listed))

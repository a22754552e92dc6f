"""Plan the runs of a comparison: rows that differ in one or two ways, each with its trials."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from algoperf import backends
from algoperf.data.formats import sources
from algoperf.errors import UserError, choose
from algoperf.machine import hardware
from algoperf.run_folder import run_log
from algoperf.study import run_plan, study
from algoperf.study.executors import local
from algoperf.study.request import RunRequest
from algoperf.workload import Target, WorkloadDefinition, catalogue

FULL = "full"  # The name for training all parameters of the workload itself.
ALIASES = {"adapter": "adapters"}
EVALUATIONS = 20  # The evaluations of a run, besides the one after its first step.
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class CompareRequest:
    """A request for a comparison, from `algoperf compare` or `algoperf.compare`.

    Attributes:
        run: The settings that all runs share: workload, submission, scale, data, seed and others.
            Those that the comparison sets for each run (framework, batch size, length, folder) are
            ignored.
        techniques: The techniques: FULL, or suffixes of the workload's variants.
        frameworks: 'jax', 'pytorch' or both.
        batch_sizes: The numbers of rows in a batch.
        trials: The number of trials of each row, which differ only in their seed.
        max_steps: The length of every run in steps; None for the workload's step hint.
        eval_every_steps: The steps between evaluations; None for a twentieth of `max_steps`.
        target: The target on the validation split for all rows; None for the workload's own.
        workers: The number of runs at a time.
        threads: The number of cores of each run; None to share the available ones among the
            workers.
        out: The folder of the comparison; None for compare/WORKLOAD.
        may_run: Whether runs may be started. If not, results from another machine can be shown.
    """

    run: RunRequest
    techniques: Sequence[str] | None = None
    frameworks: Sequence[str] | None = None
    batch_sizes: Sequence[int] | None = None
    trials: int = 1
    max_steps: int | None = None
    eval_every_steps: int | None = None
    target: float | None = None
    workers: int = 1
    threads: int | None = None
    out: Path | None = None
    may_run: bool = True


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of a comparison.

    Attributes:
        workload: The name of the workload, or of its variant for a technique.
        framework: The framework.
        technique: The technique; None where the comparison names none.
        batch_size: The number of rows in a batch; None where the comparison names none.
    """

    workload: str
    framework: str
    technique: str | None = None
    batch_size: int | None = None

    @property
    def label(self) -> str:
        """The text that tells this row from the others."""
        batch = None if self.batch_size is None else f"batch {self.batch_size}"
        return " ".join(filter(None, (self.technique, batch, self.framework)))


@dataclasses.dataclass(frozen=True)
class Run:
    """One trial of a row, as an `algoperf run` of its own.

    Attributes:
        arm: The row.
        trial: The trial's number, from 1.
        request: The request for the run.
        folder: The trial's run folder.
        experiment: The name of the experiment, which is part of the run folder's path.
    """

    arm: Arm
    trial: int  # from 1
    request: RunRequest
    folder: Path
    experiment: str

    def command(self, out: Path) -> list[str]:
        """Return the arguments of `algoperf`, of which 'run' is the first."""
        return ["run", *self.request.words()]

    def has_ended(self, out: Path) -> bool:
        """Return whether the run has a result that is not a failure; a failed run is run again."""
        result = run_log.read_result(self.folder)
        return result is not None and result["status"] != "failed"

    def prepare(self, out: Path) -> None:
        """Do nothing, since `algoperf run` itself resumes an interrupted run."""


@dataclasses.dataclass(frozen=True)
class ComparePlan:
    """The plan of a comparison.

    Attributes:
        definition: The workload.
        scale: The name of its scale.
        data: The source of the data: 'builtin', 'hub' or 'folder'.
        target: The target on the validation split, or None.
        max_steps: The length of every run in steps.
        eval_every_steps: The steps between evaluations.
        out: The folder of the comparison.
        threads: The number of cores of each run.
        arms: The rows in their order.
        runs: The runs in the order in which they are started: trial by trial, so that each row has
            some results if the comparison ends early.
    """

    definition: WorkloadDefinition
    scale: str
    data: str  # 'builtin', 'hub' or 'folder'
    target: float | None
    max_steps: int
    eval_every_steps: int
    out: Path
    threads: int
    arms: Sequence[Arm]
    runs: Sequence[Run]


def make(request: CompareRequest) -> ComparePlan:
    """Return the plan of a comparison, before any framework is loaded.

    Raises:
        UserError: There is nothing to compare, or something unknown, or the run folders below `out`
            were written with other settings.
    """
    shared = request.run
    definition = catalogue.find(shared.workload)
    techniques = technique_names(definition, request.techniques)
    frameworks = _asked("--frameworks", request.frameworks)
    for name in frameworks or []:
        choose("framework", name, list(backends.FRAMEWORKS))
    batch_sizes = _asked("--batch-sizes", request.batch_sizes)
    _check_combination(techniques, frameworks, batch_sizes)
    scale_name = choose(f"scale of {definition.name}", shared.scale, list(definition.scales))
    scale = definition.scales[scale_name]
    kind, _ = sources.resolve(definition, scale, shared.data)
    target: Target | None = scale.on(kind).targets.get(kind)
    own_target = None if target is None else target.validation
    max_steps = request.max_steps or scale.on(kind).step_hint
    eval_every_steps = request.eval_every_steps or max(1, max_steps // EVALUATIONS)
    shared = dataclasses.replace(
        shared,
        max_steps=max_steps,
        eval_every_steps=eval_every_steps,
        until="end",
        retry_failed=True,
        out=request.out or Path("compare") / definition.name,
    )
    runs = [
        _run(shared, _workload(definition, technique), technique, framework, size, trial)
        for trial, technique, size, framework in itertools.product(
            range(1, request.trials + 1),
            _or_default(techniques),
            _or_default(batch_sizes),
            _or_default(frameworks),
        )
    ]
    threads = request.threads or max(1, hardware.thread_count() // request.workers)
    _check_folders(runs, threads, may_run=request.may_run)
    return ComparePlan(
        definition=definition,
        scale=scale_name,
        data=kind,
        target=own_target if request.target is None else request.target,
        max_steps=max_steps,
        eval_every_steps=eval_every_steps,
        out=shared.out,
        threads=threads,
        arms=list(dict.fromkeys(run.arm for run, _ in runs)),
        runs=[run for run, _ in runs],
    )


def _asked(option: str, given: Sequence[T] | None) -> list[T] | None:
    """Return the names in a list without repetitions; None where the option was not given."""
    if given is not None and not given:
        raise UserError(f"{option} names nothing; give names or numbers with commas between")
    return None if given is None else list(dict.fromkeys(given))


def _or_default(named: Sequence[T] | None) -> Sequence[T | None]:
    """Return the values by which rows vary; None among them stands for the default."""
    return [None] if named is None else named


def technique_names(
    definition: WorkloadDefinition, given: Sequence[str] | None
) -> list[str] | None:
    """Return the techniques that were asked for, by their own names and without repetitions.

    Args:
        definition: The workload.
        given: The names as given, with aliases; None where the option was not given.

    Returns:
        The names, or None where the option was not given.

    Raises:
        UserError: The workload has no variant for one of them, in which case near matches are
            named; or the workload is a variant itself.
    """
    names = _asked("--techniques", given)
    if names is None:
        return None
    if definition.base is not None:
        raise UserError(
            f"--techniques: {definition.name} is a variant itself; give {definition.base}"
        )
    names = [ALIASES.get(name, name) for name in names]
    for name in names:
        allowed = [FULL, *sorted(definition.variants)]
        choose(f"technique of {definition.name}", name, allowed)
    return _asked("--techniques", names)


def _check_combination(
    techniques: list[str] | None, frameworks: list[str] | None, batch_sizes: list[int] | None
) -> None:
    if techniques is not None and batch_sizes is not None:
        raise UserError(
            "--techniques with --batch-sizes: a step would cost and learn another amount in every "
            "row for two reasons; give one of them, either may go with --frameworks"
        )
    lists: list[Sequence[object] | None] = [techniques, frameworks, batch_sizes]
    if not any(each is not None and len(each) > 1 for each in lists):
        raise UserError(
            "nothing to compare: give two or more names or sizes to --techniques, --frameworks or "
            "--batch-sizes"
        )


def _workload(definition: WorkloadDefinition, technique: str | None) -> str:
    if technique in (None, FULL):
        return definition.reference
    separator = "_" if definition.reference == definition.name else ":"
    return f"{definition.reference}{separator}{technique}"


def _run(
    shared: RunRequest,
    reference: str,
    technique: str | None,
    framework: str | None,
    batch_size: int | None,
    trial: int,
) -> tuple[Run, run_plan.RunPlan]:
    """Return one run, and the plan that `algoperf run` will make for it."""
    request = dataclasses.replace(
        shared,
        workload=reference,
        framework=framework,
        batch_size=batch_size,
        trials=trial,
        trial_range=f"{trial}:{trial}",
    )
    plan = run_plan.make(request)
    if batch_size is not None:  # All runs in a folder must have the same batch size.
        experiment = f"{plan.trial.experiment}-batch-{batch_size}"
        request = dataclasses.replace(request, experiment=experiment)
        plan = run_plan.make(request)
    trial_plan = plan.trial
    name = trial_plan.workload
    arm = Arm(name, trial_plan.framework, technique, batch_size)
    folder = run_log.trial_folder(
        *(
            shared.out,
            trial_plan.experiment,
            plan.outline.name,
            0,
            name,
            trial_plan.framework,
            trial,
        )
    )
    return Run(arm, trial, request, folder, trial_plan.experiment), plan


def _check_folders(
    runs: Sequence[tuple[Run, run_plan.RunPlan]], threads: int, *, may_run: bool
) -> None:
    """Raise UserError where a run folder holds results of other settings.

    So no run is skipped whose result is not the one that was asked for. The machine is compared
    only if a run is left to be started on it.
    """
    machine: dict[str, Any] = {}
    if may_run and not all(run.has_ended(run.folder) for run, _ in runs):
        machine = {"versions": hardware.versions(), "hardware": hardware.describe()}
        if local.CAN_PIN:
            machine["hardware"]["threads"] = threads
    for run, plan in runs:
        settings = {**study.asked_settings(plan.trial, plan.outline), **machine}
        run_log.check_same_configuration(run.folder, settings)

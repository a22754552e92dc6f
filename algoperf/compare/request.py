"""Which runs a comparison has: rows that differ in one or two ways, each with its seeds."""

import argparse
import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from algoperf import (
    backends,
    hardware,
    run_arguments,
    run_log,
    run_plan,
    study,
    workers,
    workload,
)
from algoperf.argument_types import Parser
from algoperf.data import sources
from algoperf.spec import UserError
from algoperf.workload import Target, WorkloadDefinition

FULL = "full"  # the technique that is the workload itself
ALIASES = {"adapter": "adapters"}
EVALUATIONS = 20  # of a run, beside the one after its first step
T = TypeVar("T")
# What every run is given by the comparison itself, or cannot share with the others.
OWN_OPTIONS = frozenset(
    f"--{name}"
    for name in (
        *("workload", "submission", "framework", "scale", "data", "pretrained", "batch-size"),
        *("seed", "studies", "trials", "trial-range", "max-steps", "eval-every-steps", "until"),
        *("experiment", "out", "json", "skip-bad-rows", "suite", "save-model"),
    )
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A row of the comparison. `technique` and `batch_size` are None where they were not asked
    for.
    """

    workload: str
    framework: str
    technique: str | None = None
    batch_size: int | None = None

    @property
    def label(self) -> str:
        """What tells it from the other rows."""
        batch = None if self.batch_size is None else f"batch {self.batch_size}"
        return " ".join(filter(None, (self.technique, batch, self.framework)))


@dataclasses.dataclass(frozen=True)
class Run:
    """One trial of a row, as an `algoperf run` of its own."""

    arm: Arm
    trial: int  # from 1
    words: tuple[str, ...]  # after `run`
    folder: Path
    experiment: str

    def command(self, out: Path) -> list[str]:
        """The `algoperf run` arguments."""
        return ["run", *self.words]

    def has_ended(self, out: Path) -> bool:
        """Whether it has a result; a failed run is run again."""
        result = run_log.read_result(self.folder)
        return result is not None and result["status"] != "failed"

    def prepare(self, out: Path) -> None:
        """`algoperf run` itself goes on where it was interrupted."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A comparison: its rows in order, its runs in the order in which they are run (trial by trial,
    so that an early end leaves something of each row), and what all rows share.
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


def make(arguments: argparse.Namespace) -> Request:
    """Check what was asked by the arguments of `algoperf compare`, before any framework is loaded.

    Raises UserError, in one line, for what cannot be compared, and where run folders below --out
    were made by other settings.
    """
    definition = workload.find(arguments.workload)
    techniques = technique_names(definition, arguments.techniques)
    frameworks = _asked("--frameworks", arguments.frameworks)
    for name in frameworks or []:
        workload.choose("framework", name, list(backends.FRAMEWORKS))
    batch_sizes = _asked("--batch-sizes", arguments.batch_sizes)
    _check_combination(techniques, frameworks, batch_sizes)
    scale_name = workload.choose(
        f"scale of {definition.name}", arguments.scale, list(definition.scales)
    )
    scale = definition.scales[scale_name]
    kind, _ = sources.resolve(definition, scale, arguments.data)
    target: Target | None = scale.on(kind).targets.get(kind)
    own_target = None if target is None else target.validation
    arguments.max_steps = arguments.max_steps or scale.on(kind).step_hint
    arguments.eval_every_steps = arguments.eval_every_steps or max(
        1, arguments.max_steps // EVALUATIONS
    )
    arguments.out = arguments.out or Path("compare") / definition.name
    extra = _run_options(arguments.run_options)
    runs = [
        _run(arguments, _workload(definition, technique), technique, framework, size, trial, extra)
        for trial, technique, size, framework in itertools.product(
            range(1, arguments.trials + 1),
            *(each or [None] for each in (techniques, batch_sizes, frameworks)),
        )
    ]
    threads = arguments.threads or max(1, hardware.thread_count() // arguments.workers)
    _check_folders(runs, threads, may_run=not arguments.no_run)
    return Request(
        definition=definition,
        scale=scale_name,
        data=kind,
        target=own_target if arguments.target is None else arguments.target,
        max_steps=arguments.max_steps,
        eval_every_steps=arguments.eval_every_steps,
        out=arguments.out,
        threads=threads,
        arms=list(dict.fromkeys(run.arm for run, _ in runs)),
        runs=[run for run, _ in runs],
    )


def _asked(option: str, given: list[T] | None) -> list[T] | None:
    """What a list names, each once; None where the option was not given."""
    if given == []:
        raise UserError(f"{option} names nothing; give names or numbers with commas between")
    return None if given is None else list(dict.fromkeys(given))


def technique_names(definition: WorkloadDefinition, given: list[str] | None) -> list[str] | None:
    """The techniques that were asked for, by their own names, each once; None where none was.

    Raises UserError, with near matches, for one that the workload has no variant for.
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
        workload.choose(f"technique of {definition.name}", name, allowed)
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
        return definition.name
    return f"{definition.name}_{technique}"


def _run_options(text: str) -> list[str]:
    """The words of --run-options; none may be among what the comparison itself gives."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--run-options {text!r}: {error}") from error
    for word in words:
        if word.partition("=")[0] in OWN_OPTIONS:
            raise UserError(
                f"--run-options: {word} cannot be given for all runs; see: algoperf compare --help"
            )
    return words


def _run(
    arguments: argparse.Namespace,
    name: str,
    technique: str | None,
    framework: str | None,
    batch_size: int | None,
    trial: int,
    extra: Sequence[str],
) -> tuple[Run, run_plan.RunPlan]:
    """One run, and the plan that `algoperf run` will make of its words."""
    words = [*extra, "--workload", name, "--submission", arguments.submission]
    words += ["--scale", arguments.scale, "--out", str(arguments.out), "--until", "end"]
    words += ["--max-steps", str(arguments.max_steps)]
    words += ["--eval-every-steps", str(arguments.eval_every_steps)]
    words += ["--seed", str(arguments.seed)]
    words += ["--trials", str(trial), "--trial-range", f"{trial}:{trial}", "--retry-failed"]
    given = {"--framework": framework, "--data": arguments.data}
    given["--pretrained"] = arguments.pretrained
    words += [word for option, value in given.items() if value for word in (option, value)]
    if arguments.skip_bad_rows:
        words.append("--skip-bad-rows")
    if batch_size is not None:
        words += ["--batch-size", str(batch_size)]
    plan = _plan(words)
    if batch_size is not None:  # a folder of a workload has one batch size
        words += ["--experiment", f"{plan.trial.experiment}-batch-{batch_size}"]
        plan = _plan(words)
    made = plan.trial
    arm = Arm(name, made.framework, technique, batch_size)
    folder = run_log.trial_folder(
        *(arguments.out, made.experiment, plan.outline.name, 0, name, made.framework, trial)
    )
    return Run(arm, trial, tuple(words), folder, made.experiment), plan


def _plan(words: Sequence[str]) -> run_plan.RunPlan:
    parser = Parser(prog="algoperf run")
    run_arguments.declare(parser)
    return run_plan.make(parser.parse_args(words), "", show_progress=False)


def _check_folders(
    runs: Sequence[tuple[Run, run_plan.RunPlan]], threads: int, *, may_run: bool
) -> None:
    """Raise UserError where a folder holds runs of other settings: nothing is skipped that is not
    what was asked for. The machine counts where something is left to run on it.
    """
    machine: dict[str, Any] = {}
    if may_run and not all(run.has_ended(run.folder) for run, _ in runs):
        machine = {"versions": hardware.versions(), "hardware": hardware.describe()}
        if workers.CAN_PIN:
            machine["hardware"]["threads"] = threads
    for run, plan in runs:
        settings = {**study.asked_settings(plan.trial, plan.outline), **machine}
        run_log.check_same_configuration(run.folder, settings)

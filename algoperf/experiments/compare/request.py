"""Plan the runs of a comparison: rows that differ in one or two ways, each with its trials."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from algoperf import backends
from algoperf.backends.ranks import SHARDS
from algoperf.data import validation_seed
from algoperf.data.formats import sources
from algoperf.errors import UserError, choose, is_finite_number
from algoperf.machine import hardware
from algoperf.run_folder import run_log, writing
from algoperf.study import run_plan, study
from algoperf.study.executors import local
from algoperf.study.request import RunRequest, check_whole
from algoperf.submission import loading, search_space
from algoperf.submission.loading import Outline
from algoperf.trial import default_point
from algoperf.workload import Target, WorkloadDefinition, catalogue

FULL = "full"  # The name for training all parameters of the workload itself.
ALIASES = {"adapter": "adapters"}
EVALUATIONS = 20  # The evaluations of a run, besides the one after its first step.
SETTINGS = ("technique", "batch_size", "shard", "submission", "learning_rate")  # fields of an arm
# A row differs from another by what one of these groups names, and by its framework.
GROUPS = (
    ("--techniques",),
    ("--batch-sizes",),
    ("--submissions", "--learning-rates"),
    ("--submissions", "--shards"),
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class CompareRequest:
    """A request for a comparison, from `algoperf compare` or `algoperf.compare`.

    Attributes:
        run: The settings that all runs share: workload, submission, scale, data, seed and others.
            Those that the comparison sets for each run (framework, batch size, length, folder, and
            the submission where `submissions` are given) are ignored.
        submissions: Files, folders or names of submissions.
        learning_rates: Values in place of each submission's own learning rate.
        techniques: The techniques: FULL, or suffixes of the workload's variants.
        frameworks: 'jax', 'pytorch' or both.
        batch_sizes: The numbers of rows in a batch.
        shards: What the devices of `run` divide among them, as `RunRequest.shard`.
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
    submissions: Sequence[str] | None = None
    learning_rates: Sequence[float] | None = None
    techniques: Sequence[str] | None = None
    frameworks: Sequence[str] | None = None
    batch_sizes: Sequence[int] | None = None
    shards: Sequence[str] | None = None
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
        shard: What the devices divide among them; None where the comparison names nothing.
        submission: The submission's name; None where the comparison names none.
        learning_rate: The learning rate; None where the comparison names none.
    """

    workload: str
    framework: str
    technique: str | None = None
    batch_size: int | None = None
    shard: str | None = None
    submission: str | None = None
    learning_rate: float | None = None

    @property
    def setting(self) -> Mapping[str, Any]:
        """What tells this row from the others, but for the framework: the values by name."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def label(self) -> str:
        """The text that tells this row from the others."""
        words = {"batch_size": "batch ", "shard": "shard ", "learning_rate": "rate "}
        parts = [
            f"{words.get(name, '')}{setting_text(value)}" for name, value in self.setting.items()
        ]
        return " ".join([*parts, self.framework])


def setting_text(value: object) -> str:
    """Return the text of a setting's value; of a number the shortest that is exact."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


@dataclasses.dataclass(frozen=True)
class Run:
    """One trial of a row, as an `algoperf run` of its own.

    Attributes:
        arm: The row.
        trial: The trial's number, from 1.
        request: The request for the run.
        folder: The trial's run folder.
        experiment: The name of the experiment, which is part of the run folder's path.
        space: The content of the search space's file that the request names, as JSON; None where
            it names none.
    """

    arm: Arm
    trial: int  # from 1
    request: RunRequest
    folder: Path
    experiment: str
    space: str | None = None

    @property
    def words(self) -> list[str]:
        """The arguments of `algoperf`, of which 'run' is the first."""
        return ["run", *self.request.words()]

    def command(self, out: Path) -> list[str]:
        """Return `words`, and write the search space that they name, if there is one."""
        if self.space is not None:
            path, content = Path(str(self.request.search_space)), json.loads(self.space)
            if run_log.read_json(path) != content:
                with writing.asked("--out", out):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    run_log.write_json(path, content)
        return self.words

    def folders(self, out: Path) -> list[Path]:
        """Return its trial's run folder, in a list."""
        return [self.folder]

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
        submissions: The names of the submissions.
        standard_input: What each run reads there: the secret that draws its validation rows.
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
    submissions: Sequence[str]
    standard_input: str | None = dataclasses.field(default=None, repr=False)


def make(request: CompareRequest) -> ComparePlan:
    """Return the plan of a comparison, before any framework is loaded.

    Raises:
        UserError: There is nothing to compare, or something unknown, or the run folders below `out`
            were written with other settings.
    """
    shared = request.run
    for name in ("trials", "workers", "threads"):
        value = getattr(request, name)
        if name != "threads" or value is not None:
            check_whole(name, value)
    if request.target is not None and not is_finite_number(request.target):
        raise UserError(f"--target {request.target!r} is not a finite number")
    definition = catalogue.find(shared.workload)
    techniques = technique_names(definition, request.techniques)
    frameworks = _asked("--frameworks", request.frameworks)
    for name in frameworks or []:
        choose("framework", name, list(backends.FRAMEWORKS))
    batch_sizes = _asked("--batch-sizes", request.batch_sizes)
    shards = _asked("--shards", request.shards)
    for name in shards or []:
        choose("--shards", name, list(SHARDS))
    if shards is not None and shared.shard != RunRequest.shard:
        raise UserError(
            f"--shards with --shard {shared.shard}: every row has its own; leave it out"
        )
    rates = _learning_rates(request)
    submissions = (
        None if request.submissions is None else _listed("--submissions", request.submissions)
    )
    _check_combination(
        {
            "--techniques": techniques,
            "--batch-sizes": batch_sizes,
            "--shards": shards,
            "--submissions": submissions,
            "--learning-rates": rates,
            "--frameworks": frameworks,
        }
    )
    outlines = loading.inspect_all("--submissions", submissions or [shared.submission])
    if submissions is not None and frameworks is None:
        frameworks = [_common_framework(outlines)]
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
        _run(
            dataclasses.replace(
                shared,
                workload=_workload(definition, technique),
                submission=loading.reference(outline),
                framework=framework,
                batch_size=size,
                shard=shard or shared.shard,
            ),
            outline,
            Arm("", "", technique, size, shard, outline.name if submissions else None, rate),
            trial,
        )
        for trial, technique, size, shard, outline, rate, framework in itertools.product(
            range(1, request.trials + 1),
            _or_default(techniques),
            _or_default(batch_sizes),
            _or_default(shards),
            outlines,
            _or_default(rates),
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
        submissions=[outline.name for outline in outlines],
        standard_input=validation_seed.as_input(shared.validation_seed),
    )


def _asked(option: str, given: Iterable[T] | None) -> list[T] | None:
    """Return the names in a list without repetitions; None where the option was not given."""
    return None if given is None else list(dict.fromkeys(_listed(option, given)))


def _listed(option: str, given: Iterable[T]) -> list[T]:
    """Return what was given as a list; UserError where it is none, or empty."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UserError(f"{option} is {given!r}, expected a list")
    listed = list(given)
    if not listed:
        raise UserError(f"{option} names nothing; give names or numbers with commas between")
    return listed


def _learning_rates(request: CompareRequest) -> list[float] | None:
    """Return the learning rates that were asked for; None where the option was not given."""
    if request.learning_rates is None:
        return None
    given = _listed("--learning-rates", request.learning_rates)
    for index, rate in enumerate(given):
        if not is_finite_number(rate) or rate <= 0:
            raise UserError(f"--learning-rates: {rate!r} is not a finite number above 0")
        if rate in given[:index]:
            raise UserError(f"--learning-rates: {rate!r} is named twice")
    for option in ("tuning_ruleset", "search_space"):
        if getattr(request.run, option) is not None:
            raise UserError(
                f"--learning-rates with --{option.replace('_', '-')}: every run has a point of its "
                "own already; leave it out"
            )
    return list(map(float, given))


def _common_framework(outlines: Sequence[Outline]) -> str:
    """Return the first framework that all submissions serve, so that their times compare."""
    for framework in backends.FRAMEWORKS:
        if all(framework in outline.frameworks for outline in outlines):
            return framework
    served = "; ".join(f"{each.name}: {', '.join(each.frameworks)}" for each in outlines)
    raise UserError(f"--submissions: no framework is served by all of them ({served})")


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


def _check_combination(lists: Mapping[str, Sequence[object] | None]) -> None:
    """Raise UserError where rows would differ for two reasons, or for none.

    Args:
        lists: What was given by option; None where it was not.
    """
    named = [option for group in GROUPS for option in group if lists[option] is not None]
    for one, other in itertools.combinations(named, 2):
        if not any(one in group and other in group for group in GROUPS):
            raise UserError(
                f"{one} with {other}: a step would cost and learn another amount in every row for "
                "two reasons; give one of them, either may go with --frameworks"
            )
    if not any(each is not None and len(each) > 1 for each in lists.values()):
        *others, last = sorted(lists)
        raise UserError(
            f"nothing to compare: give two or more names or numbers to {', '.join(others)} or "
            f"{last}"
        )


def _workload(definition: WorkloadDefinition, technique: str | None) -> str:
    if technique in (None, FULL):
        return definition.reference
    separator = "_" if definition.reference == definition.name else ":"
    return f"{definition.reference}{separator}{technique}"


def _run(
    request: RunRequest, outline: Outline, arm: Arm, trial: int
) -> tuple[Run, Mapping[str, Any]]:
    """Return one run, and the settings that `algoperf run` will record in its folder.

    Args:
        request: What all trials of the row share.
        outline: The submission.
        arm: The row, without its workload and framework.
        trial: The trial's number, from 1.
    """
    request = dataclasses.replace(request, trials=trial, trial_range=f"{trial}:{trial}")
    plan = run_plan.make(request)
    # All runs in a folder must have the same batch size and learning rate.
    experiment = plan.trial.experiment
    if arm.batch_size is not None:
        experiment += f"-batch-{arm.batch_size}"
    if arm.shard is not None:
        experiment += f"-shard-{arm.shard}"
    space = None
    if arm.learning_rate is not None:
        rate = setting_text(arm.learning_rate).replace("+", "")
        experiment += f"-rate-{rate}"
        space = default_point.at_learning_rate(plan.trial, arm.learning_rate)
    if experiment != plan.trial.experiment:
        request = dataclasses.replace(request, experiment=experiment)
        plan = run_plan.make(request)
    settings = study.asked_settings(plan.trial, plan.outline)
    if space is not None:
        file = request.out / "learning-rates" / f"{outline.name}-{plan.trial.framework}-{rate}.json"
        settings["search_space"] = search_space.parse(space, str(file)).digest
        request = dataclasses.replace(request, search_space=str(file))
    name, framework = plan.trial.workload, plan.trial.framework
    folder = run_log.trial_folder(
        *(request.out, experiment, outline.name, 0, name, framework, trial)
    )
    arm = dataclasses.replace(arm, workload=name, framework=framework)
    content = None if space is None else json.dumps(space)
    return Run(arm, trial, request, folder, experiment, content), settings


def _check_folders(
    runs: Sequence[tuple[Run, Mapping[str, Any]]], threads: int, *, may_run: bool
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
    for run, settings in runs:
        may_change = run.request.change_devices
        run_log.check_same_as_begun(
            run.folder, {**settings, **machine}, may_change_devices=may_change
        )

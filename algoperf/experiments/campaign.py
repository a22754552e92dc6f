"""Run many `algoperf run`s, to set or check a workload's target or to fill a leaderboard.

Every run is pinned to one core, and a few run at a time. Runs for a target are limited in steps,
so their figures do not depend on the machine. Runs for a leaderboard are scored by time, and
`algoperf score` reads them. A campaign that is started again skips runs that have a result.
"""

import csv
import dataclasses
import itertools
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import reference_algorithms
from algoperf.data.validation_seed import ValidationSeed
from algoperf.errors import UserError
from algoperf.machine import class_file
from algoperf.machine.hardware_class import HardwareClass
from algoperf.run_folder import run_log
from algoperf.study import outrun, run_plan
from algoperf.study.request import RunRequest
from algoperf.study.study import lasting_result
from algoperf.submission import loading
from algoperf.submission.loading import Outline
from algoperf.trial import default_point
from algoperf.workload import WorkloadDefinition, catalogue

COLUMNS = (
    "workload",
    "submission",
    "framework",
    "learning_rate_factor",
    "seed",
    "status",
    "step",
    "value",
)
EVAL_EVERY_STEPS = 20  # usually, of runs for a target


@dataclasses.dataclass(frozen=True)
class Job:
    """One run for a target: a submission at its defaults, with another learning rate.

    Attributes:
        workload: The workload.
        submission: The name of the submission, as in the run folder.
        framework: The framework.
        seed: The seed of the run.
        factor: The factor by which the default learning rate is multiplied.
        steps: The length of the run in steps.
        eval_every_steps: The steps between evaluations.
        until: Where the run stops; 'end' is after `steps`, past any target.
        suite: The file of the suite that has the workload, or None.
        validation_seed: The secret that draws its validation rows, or None.
    """

    workload: str
    submission: str
    framework: str
    seed: int
    factor: float
    steps: int
    eval_every_steps: int
    until: str = "end"
    suite: str | None = None
    reference: str | None = None  # what finds the workload, where that is not its name
    source: str | None = None  # what finds the submission, where that is not its name
    rerun_contended: bool = False  # whether a result that others' work delayed is repeated
    validation_seed: ValidationSeed | None = None

    @property
    def experiment(self) -> str:
        """The name of the experiment; no two jobs of one submission and framework share it."""
        name = f"seed-{self.seed}-rate-{self.factor:g}-steps-{self.steps}-{self.until}"
        secret = self.validation_seed
        return name if secret is None else f"{name}-validation-{secret.short}"

    def command(self, out: Path) -> list[str]:
        """Return the arguments of `algoperf`, of which 'run' is the first.

        A learning rate other than the default is written to a file below `out`, as a search space
        of a single point.
        """
        request = RunRequest(
            workload=self.reference or self.workload,
            submission=self.source or self.submission,
            framework=self.framework,
            seed=self.seed,
            until=self.until,
            max_steps=self.steps,
            eval_every_steps=self.eval_every_steps,
            experiment=self.experiment,
            out=out,
            suite=self.suite,
            rerun_contended=self.rerun_contended,
            validation_seed=self.validation_seed,
        )
        if self.factor != 1:
            path = str(self._write_point(request))
            request = dataclasses.replace(request, search_space=path)
        return ["run", *request.words()]

    def _write_point(self, request: RunRequest) -> Path:
        plan = run_plan.make(request)
        rate = self.factor * default_point.learning_rate(plan.trial)
        point = {**default_point.default_point(plan.trial), default_point.RATE: rate}
        # A point in the full form may be drawn, which depends on the seed.
        end = f"-seed-{self.seed}" if plan.outline.is_full_form else ""
        path = request.out / f"{self.submission}-rate-{self.factor:g}{end}.json"
        run_log.write_json(path, [point])
        return path

    def folder(self, out: Path) -> Path:
        """Return the run folder of its trial."""
        return run_log.trial_folder(
            out, self.experiment, self.submission, 0, self.workload, self.framework, 1
        )

    def folders(self, out: Path) -> list[Path]:
        """Return the run folder of its trial, in a list."""
        return [self.folder(out)]

    def has_ended(self, out: Path) -> bool:
        """Return whether the run has a result that stays.

        A failed run is run again, and one that others' work delayed if that is asked. Where a
        result is of other evaluations, this returns False, and `algoperf run` reports it.
        """
        folder = self.folder(out)
        result = run_log.read_result(folder)
        if result is None or result["status"] == "failed":
            return False
        if not _is_evaluated_so(run_log.read_flags(folder) or {}, self.eval_every_steps):
            return False
        return not (self.rerun_contended and run_log.is_contended(folder))

    def prepare(self, out: Path) -> None:
        """Move what a failed run left aside; one that was stopped or killed goes on from there."""
        if self.rerun_contended and run_log.is_contended(self.folder(out)):
            return  # `algoperf run` itself moves that.
        if not _is_evaluated_so(run_log.read_flags(self.folder(out)) or {}, self.eval_every_steps):
            return
        if lasting_result(self.folder(out)) is not None:
            run_log.set_aside(self.folder(out))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One study of a leaderboard: a submission on a workload under a tuning ruleset.

    Attributes:
        workload: The workload.
        submission: The name of the submission, as in the run folder.
        framework: The framework.
        ruleset: 'external' or 'self'; None runs a submission at its defaults.
        trials: The number of trials of the study.
        study: The study's number, from 0.
        seed: The seed of the run.
        suite: The file of the suite that has the workload, or None.
        validation_seed: The secret that draws its validation rows, or None.
        target: The target on the validation split, or None.
        alone: Whether studies before it are left as they are.
        hardware_class: The file of the class whose budgets hold, or None.
        known: That class, or None.
        stop_outrun: Whether trials end once another of their study has a better time.
        late_of: How many studies each submission has, where trials end once another submission is
            far ahead in all of its own; None where they do not.
        eval_every_steps: The steps between evaluations; None evaluates by time.
    """

    workload: str
    submission: str
    framework: str
    ruleset: str | None
    trials: int
    study: int
    seed: int = 0
    suite: str | None = None
    target: float | None = None
    reference: str | None = None  # what finds the workload, where that is not its name
    source: str | None = None  # what finds the submission, where that is not its name
    rerun_contended: bool = False  # whether a result that others' work delayed is repeated
    validation_seed: ValidationSeed | None = None
    alone: bool = False
    hardware_class: str | None = None
    known: HardwareClass | None = None
    stop_outrun: bool = False
    late_of: int | None = None
    eval_every_steps: int | None = None

    @property
    def experiment(self) -> str:
        """The name of the experiment, which is the same for the whole leaderboard."""
        name = f"leaderboard-{self.ruleset or 'defaults'}"
        return name if self.known is None else f"{name}-class-{self.known.name}"

    def command(self, out: Path) -> list[str]:
        """Return the arguments of `algoperf`, of which 'run' is the first."""
        request = RunRequest(
            workload=self.reference or self.workload,
            submission=self.source or self.submission,
            framework=self.framework,
            tuning_ruleset=self.ruleset,
            trials=self.trials,
            studies=self.late_of or self.study + 1,
            study_range=f"{self.study}:{self.study}" if self.alone or self.late_of else None,
            seed=self.seed,
            experiment=self.experiment,
            out=out,
            suite=self.suite,
            rerun_contended=self.rerun_contended,
            validation_seed=self.validation_seed,
            hardware_class=self.hardware_class,
            stop_outrun=self.stop_outrun,
            stop_late=self.late_of is not None,
            eval_every_steps=self.eval_every_steps,
        )
        return ["run", *request.words()]

    def folder(self, out: Path, trial: int) -> Path:
        """Return the run folder of one of its trials.

        Args:
            out: The folder of the runs.
            trial: The trial's number, from 1.
        """
        return run_log.trial_folder(
            out,
            self.experiment,
            self.submission,
            self.study,
            self.workload,
            self.framework,
            trial,
        )

    def folders(self, out: Path) -> list[Path]:
        """Return the run folders of its trials."""
        return [self.folder(out, trial) for trial in range(1, self.trials + 1)]

    def has_ended(self, out: Path) -> bool:
        """Return whether all its trials have a result for what is asked, failed or not.

        That is the same target, rows, hardware class and steps between evaluations.

        Where a result is for others, this returns False, and `algoperf run` reports it.
        """
        folders = self.folders(out)
        if self.rerun_contended and any(map(run_log.is_contended, folders)):
            return False
        if not all(map(self._is_as_asked, folders)):
            return False
        return all(self._is_result(folder, run_log.read_result(folder)) for folder in folders)

    def _is_as_asked(self, folder: Path) -> bool:
        flags = run_log.read_flags(folder) or {}
        recorded = flags.get("hardware_class") or {}
        if recorded.get("id") != (None if self.known is None else self.known.id):
            return False
        return _is_evaluated_so(flags, self.eval_every_steps)

    def _is_result(self, folder: Path, result: dict[str, Any] | None) -> bool:
        if result is None or result["target"]["validation"] != self.target:
            return False
        if not outrun.is_still_early(folder, result):
            return False
        secret = self.validation_seed
        commitment = None if secret is None else secret.commitment
        return bool(result.get("validation_commitment") == commitment)

    def prepare(self, out: Path) -> None:
        """Do nothing, since `algoperf run` itself resumes an interrupted trial."""


def _is_evaluated_so(flags: Mapping[str, Any], eval_every_steps: int | None) -> bool:
    """Return whether a configuration is not known to be evaluated otherwise."""
    return bool(flags.get("eval_every_steps", eval_every_steps) == eval_every_steps)


def suite_words(path: str | None) -> list[str]:
    """Return the words of a command line that name a suite; none without a suite."""
    return [] if path is None else ["--suite", path]


def jobs(
    workload: str,
    submissions: Sequence[str],
    frameworks: Sequence[str],
    seeds: int,
    factors: Sequence[float],
    steps: int,
    eval_every_steps: int,
    until: str = "end",
    suite: str | None = None,
    reference: str | None = None,
    rerun_contended: bool = False,
    validation_seed: ValidationSeed | None = None,
) -> list[Job]:
    """Return a job for each combination, seed by seed.

    In this order each combination has some results if the campaign ends early. A submission has no
    jobs in a framework that it does not support.

    Args:
        workload: The name of the workload.
        submissions: Files, folders or names of submissions; if empty, all reference algorithms.
        frameworks: The frameworks.
        seeds: The number of seeds, from 0.
        factors: The factors of the default learning rate.
        steps: The length of each run in steps.
        eval_every_steps: The steps between evaluations.
        until: Where the runs stop.
        suite: The file of the suite that has the workload, or None.
        reference: What finds the workload, where that is not its name.
        rerun_contended: Whether results that others' work delayed are repeated.
        validation_seed: The secret that draws the validation rows, or None.

    Raises:
        UserError: One of the submissions is not found, or supports none of the frameworks.
    """
    frameworks = list(dict.fromkeys(frameworks))
    outlines = _outlines(submissions, frameworks)
    return [
        Job(
            *(workload, outline.name, framework, seed, factor, steps, eval_every_steps),
            *(until, suite, reference, source_of(outline), rerun_contended, validation_seed),
        )
        for seed, factor, outline, framework in itertools.product(
            range(seeds), dict.fromkeys(factors), outlines, frameworks
        )
        if framework in outline.frameworks
    ]


def _outlines(submissions: Sequence[str], frameworks: Sequence[str]) -> list[Outline]:
    """Return the outlines of submissions; if none is named, of all reference algorithms."""
    if not submissions:
        names = reference_algorithms.names()
        return [loading.inspect(reference_algorithms.path(name)) for name in names]
    outlines = loading.inspect_all("--submissions", submissions)
    for outline in outlines:
        if not set(frameworks) & set(outline.frameworks):
            loading.choose_framework(outline, frameworks[0])  # raises the message for it
    return outlines


def source_of(outline: Outline) -> str | None:
    """Return what finds a submission, where that is not its name."""
    reference = loading.reference(outline)
    return None if reference == outline.name else reference


def entries(
    workloads: Sequence[str],
    submissions: Sequence[str],
    frameworks: Sequence[str],
    ruleset: str | None,
    trials: int,
    studies: int,
    suite: str | None = None,
    rerun_contended: bool = False,
    validation_seed: ValidationSeed | None = None,
    alone: bool = False,
    hardware_class: str | None = None,
    stop_outrun: bool = False,
    stop_late: bool = False,
    eval_every_steps: int | None = None,
) -> list[Entry]:
    """Return the entries of a leaderboard, study by study and workload by workload.

    In this order whole columns of the leaderboard are complete if the campaign ends early. Where
    trials may be late beside another submission, all studies of that one come first, workload by
    workload.

    Args:
        workloads: The names of the workloads, or the paths of their folders.
        submissions: Files, folders or names of submissions. If empty, all reference algorithms
            that the ruleset is meant for: those with a search space, or under self-tuning those
            without.
        frameworks: The frameworks; a submission that does not support one has no entry there.
        ruleset: 'external' or 'self'; None runs submissions at their defaults.
        trials: The number of trials of a study, under the external ruleset.
        studies: The number of studies.
        suite: The file of the suite that has the workloads, or None.
        rerun_contended: Whether trials that others' work delayed are repeated.
        validation_seed: The secret that draws the validation rows, or None.
        alone: Whether each study is run without those before it.
        hardware_class: The file of the class whose budgets hold, or None.
        stop_outrun: Whether trials end once another of their study has a better time.
        stop_late: Whether trials end once another submission is far ahead in all of its studies.
        eval_every_steps: The steps between evaluations; None evaluates by time.
    """
    known = None if hardware_class is None else class_file.read(hardware_class)
    workloads, frameworks = list(dict.fromkeys(workloads)), list(dict.fromkeys(frameworks))
    if not workloads:
        raise UserError("--workload names nothing; give names with commas between")
    outlines = _outlines(submissions, frameworks)
    external = ruleset == "external"
    definitions = [catalogue.find(name, suite) for name in workloads]
    if stop_late:
        outrun.check_late(suite, [definition.base for definition in definitions])
    of_each = [
        (definition, framework, outline)
        for definition, framework, outline in itertools.product(definitions, frameworks, outlines)
        if framework in outline.frameworks and (submissions or outline.has_search_space == external)
    ]
    places = [(study, *each) for study in range(studies) for each in of_each]
    if stop_late:
        places = [(study, *each) for each in of_each for study in range(studies)]
    return [
        Entry(
            definition.name,
            outline.name,
            framework,
            ruleset,
            trials if external else 1,
            study,
            suite=suite,
            target=_target(definition),
            reference=definition.reference,
            source=source_of(outline),
            rerun_contended=rerun_contended,
            validation_seed=validation_seed,
            alone=alone,
            hardware_class=hardware_class,
            known=known,
            stop_outrun=stop_outrun,
            late_of=studies if stop_late else None,
            eval_every_steps=eval_every_steps,
        )
        for study, definition, framework, outline in places
    ]


def _target(definition: WorkloadDefinition) -> float | None:
    """Return the target of a run of the workload with the default scale and data, or None."""
    scale = definition.scales[RunRequest.scale]
    target = scale.targets.get(scale.default_source)
    return None if target is None else target.validation


def curves(todo: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """Return one row for every evaluation of every job that has ended.

    Each row has the columns `COLUMNS`; 'value' is the target metric on the validation split.
    """
    rows = []
    for job in todo:
        if not job.has_ended(out):
            continue
        result = run_log.read_result(job.folder(out)) or {}
        metric = f"validation/{result['target']['metric']}"
        for evaluation in run_log.evaluations(job.folder(out)):
            fixed = (
                job.workload,
                job.submission,
                job.framework,
                job.factor,
                job.seed,
                result["status"],
            )
            step, value = int(evaluation["global_step"]), evaluation[metric]
            rows.append(dict(zip(COLUMNS, (*fixed, step, value), strict=True)))
    return rows


def write_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows to a CSV file, completely or not at all."""
    # Another process, here or on another machine, may write the same file at the same time.
    neighbour = path.with_name(f".{path.name}.writing-{platform.node()}-{os.getpid()}")
    try:
        with neighbour.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        neighbour.replace(path)
    except OSError as error:
        neighbour.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def steps_to(
    rows: Sequence[dict[str, Any]], target: float, higher_is_better: bool
) -> dict[str, list[int | None]]:
    """Return the first step at which each run meets a target, or None where it never does.

    Args:
        rows: The rows that `curves` returns.
        target: The target.
        higher_is_better: Whether larger values of the metric are better.

    Returns:
        A list in the order of the seeds for each submission, framework and factor of the learning
        rate; the keys name all three.
    """
    by_kind: dict[str, dict[int, int | None]] = {}
    for row in rows:
        key = f"{row['submission']} {row['framework']} x{row['learning_rate_factor']:g}"
        met = row["value"] >= target if higher_is_better else row["value"] <= target
        by_seed = by_kind.setdefault(key, {})
        if by_seed.setdefault(row["seed"], None) is None and met:
            by_seed[row["seed"]] = row["step"]
    return {key: list(by_seed.values()) for key, by_seed in by_kind.items()}


def table(
    rows: Sequence[dict[str, Any]], targets: Sequence[float], higher_is_better: bool
) -> list[str]:
    """Return lines that say how many runs reached each target, and after how many steps.

    Each target has one line for each submission, framework and factor of the learning rate.
    """
    lines = []
    for target in targets:
        for key, steps in steps_to(rows, target, higher_is_better).items():
            reached = sorted(step for step in steps if step is not None)
            shown = json.dumps(reached)
            lines.append(
                f"target {target:g}: {key}: {len(reached)} of {len(steps)} reached, steps {shown}"
            )
    return lines

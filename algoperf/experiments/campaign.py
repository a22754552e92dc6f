"""Many runs, to set or check a workload's target or to fill a leaderboard: resumable, a few
one-thread processes at a time.

Every run is an `algoperf run` of its own, pinned to one core. Those for a target are counted in
steps, so their figures do not depend on the machine; those for a leaderboard are scored by time,
and `algoperf score` reads them. What has a result is skipped when the same campaign is started
again.
"""

import csv
import dataclasses
import importlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import reference_algorithms
from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study.request import RunRequest
from algoperf.submission import loading
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


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: a reference algorithm at its defaults, the learning rate multiplied by a factor."""

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

    @property
    def experiment(self) -> str:
        """The folder of its runs: no two jobs of one submission and framework share one."""
        return f"seed-{self.seed}-rate-{self.factor:g}-steps-{self.steps}-{self.until}"

    def command(self, out: Path) -> list[str]:
        """The `algoperf run` arguments; runs go on past the target, so that any target can be read
        off.
        """
        request = RunRequest(
            workload=self.reference or self.workload,
            submission=self.submission,
            framework=self.framework,
            seed=self.seed,
            until=self.until,
            max_steps=self.steps,
            eval_every_steps=self.eval_every_steps,
            experiment=self.experiment,
            out=out,
            search_space=None if self.factor == 1 else str(self._write_point(out)),
            suite=self.suite,
        )
        return ["run", *request.words()]

    def _write_point(self, out: Path) -> Path:
        module = importlib.import_module(f"reference_algorithms.{self.submission}")
        point = dict(module.DEFAULTS or {})
        if "learning_rate" not in point:
            raise UserError(
                f"{self.submission} has no learning_rate in DEFAULTS that "
                "--learning-rate-factors could multiply"
            )
        point["learning_rate"] *= self.factor
        path = out / f"{self.submission}-rate-{self.factor:g}.json"
        run_log.write_json(path, [point])
        return path

    def folder(self, out: Path) -> Path:
        """Where its trial is."""
        return run_log.trial_folder(
            out, self.experiment, self.submission, 0, self.workload, self.framework, 1
        )

    def has_ended(self, out: Path) -> bool:
        """Whether it has a result; a failed run is run again."""
        result = run_log.read_result(self.folder(out))
        return result is not None and result["status"] != "failed"

    def prepare(self, out: Path) -> None:
        """Set aside what a failed run left."""
        run_log.set_aside(self.folder(out))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One study of a leaderboard: a reference algorithm on a workload, under a tuning ruleset."""

    workload: str
    submission: str
    framework: str
    ruleset: str
    trials: int
    study: int
    seed: int = 0
    suite: str | None = None
    target: float | None = None
    reference: str | None = None  # what finds the workload, where that is not its name

    @property
    def experiment(self) -> str:
        """The folder of the whole leaderboard."""
        return f"leaderboard-{self.ruleset}"

    def command(self, out: Path) -> list[str]:
        """The `algoperf run` arguments."""
        request = RunRequest(
            workload=self.reference or self.workload,
            submission=self.submission,
            framework=self.framework,
            tuning_ruleset=self.ruleset,
            trials=self.trials,
            studies=self.study + 1,
            seed=self.seed,
            experiment=self.experiment,
            out=out,
            suite=self.suite,
        )
        return ["run", *request.words()]

    def folder(self, out: Path, trial: int) -> Path:
        """Where a trial of it is, counted from 1."""
        return run_log.trial_folder(
            out,
            self.experiment,
            self.submission,
            self.study,
            self.workload,
            self.framework,
            trial,
        )

    def has_ended(self, out: Path) -> bool:
        """Whether all its trials have a result, a failed one too; where a result is of another
        target, `algoperf run` is left to say so.
        """
        folders = (self.folder(out, trial) for trial in range(1, self.trials + 1))
        return all(self._is_result(run_log.read_result(folder)) for folder in folders)

    def _is_result(self, result: dict[str, Any] | None) -> bool:
        return result is not None and result["target"]["validation"] == self.target

    def prepare(self, out: Path) -> None:
        """`algoperf run` itself goes on where it was interrupted."""


def suite_words(path: str | None) -> list[str]:
    """The words of a command line that name a suite."""
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
) -> list[Job]:
    """All combinations, seed by seed, so that an early end leaves something of each."""
    return [
        Job(
            *(workload, name, framework, seed, factor, steps, eval_every_steps, until, suite),
            reference,
        )
        for seed, factor, name, framework in itertools.product(
            range(seeds), factors, submissions, frameworks
        )
    ]


def entries(
    workloads: Sequence[str],
    submissions: Sequence[str],
    frameworks: Sequence[str],
    ruleset: str,
    trials: int,
    studies: int,
    suite: str | None = None,
) -> list[Entry]:
    """All combinations of a leaderboard, study by study and workload by workload, so that an early
    end leaves whole columns; workloads are given by name or path. Without `submissions`, all
    reference algorithms that the ruleset is for: those with a search space, or under self-tuning
    those without.
    """
    outlines = [
        loading.inspect(reference_algorithms.path(name))
        for name in submissions or reference_algorithms.names()
    ]
    external = ruleset == "external"
    definitions = [catalogue.find(name, suite) for name in workloads]
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
        )
        for study, definition, framework in itertools.product(
            range(studies), definitions, frameworks
        )
        for outline in outlines
        if framework in outline.frameworks and (submissions or outline.has_search_space == external)
    ]


def _target(definition: WorkloadDefinition) -> float | None:
    """What a run of the workload has to reach where neither scale nor data are given."""
    scale = definition.scales[RunRequest.scale]
    target = scale.targets.get(scale.default_source)
    return None if target is None else target.validation


def curves(todo: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """One row for every evaluation of every finished job: `COLUMNS`, value being the target
    metric's.
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
    """Write the rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def steps_to(
    rows: Sequence[dict[str, Any]], target: float, higher_is_better: bool
) -> dict[str, list[int | None]]:
    """First step at which each run meets the target, None where it never does, in order of the
    seeds.

    Keys name submission, framework and learning rate factor.
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
    """Lines: for each target and kind of run, how many reached it, and after how many steps."""
    lines = []
    for target in targets:
        for key, steps in steps_to(rows, target, higher_is_better).items():
            reached = sorted(step for step in steps if step is not None)
            shown = json.dumps(reached)
            lines.append(
                f"target {target:g}: {key}: {len(reached)} of {len(steps)} reached, steps {shown}"
            )
    return lines

"""Make a suite from a seed: draw variants, screen them and set their targets.

Every run is part of a campaign that can be resumed.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import reference_algorithms
from algoperf.data import validation_seed
from algoperf.data.validation_seed import ValidationSeed
from algoperf.errors import UserError
from algoperf.experiments import campaign
from algoperf.experiments.campaign import Job
from algoperf.experiments.held_out import draw, screening
from algoperf.experiments.held_out.curves import CurveBook
from algoperf.experiments.held_out.screening import Curve, Grid
from algoperf.run_folder import run_log
from algoperf.study.executors.executor import Executor
from algoperf.submission import loading
from algoperf.workload import WorkloadDefinition, catalogue, suite
from algoperf.workload.axes import Changes

SCALE, SOURCE = "mini", "builtin"
SCREENED_IN = "pytorch"
TARGETS_IN = ("jax", "pytorch")
MOST_DRAWS = 20  # The most draws of a workload for each variant that is wanted.
EVALUATIONS = 10  # The number of evaluations of a run.
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """A request for a suite.

    Attributes:
        seed: The seed of the draws.
        workloads: The names of the base workloads.
        per_workload: The number of variants of each workload.
        fewest: The smallest number of axes on which a variant differs.
        most: The largest number.
        validation_seed: The secret that draws the validation rows of all runs, or None.
    """

    seed: int
    workloads: Sequence[str]
    per_workload: int
    fewest: int = 1
    most: int = 3
    validation_seed: ValidationSeed | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the suite, as its file records them."""
        constants = {
            "baseline": screening.BASELINE,
            "learning_rate_factors": list(screening.FACTORS),
            "screening_seeds": screening.SCREENING_SEEDS,
            "target_seeds": screening.TARGET_SEEDS,
            "regret": screening.REGRET,
            "loss_falls_to": screening.LOSS_FALLS_TO,
            "step_share": screening.STEP_SHARE,
        }
        secret = self.validation_seed
        committed = {} if secret is None else {"validation_commitment": secret.commitment}
        return {"seed": self.seed, "axes": [self.fewest, self.most], **constants, **committed}


def draws(request: Request, base: WorkloadDefinition) -> list[tuple[str, Changes]]:
    """Return the names and changes of all draws of a workload that may be screened.

    A combination of changes that was drawn before is left out.
    """
    drawn: dict[str, Changes] = {}
    scale = base.scales[SCALE]
    for attempt in range(request.per_workload * MOST_DRAWS):
        changes = draw.draw(base.name, scale, request.seed, attempt, request.fewest, request.most)
        if changes not in drawn.values():
            drawn[draw.name_of(base.name, request.seed, attempt)] = changes
    return list(drawn.items())


def drawn(request: Request) -> list[str]:
    """Return lines that list the first draws of each workload, before any screening."""
    return [
        f"{name}: {_told(changes)}"
        for base in map(catalogue.find, request.workloads)
        for name, changes in draws(request, base)[: request.per_workload]
    ]


class Sampler:
    """Runs and keeps what screening needs, so that nothing is run twice.

    Args:
        request: The request.
        folder: The folder of the runs.
        executor: Where the runs run.
        say: Called with a line for the user.
        curves: A file that keeps the curves as well; runs whose curves it holds are not made again.
    """

    def __init__(
        self,
        request: Request,
        folder: Path,
        executor: Executor,
        say: Say,
        curves: Path | None = None,
    ) -> None:
        self._request, self._folder, self._executor, self._say = request, folder, executor, say
        self._standard_input = validation_seed.as_input(request.validation_seed)
        self._book = CurveBook(curves)
        self._candidates = folder / f"candidates-{request.seed}.json"
        self._bases = {name: catalogue.find(name) for name in request.workloads}
        baseline = loading.inspect(reference_algorithms.path(screening.BASELINE))
        self._baseline = campaign.source_of(baseline)
        self._draws = {name: draws(request, base) for name, base in self._bases.items()}

    def suite(self) -> dict[str, Any]:
        """Screen the draws and return the document of the suite.

        Raises:
            UserError: A run failed for another reason than its training, or too few draws were
                accepted.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        drawn = {
            name: {"base": base, "changes": dict(changes)}
            for base, candidates in self._draws.items()
            for name, changes in candidates
        }
        run_log.write_json(self._candidates, {"format": suite.FORMAT, "variants": drawn})
        accepted: dict[str, Any] = {}
        rejected: list[dict[str, Any]] = []
        bases: dict[str, Any] = {}
        for name, base in self._bases.items():
            usual = self._grid(base, name, None)
            bases[name] = {"levels": screening.told(usual)}
            wanted = self._request.per_workload
            for variant, changes in self._draws[name]:
                if wanted == 0:
                    break
                reason, entry = self._screen(base, variant, changes, usual)
                self._say(f"{variant} {dict(changes)}: {reason or 'accepted'}")
                if reason is None:
                    accepted[variant] = entry
                    wanted -= 1
                else:
                    rejected.append({"name": variant, **entry, "reason": reason})
            if wanted:
                raise UserError(
                    f"{name}: {len(self._draws[name])} draws gave "
                    f"{self._request.per_workload - wanted} of {self._request.per_workload} "
                    "variants; ask for fewer, or for another range of --axes"
                )
        return {
            "format": suite.FORMAT,
            "settings": self._request.settings,
            "bases": bases,
            "variants": accepted,
            "rejected": rejected,
        }

    def _screen(
        self, base: WorkloadDefinition, variant: str, changes: Changes, usual: Grid
    ) -> tuple[str | None, dict[str, Any]]:
        """Return the reason why a draw is rejected, or None, and its entry in the suite."""
        path = str(self._candidates)
        grid = self._grid(base, variant, path, seeds=1)
        reason = screening.why_not_at_once(grid, usual)
        if reason is None:
            grid = self._grid(base, variant, path)
            reason = screening.why_not(grid, usual)
        entry = {
            "base": base.name,
            "changes": dict(changes),
            "levels": screening.told(grid),
        }
        if reason is not None:
            return reason, entry
        hint = base.scales[SCALE].step_hint
        factor = screening.best_factor(grid)
        jobs = [
            self._job(base, variant, framework, seed, factor, path)
            for seed in range(screening.TARGET_SEEDS)
            for framework in TARGETS_IN
        ]
        sign = 1 if base.higher_is_better else -1
        self._run(base, jobs)
        value = screening.target(self._curves(base, jobs), hint)
        baselines = base.scales[SCALE].targets[SOURCE].baselines.values()
        beaten = max((sign * baseline for baseline in baselines), default=-math.inf)
        if value <= beaten:
            return f"no target: {value:g} is no better than the base's baseline {beaten:g}", entry
        provenance = (
            f"{screening.BASELINE}, learning rate x {factor:g}: {len(jobs) - 1} of {len(jobs)} "
            f"runs within {screening.STEP_SHARE:g} of the step hint of {hint}"
        )
        target = {"validation": sign * value, "provenance": provenance}
        return None, {**entry, "targets": {SCALE: {SOURCE: target}}}

    def _grid(
        self,
        base: WorkloadDefinition,
        name: str,
        path: str | None,
        seeds: int = screening.SCREENING_SEEDS,
    ) -> Grid:
        jobs = {
            factor: [
                self._job(base, name, SCREENED_IN, seed, factor, path) for seed in range(seeds)
            ]
            for factor in screening.FACTORS
        }
        # They run seed by seed, so that each factor has some runs if the campaign ends early.
        self._run(base, [job for row in zip(*jobs.values(), strict=True) for job in row])
        return {factor: self._curves(base, own) for factor, own in jobs.items()}

    def _job(
        self,
        base: WorkloadDefinition,
        name: str,
        framework: str,
        seed: int,
        factor: float,
        path: str | None,
    ) -> Job:
        hint = base.scales[SCALE].step_hint
        every = max(1, hint // EVALUATIONS)
        return Job(
            *(name, screening.BASELINE, framework, seed, factor, hint, every),
            suite=path,
            source=self._baseline,
            validation_seed=self._request.validation_seed,
        )

    def _changes(self, base: WorkloadDefinition, job: Job) -> Changes:
        return dict(self._draws[base.name]).get(job.workload, {})

    def _run(self, base: WorkloadDefinition, jobs: Sequence[Job]) -> None:
        todo = [job for job in jobs if self._book.find(job, self._changes(base, job)) is None]
        try:
            self._executor.run(todo, self._folder, self._say, self._standard_input)
        finally:  # Runs that have ended are kept even if another run failed.
            self._book.add(
                [
                    (job, self._changes(base, job), _curve(base, job.folder(self._folder)))
                    for job in todo
                    if job.has_ended(self._folder)
                ]
            )

    def _curves(self, base: WorkloadDefinition, jobs: Sequence[Job]) -> list[Curve]:
        return [
            self._book.find(job, self._changes(base, job)) or _curve(base, job.folder(self._folder))
            for job in jobs
        ]


def _curve(base: WorkloadDefinition, folder: Path) -> Curve:
    result = run_log.read_result(folder)
    if result is None or result["status"] == "failed":
        cause = "it has no result" if result is None else result["error"]["cause"]
        raise UserError(f"{folder}: a screening run failed ({cause})")
    sign = 1 if base.higher_is_better else -1
    rows = run_log.evaluations(folder)
    metric = f"validation/{base.target_metric}"
    return Curve(
        [int(row["global_step"]) for row in rows],
        [sign * row[metric] for row in rows],
        [row["validation/loss"] for row in rows],
        is_finite=result["status"] != "diverged",
    )


def table(document: Mapping[str, Any]) -> list[str]:
    """Return lines that list every draw that was screened and the verdict on it."""
    lines = []
    for name, entry in document["variants"].items():
        target = entry["targets"][SCALE][SOURCE]
        lines.append(
            f"accepted {name}: {_told(entry['changes'])}; target {target['validation']:g} "
            f"({target['provenance']})"
        )
    for entry in document["rejected"]:
        lines.append(f"rejected {entry['name']}: {_told(entry['changes'])}; {entry['reason']}")
    return lines


def _told(changes: Changes) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in changes.items())

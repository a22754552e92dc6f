"""The workloads that a score is computed over, with their targets and budgets.

Runs of this library record all of that themselves. For other runs, AlgoPerf's public logs among
them, it is read from a file: AlgoPerf's own JSON, or this library's, documented in docs/scoring.md.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from algoperf import errors
from scoring.benchmarks import algoperf_facts as facts
from scoring.reading.runs import is_number
from scoring.reading.trials import Changes, Finding, Target, TrialRun, grouped

RULESETS = ("external", "self")
BUILT_IN = tuple(f"algoperf-{version}" for version in facts.BUDGETS_S)
OWN_KEYS = ("metric", "higher_is_better", "validation", "budget_s", "variant_of")


@dataclasses.dataclass(frozen=True)
class WorkloadFacts:
    """A workload's target and budget.

    Attributes:
        target: The target.
        budget_s: The limit of submission time in seconds for the external tuning ruleset; None is
            no limit.
    """

    target: Target
    budget_s: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
    """The base workloads that a score averages over, and the held-out variants that guard them.

    Attributes:
        name: The name of the benchmark.
        workloads: The target and budget of each workload, base and held-out.
        base_workloads: The names of the base workloads.
        variant_of: The base workload of each held-out variant.
        studies: The number of studies that the benchmark asks for; None where it does not say.
        self_tuning_factor: The budget of the self-tuning ruleset as a multiple of the external one.
        changes: The changes of variants that nobody has run. Other variants record theirs in their
            runs.
        of_algoperf: Whether it is one of AlgoPerf's own, which its rules are for.
        trials: The number of trials of a study under the external tuning ruleset; None where the
            benchmark does not say. Under the self-tuning ruleset it is one.
    """

    name: str
    workloads: Mapping[str, WorkloadFacts]
    base_workloads: tuple[str, ...]
    variant_of: Mapping[str, str]
    studies: int | None
    self_tuning_factor: float
    changes: Mapping[str, Changes] = dataclasses.field(default_factory=dict)
    of_algoperf: bool = False
    trials: int | None = None

    @property
    def scored(self) -> tuple[str, ...]:
        """The base workloads and the held-out variants, sorted by name."""
        return tuple(sorted({*self.base_workloads, *self.variant_of}))


def find_benchmark(given: str | Path) -> Benchmark:
    """Return a built-in benchmark by name, or a benchmark read from a JSON file.

    Args:
        given: One of BUILT_IN, or the path of a file in AlgoPerf's form or in this library's.

    Raises:
        UserError: There is no such name or file, or the file is not as docs/scoring.md describes.
    """
    if str(given) in BUILT_IN:
        return _built_in(str(given).removeprefix("algoperf-"))
    path = Path(given)
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise errors.UserError(
            f"cannot read targets {given} ({error.strerror}); give a JSON file or one of: "
            f"{', '.join(BUILT_IN)}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"targets {given} is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("workloads"), dict):
        raise errors.UserError(
            f"targets {given} has no object 'workloads'; give a file in AlgoPerf's form or in "
            f"this library's (docs/scoring.md)"
        )
    return _of_algoperf(value, given) if "benchmark_version" in value else _of_own(value, given)


def _built_in(version: str) -> Benchmark:
    held_out = facts.HELD_OUT[version]
    bases = tuple(name for name in facts.BASE_TARGETS if name in facts.BUDGETS_S[version])
    targets = {name: facts.BASE_TARGETS[name] for name in bases} | {
        name: (facts.BASE_TARGETS[_base_of(name, bases)][0], goal)
        for name, goal in held_out.items()
    }
    return _algoperf_benchmark(version, targets, bases, tuple(held_out))


def _of_algoperf(value: dict[str, Any], given: str | Path) -> Benchmark:
    """Read the AlgoPerf benchmark's workload_targets.json."""
    bases = _names(value, "base_workloads", given)
    held_out = _names(value, "held_out_workloads", given)
    targets = {}
    budgets_s = {}
    for name in (*bases, *held_out):
        fact = value["workloads"].get(name)
        metric = fact.get("target_metric_name") if isinstance(fact, dict) else None
        goal = fact.get("validation_target_value") if isinstance(fact, dict) else None
        if not isinstance(metric, str) or goal is None or not is_number(goal):
            raise errors.UserError(
                f"targets {given}: {name} is listed without target_metric_name (text) and "
                "validation_target_value (a number) under workloads"
            )
        targets[name] = metric, float(goal)
        budget_s = fact.get("max_allowed_runtime_sec")
        if budget_s is not None:
            if not (is_number(budget_s) and budget_s > 0):
                raise errors.UserError(
                    f"targets {given}: {name} has max_allowed_runtime_sec {budget_s!r}, not seconds"
                )
            budgets_s[name] = float(budget_s)
    orphans = [name for name in held_out if _base_of(name, bases) == name]
    if orphans:
        raise errors.UserError(
            f"targets {given}: held-out {orphans[0]} is a variant of none of {', '.join(bases)}"
        )
    version = str(value["benchmark_version"])
    return _algoperf_benchmark(version, targets, bases, held_out, budgets_s)


def _algoperf_benchmark(
    version: str,
    targets: Mapping[str, tuple[str, float]],
    bases: tuple[str, ...],
    held_out: tuple[str, ...],
    stated_s: Mapping[str, float] = MappingProxyType({}),
) -> Benchmark:
    series = ".".join(version.split("-")[0].split(".")[:2])
    # What a file of targets states goes before the budgets of its version.
    budgets_s = {**facts.BUDGETS_S.get(series, {}), **stated_s}
    workloads = {
        name: WorkloadFacts(
            Target(metric, metric not in facts.LOWER_IS_BETTER, goal),
            budgets_s.get(name, budgets_s.get(_base_of(name, bases))),
        )
        for name, (metric, goal) in targets.items()
    }
    return Benchmark(
        f"AlgoPerf {version}",
        workloads,
        bases,
        {name: _base_of(name, bases) for name in held_out},
        facts.STUDIES.get(series),
        facts.SELF_TUNING_FACTOR.get(series, 1.0),
        of_algoperf=True,
        trials=facts.TRIALS.get(series),
    )


def _of_own(value: dict[str, Any], given: str | Path) -> Benchmark:
    """Read a file of targets in this library's own form."""
    workloads, variant_of = {}, {}
    for name, fact in value["workloads"].items():
        known = isinstance(fact, dict) and set(fact) <= set(OWN_KEYS)
        if not known or not isinstance(fact.get("metric"), str):
            raise errors.UserError(
                f"targets {given}: {name} must be an object with metric and any of: "
                f"{', '.join(OWN_KEYS[1:])}"
            )
        higher = fact.get("higher_is_better", fact["metric"] not in facts.LOWER_IS_BETTER)
        goal, budget_s = fact.get("validation"), fact.get("budget_s")
        if not isinstance(higher, bool) or not is_number(goal):
            raise errors.UserError(
                f"targets {given}: {name} needs validation, a number, and higher_is_better, true "
                "or false"
            )
        if budget_s is not None and not (is_number(budget_s) and budget_s > 0):
            raise errors.UserError(
                f"targets {given}: {name} has budget_s {budget_s!r}, not seconds"
            )
        workloads[name] = WorkloadFacts(
            Target(fact["metric"], higher, float(goal)), None if budget_s is None else budget_s
        )
        if fact.get("variant_of") is not None:
            variant_of[name] = fact["variant_of"]
    bases = tuple(name for name in workloads if name not in variant_of)
    for name, base in variant_of.items():
        if base not in bases:
            raise errors.UserError(
                f"targets {given}: {name} is variant_of {base!r}, which is not a base workload; "
                f"one of: {', '.join(bases)}"
            )
    studies, factor = value.get("studies"), value.get("self_tuning_factor", 1.0)
    if studies is not None and not (isinstance(studies, int) and 0 < studies < 1000):
        raise errors.UserError(f"targets {given}: studies is {studies!r}, not a whole number")
    if not (is_number(factor) and factor > 0):
        raise errors.UserError(f"targets {given}: self_tuning_factor is {factor!r}, not a factor")
    name = str(value.get("benchmark", Path(given).stem))
    return Benchmark(name, workloads, bases, variant_of, studies, float(factor))


def _names(value: Mapping[str, Any], key: str, given: str | Path) -> tuple[str, ...]:
    names = value.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise errors.UserError(f"targets {given}: {key} is not a list of names")
    return tuple(names)


def _base_of(name: str, bases: Iterable[str]) -> str:
    """Return the longest base workload that `name` extends by _<something>, else `name`."""
    return max((base for base in bases if name.startswith(f"{base}_")), key=len, default=name)


def apply_benchmark(
    runs: Sequence[TrialRun], benchmark: Benchmark, tuning_ruleset: str | None
) -> tuple[list[TrialRun], list[Finding]]:
    """Keep the runs of a benchmark's workloads, and give them its targets and budgets.

    Args:
        runs: The runs, with targets and budgets of their own or none.
        benchmark: The benchmark.
        tuning_ruleset: 'external' or 'self'; the self-tuning ruleset multiplies the budgets. None
            takes the ruleset from each run (see `ruleset_of`).

    Returns:
        The runs that are kept, and a finding for each submission and workload that was left out.
    """
    kept, findings = [], []
    for run in runs:
        if run.workload not in benchmark.scored:
            continue
        known = benchmark.workloads[run.workload]
        self_tuned = (tuning_ruleset or ruleset_of(run)) == "self"
        factor = benchmark.self_tuning_factor if self_tuned else 1.0
        budget_s = None if known.budget_s is None else known.budget_s * factor
        kept.append(
            dataclasses.replace(
                run,
                target=known.target,
                budget_s=budget_s,
                base_workload=benchmark.variant_of.get(run.workload),
            )
        )
    others = [run for run in runs if run.workload not in benchmark.scored]
    for group in grouped(others, lambda run: (run.submission_folder, run.workload)):
        findings.append(
            Finding(
                group[0].submission_folder,
                f"{group[0].workload} is not scored in {benchmark.name}: left out",
                damage=False,
            )
        )
    return kept, findings


def ruleset_of(run: TrialRun) -> str:
    """Return the tuning ruleset of a run, 'external' or 'self'.

    It is the ruleset that the run records. Without a record, AlgoPerf's folder name 'self_tuning'
    means self, and everything else external.
    """
    recorded = run.pool.get("tuning_ruleset")
    if recorded in RULESETS:
        return str(recorded)
    return "self" if run.experiment == "self_tuning" else "external"

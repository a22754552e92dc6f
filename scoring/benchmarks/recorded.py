"""The benchmark that the runs of a pool describe themselves: workloads, targets and budgets."""

from collections.abc import Mapping
from pathlib import Path

from scoring.benchmarks.benchmark import BUILT_IN, Benchmark, WorkloadFacts
from scoring.benchmarks.pools import Pool
from scoring.benchmarks.suites import HeldOutSuite
from scoring.reading.trials import Changes, Finding


def benchmark_of(pool: Pool, suite: HeldOutSuite | None = None) -> tuple[Benchmark, list[Finding]]:
    """Return the benchmark that the runs of a pool record.

    Args:
        pool: The runs. Workloads without a target are not scored.
        suite: Held-out variants that count even where nobody in the pool has run them.

    Returns:
        The benchmark, and findings about workloads that are not scored and variants that do not
        count.
    """
    known: dict[str, WorkloadFacts] = {}
    variant_of: dict[str, str] = {}
    for run in sorted(pool.runs, key=lambda run: run.workload):
        if run.target is not None and run.target.validation is not None:
            known[run.workload] = WorkloadFacts(run.target, run.budget_s)
            if run.base_workload is not None:
                variant_of[run.workload] = run.base_workload
    unknown = sorted(set(pool.workloads) - set(known))
    changes: dict[str, Changes] = {}
    findings: list[Finding] = []
    if suite is not None:
        unrun, findings = _unrun(pool, suite, known)
        known |= unrun
        variant_of |= {name: suite.variants[name][0] for name in unrun}
        changes = {name: suite.changes(name) for name in unrun}
    if unknown:
        path = next(run for run in pool.runs if run.workload == unknown[0]).path.parent
        has = "has" if len(unknown) == 1 else "have"
        message = (
            f"{', '.join(unknown)} {has} no target in {pool.name}: not scored; --targets (a file, "
            f"{', '.join(BUILT_IN)}) gives targets to runs that record none"
        )
        findings.append(Finding(path, message, damage=False))
    orphans = _orphans(pool, known, variant_of)
    for name in unknown:
        run = next(run for run in pool.runs if run.workload == name)
        if run.base_workload in known and run.base_workload not in variant_of:
            message = f"{name} has no target: its base {run.base_workload} counts without it"
            findings.append(Finding(run.path.parent, message, damage=False))
    kept = {name: base for name, base in variant_of.items() if name not in orphans}
    facts = {name: fact for name, fact in known.items() if name not in orphans}
    bases = tuple(name for name in facts if name not in kept)
    all_findings = [*findings, *orphans.values()]
    return Benchmark(pool.name, facts, bases, kept, None, 1.0, changes), all_findings


def _unrun(
    pool: Pool, suite: HeldOutSuite, known: Mapping[str, WorkloadFacts]
) -> tuple[dict[str, WorkloadFacts], list[Finding]]:
    """Return the targets and budgets of a suite's variants that nobody in the pool has run.

    Since nobody has run them, their base workloads count for nobody. A variant that cannot be
    counted becomes a finding.
    """
    targets, findings = {}, []
    for name, (base, _) in suite.variants.items():
        if name in pool.workloads:
            continue
        target = None
        if base in known:
            target = suite.target(name, pool.settings, like=known[base].target)
        if target is not None:
            targets[name] = WorkloadFacts(target, known[base].budget_s)
            continue
        why = f"it has no target there for {pool.name}: {base} counts without it"
        if base not in known:
            why = f"{base} was not run or has no target in {pool.name}"
        message = f"{name} is not counted: {why}"
        findings.append(Finding(Path(suite.given), message, damage=False))
    return targets, findings


def _orphans(
    pool: Pool, known: Mapping[str, WorkloadFacts], variant_of: Mapping[str, str]
) -> dict[str, Finding]:
    """Return a finding for each variant that cannot be compared with any base workload."""
    orphans = {}
    for name, base in sorted(variant_of.items()):
        if base in variant_of:
            why = "is a variant itself"
        elif base in known:
            continue
        else:
            why = "has no target" if base in pool.workloads else "was not run"
        path = next(run for run in pool.runs if run.workload == name).path.parent
        message = f"{name} is a variant of {base}, which {why} in {pool.name}: not scored"
        orphans[name] = Finding(path, message)
    return orphans

"""Which held-out variants count: those of a suite's file, whatever the runs say of themselves.

An organiser draws and seals a suite before submissions close (docs/variants.md) and scores with it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import errors, workload
from algoperf.workload import catalogue, suite
from scoring.reading.trials import Changes, Finding, Target, TrialRun, changes_told


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutSuite:
    """The variants of a suite's file: base workload and variant, by the variant's name."""

    given: str
    variants: Mapping[str, tuple[str, workload.Variant]]

    def target(self, name: str, settings: Mapping[str, Any]) -> Target | None:
        """A variant's target at the scale and on the data of a pool's settings, if it has one."""
        base, variant = self.variants[name]
        by_data = variant.targets.get(str(settings.get("scale")), {})
        target = by_data.get(str(settings.get("data")))
        if target is None:
            return None
        definition = catalogue.find(base)
        return Target(definition.target_metric, definition.higher_is_better, target.validation)

    def changes(self, name: str) -> Changes:
        """What a variant changes, values by axis."""
        return self.variants[name][1].changes


def read_suite(given: str | Path) -> HeldOutSuite:
    """The suite of a file. Raises UserError, naming file and place, for what is none or empty."""
    variants = suite.read(given).variants
    if not variants:
        raise errors.UserError(
            f"{given}: no variants; --no-held-out scores the base workloads alone"
        )
    return HeldOutSuite(str(given), variants)


def apply_suite(
    runs: Sequence[TrialRun], held_out: HeldOutSuite
) -> tuple[list[TrialRun], list[Finding]]:
    """The runs of base workloads and of the suite's variants, the latter with its targets.

    Runs of other variants are left out, and runs that record another base or other changes than
    the suite's variant of their name: these did not train what the suite says. Each is a finding.
    """
    kept = []
    findings: dict[tuple[Path, str], Finding] = {}  # one a submission and message
    for run in runs:
        if run.workload in held_out.variants:
            scored, notes = _as_of(held_out, run)
        elif run.base_workload is None:
            scored, notes = run, []
        else:
            message = f"{run.workload} is not in {held_out.given}: left out"
            scored, notes = None, [Finding(run.submission_folder, message, damage=False)]
        if scored is not None:
            kept.append(scored)
        findings |= {(finding.path, finding.message): finding for finding in notes}
    return kept, list(findings.values())


def _as_of(held_out: HeldOutSuite, run: TrialRun) -> tuple[TrialRun | None, list[Finding]]:
    """A run of a variant of the suite, with the suite's base, changes and target; None where it
    trained something else.
    """
    name, given, path = run.workload, held_out.given, run.submission_folder
    base, changes = held_out.variants[name][0], held_out.changes(name)
    is_of, has = run.base_workload or base, run.changes or changes
    if is_of != base or has != changes:
        message = f"{name} is {is_of} with {changes_told(has)} by its runs, {base} with "
        message += f"{changes_told(changes)} by {given}: left out"
        return None, [Finding(path, message)]
    findings = []
    if not run.changes:
        message = f"{name} records no changes: taken to be those of {given}"
        findings.append(Finding(path, message, damage=False))
    target = held_out.target(name, run.pool)
    goal, ran_to = (None if each is None else each.validation for each in (target, run.target))
    if target is not None and goal is not None and ran_to not in (None, goal):
        message = f"{name} was run to {ran_to:g} and is scored by the {goal:g} of {given}"
        is_easier = (ran_to < goal) == target.higher_is_better
        message += ", before which it may have stopped" if is_easier else ""
        findings.append(Finding(path, message, damage=is_easier))
    scored = dataclasses.replace(run, target=target, base_workload=base, changes=changes)
    return scored, findings

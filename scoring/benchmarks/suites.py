"""Held-out suites: a file decides which variants count, whatever the runs record themselves.

An organiser draws and seals a suite before submissions close (docs/variants.md) and scores with it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import errors, workload
from algoperf.workload import suite
from scoring.reading.trials import Changes, Finding, Target, TrialRun, changes_told


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutSuite:
    """The held-out variants in the file of a suite.

    Attributes:
        given: The file, as the user named it.
        variants: The base workload and the variant, by the name of the variant.
    """

    given: str
    variants: Mapping[str, tuple[str, workload.Variant]]

    def target(self, name: str, settings: Mapping[str, Any], like: Target | None) -> Target | None:
        """Return a variant's target at the scale and on the data of a pool.

        Args:
            name: The name of the variant.
            settings: The settings of the pool, of which 'scale' and 'data' matter.
            like: A target that runs of the variant or of its base record: the metric and its
                direction are the same for both, and no workload has to be installed to score.

        Returns:
            The target, or None where the suite has none for that scale and data.
        """
        by_data = self.variants[name][1].targets.get(str(settings.get("scale")), {})
        target = by_data.get(str(settings.get("data")))
        if target is None or like is None:
            return None
        return dataclasses.replace(like, validation=target.validation)

    def changes(self, name: str) -> Changes:
        """Return the new value of each axis that a variant changes."""
        return self.variants[name][1].changes


def read_suite(given: str | Path) -> HeldOutSuite:
    """Read the suite in a file.

    Raises:
        UserError: The file is not a suite, or has no variants. The message names the file and the
            place in it.
    """
    variants = suite.read(given).variants
    if not variants:
        raise errors.UserError(
            f"{given}: no variants; --no-held-out scores the base workloads alone"
        )
    return HeldOutSuite(str(given), variants)


def apply_suite(
    runs: Sequence[TrialRun], held_out: HeldOutSuite
) -> tuple[list[TrialRun], list[Finding]]:
    """Keep the runs of base workloads and of a suite's variants, and give the latter its targets.

    Runs of other variants are left out. So are runs that record another base workload or other
    changes than the suite's variant of the same name, because they did not train what the suite
    says.

    Returns:
        The runs that are kept, and findings about all that were left out or adapted.
    """
    kept = []
    # There is one finding per submission folder and message.
    findings: dict[tuple[Path, str], Finding] = {}
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
    """Return a run of a variant with the suite's base workload, changes and target.

    It is None where the run trained something else than the suite says.
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
    target = held_out.target(name, run.pool, run.target)
    goal, ran_to = (None if each is None else each.validation for each in (target, run.target))
    if target is not None and goal is not None and ran_to not in (None, goal):
        message = f"{name} was run to {ran_to:g} and is scored by the {goal:g} of {given}"
        is_easier = (ran_to < goal) == target.higher_is_better
        message += ", before which it may have stopped" if is_easier else ""
        findings.append(Finding(path, message, damage=is_easier))
    scored = dataclasses.replace(run, target=target, base_workload=base, changes=changes)
    return scored, findings

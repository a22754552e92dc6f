"""Which results may be compared: pools of equal configuration, and the entries within a pool.

A pool holds the scoreable runs whose recorded settings (`pool` in their flags) are equal. The runs
of one workload must also agree on data, target and budget, those of a held-out variant on its base
and changes too; where they do not, each version is a pool of its own, and the rest of the pool goes
on without that workload.

An entry is one submission folder in one framework: a score never mixes two frameworks, nor two
folders that happen to bear one name. Its label is the name alone wherever that is unambiguous.
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scoring.reading.trials import Finding, TrialRun, grouped

Runs = Sequence[TrialRun]

NOT_RECORDED = "settings not recorded"
RULESET_FOLDERS = ("external_tuning", "self_tuning")


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Runs that may be compared. `name` is unique among the pools that were made together."""

    name: str
    settings: Mapping[str, Any]
    runs: tuple[TrialRun, ...]

    @property
    def workloads(self) -> list[str]:
        """The workloads that some run in the pool has trained."""
        return sorted({run.workload for run in self.runs})


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """What is ranked: one submission folder in one framework."""

    label: str
    submission: str
    experiment: str
    framework: str
    runs: tuple[TrialRun, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """What its runs saw it do that it should not, each once (docs/trust.md)."""
        return tuple(dict.fromkeys(text for run in self.runs for text in run.flags))

    @property
    def flagged_trials(self) -> int:
        """How many of its runs were flagged."""
        return sum(bool(run.flags) for run in self.runs)


def canonical(settings: Mapping[str, Any]) -> str:
    """The JSON text by which two configurations are compared."""
    return json.dumps(dict(settings), sort_keys=True, separators=(",", ":"), default=str)


def _folder_of_rulesets(run: TrialRun) -> str:
    """AlgoPerf's folder of the submissions to one ruleset, which are never pooled with another's;
    '' for runs that record their settings.
    """
    return run.experiment if not run.pool and run.experiment in RULESET_FOLDERS else ""


def make_pools(runs: Iterable[TrialRun]) -> tuple[list[Pool], list[Finding]]:
    """Group the scoreable runs by configuration; what is left out or set apart is a finding."""
    runs = list(runs)
    scoreable = [run for run in runs if run.scoreable]
    findings = _count("marked not scoreable: left out", (run for run in runs if not run.scoreable))
    unknown = grouped((r for r in scoreable if not r.pool), lambda run: run.submission_folder)
    message = "records no settings (no pool in flags_<n>.json): hardware and versions not compared"
    findings += [Finding(group[0].submission_folder, message, damage=False) for group in unknown]
    parts: list[tuple[str, dict[str, Any], list[TrialRun]]] = []
    for group in grouped(scoreable, lambda run: (canonical(run.pool), _folder_of_rulesets(run))):
        settings, folder = dict(group[0].pool), _folder_of_rulesets(group[0])
        together: list[TrialRun] = []
        for of_workload in grouped(group, lambda run: run.workload):
            versions = list(grouped(of_workload, lambda run: canonical(_version(run))))
            if len(versions) == 1:
                together += of_workload
                continue
            name = f"{_base_name(settings, folder)}, {of_workload[0].workload} apart"
            parts += [(name, settings | _version(version[0]), version) for version in versions]
            findings.append(_disagreement(versions))
        if together:
            parts.append((_base_name(settings, folder), settings, together))
    names = _unique_names([(name, settings) for name, settings, _ in parts])
    pools = [
        Pool(name, settings, tuple(runs_of_pool))
        for name, (_, settings, runs_of_pool) in zip(names, parts, strict=True)
    ]
    return sorted(pools, key=lambda pool: pool.name), findings


def make_entries(runs: Iterable[TrialRun]) -> tuple[list[Entry], list[Finding]]:
    """The entries of a pool, labelled, sorted by label.

    The label is `name`; `experiment/name` where two folders share a name (the folder's path where
    they also share the experiment's name); followed by ` (framework)` where one folder has both.
    """
    runs, findings = _one_framework_each(runs)
    groups = list(grouped(runs, lambda run: (str(run.submission_folder), run.framework)))
    by_name = collections.defaultdict(set)
    by_experiment = collections.defaultdict(set)
    frameworks = collections.defaultdict(set)
    for first, *_ in groups:
        by_name[first.submission].add(first.submission_folder)
        by_experiment[first.experiment, first.submission].add(first.submission_folder)
        frameworks[first.submission_folder].add(first.framework)
    entries = []
    for group in groups:
        first = group[0]
        label = first.submission
        if len(by_name[label]) > 1:
            label = f"{first.experiment}/{label}"
        if len(by_experiment[first.experiment, first.submission]) > 1:
            label = str(first.submission_folder)
        if len(frameworks[first.submission_folder]) > 1:
            label = f"{label} ({first.framework})"
        entries.append(
            Entry(label, first.submission, first.experiment, first.framework, tuple(group))
        )
    return sorted(entries, key=lambda entry: entry.label), findings


def _one_framework_each(runs: Iterable[TrialRun]) -> tuple[list[TrialRun], list[Finding]]:
    """Runs without recorded settings, e.g. AlgoPerf's, as one framework a submission folder.

    Such a folder is one submission, which serves one framework: the one in which most of its
    workloads were trained. Where as many were in the other, both stay, as two entries.
    """
    kept: list[TrialRun] = []
    findings = []
    for group in grouped(runs, lambda run: run.submission_folder):
        pairs = {(run.workload, run.framework) for run in group}
        counts = collections.Counter(framework for _, framework in pairs).most_common()
        if any(run.pool for run in group) or len(counts) == 1:
            kept += group
        elif counts[0][1] == counts[1][1]:
            kept += group
            message = "has runs in jax and in pytorch, of as many workloads: scored as two entries"
            findings.append(Finding(group[0].submission_folder, message))
        else:
            main = counts[0][0]
            kept += [run for run in group if run.framework == main]
            left = sorted(f"{name}_{framework}" for name, framework in pairs if framework != main)
            message = f"is a {main} submission by most of its workloads; left out: "
            findings.append(Finding(group[0].submission_folder, message + ", ".join(left)))
    return kept, findings


def _version(run: TrialRun) -> dict[str, Any]:
    """What the runs of one workload must agree on, beside the pool's settings."""
    target = None if run.target is None else dataclasses.asdict(run.target)
    return {
        "workload": run.workload,
        "data_fingerprint": run.data_fingerprint,
        "target": target,
        "budget_s": run.budget_s,
        "base_workload": run.base_workload,
        "changes": dict(run.changes),
    }


def _disagreement(versions: Sequence[Runs]) -> Finding:
    flat = [_flat(_version(version[0])) for version in versions]
    differing = sorted(
        {key for one in flat for key in one if len({str(other.get(key)) for other in flat}) > 1}
    )
    values = "; ".join(f"{key} {', '.join(str(one.get(key)) for one in flat)}" for key in differing)
    path = versions[0][0].path.parent
    return Finding(
        path, f"runs of {versions[0][0].workload} disagree, each version is scored apart: {values}"
    )


def _count(message: str, runs: Iterable[TrialRun]) -> list[Finding]:
    """One finding a submission, with the number of its trials that `message` is about."""
    findings = []
    for group in grouped(runs, lambda run: run.submission_folder):
        workloads = ", ".join(sorted({run.workload for run in group}))
        trials = "1 trial" if len(group) == 1 else f"{len(group)} trials"
        findings.append(
            Finding(Path(group[0].submission_folder), f"{trials} ({workloads}) {message}")
        )
    return findings


def _base_name(settings: Mapping[str, Any], folder: str) -> str:
    parts = [settings.get("scale"), settings.get("data")]
    if settings.get("precision") != "float32":
        parts.append(settings.get("precision"))
    if settings.get("tuning_ruleset") not in (None, "none"):
        parts.append(f"{settings['tuning_ruleset']} tuning")
    return "-".join(str(part) for part in parts if part) or folder or NOT_RECORDED


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def _unique_names(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Tell pools of one name apart by up to two settings in which they differ, or by a hash."""
    names = []
    for name, settings in parts:
        rivals = [_flat(other) for other_name, other in parts if other_name == name]
        own = _flat(settings)
        differing = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
        suffix = ", ".join(f"{key}={own[key]}" for key in differing[:2])
        names.append(f"{name} ({suffix})" if suffix else name)
    digests = [
        hashlib.sha256(canonical(settings).encode()).hexdigest()[:6] for _, settings in parts
    ]
    return [
        f"{name} #{digest}" if names.count(name) > 1 else name
        for name, digest in zip(names, digests, strict=True)
    ]

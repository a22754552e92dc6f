"""Grouping of runs that may be compared: pools of equal configuration, and their entries.

A pool holds the scoreable runs whose recorded settings (`pool` in their flags) are equal. The runs
of one workload must also agree on data, target and budget; those of a held-out variant also on its
base workload and changes. Where they do not, each version becomes a pool of its own, and the rest
of the pool goes on without that workload.

An entry is one submission folder in one framework: a score never mixes two frameworks, nor two
folders that happen to have the same name. Its label is the name alone wherever that is unambiguous.
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
SHOWN_DIGITS = 12  # of a commitment
RULESET_FOLDERS = ("external_tuning", "self_tuning")


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Runs that may be compared with each other.

    Attributes:
        name: A name that is unique among the pools made together.
        settings: The settings that all runs of the pool share; {} where none are recorded.
        runs: The runs.
    """

    name: str
    settings: Mapping[str, Any]
    runs: tuple[TrialRun, ...]

    @property
    def workloads(self) -> list[str]:
        """The names of the workloads that some run in the pool has trained, sorted."""
        return sorted({run.workload for run in self.runs})


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One competitor in a ranking: one submission folder in one framework.

    Attributes:
        label: A name that is unique within the pool.
        submission: The name of the submission folder.
        experiment: The name of the folder that holds the submission folder.
        framework: 'jax' or 'pytorch'.
        runs: The runs of the entry.
    """

    label: str
    submission: str
    experiment: str
    framework: str
    runs: tuple[TrialRun, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Suspicious behaviour of the submission that its runs recorded, each kind once.

        A flag is not a verdict; docs/trust.md explains each kind.
        """
        return tuple(dict.fromkeys(text for run in self.runs for text in run.flags))

    @property
    def flagged_trials(self) -> int:
        """The number of its trials that were flagged."""
        return sum(bool(run.flags) for run in self.runs)

    @property
    def contended_trials(self) -> int:
        """The number of its trials that waited for others' work, so that their times are more."""
        return sum(run.contended is True for run in self.runs)


def canonical(settings: Mapping[str, Any]) -> str:
    """Return settings as JSON text with sorted keys, by which configurations are compared."""
    return json.dumps(dict(settings), sort_keys=True, separators=(",", ":"), default=str)


def _folder_of_rulesets(run: TrialRun) -> str:
    """Return AlgoPerf's folder name for the ruleset of a run.

    It is '' for a run that records its settings, or whose folder has another name. Submissions to
    different rulesets are never pooled.
    """
    return run.experiment if not run.pool and run.experiment in RULESET_FOLDERS else ""


def make_pools(runs: Iterable[TrialRun]) -> tuple[list[Pool], list[Finding]]:
    """Group the scoreable runs into pools of equal configuration.

    Returns:
        The pools, sorted by name, and findings about runs that were left out or set apart.
    """
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
    """Group the runs of a pool into entries.

    The label of an entry is `name`; `experiment/name` where two folders share a name; the folder's
    path where they also share the name of the experiment. ` (framework)` follows where one folder
    has runs in both frameworks.

    Returns:
        The entries, sorted by label, and findings about runs that were left out.
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
    """Keep one framework of each submission folder that records no settings, as AlgoPerf's do not.

    Such a folder is one submission, which serves one framework: the framework in which most of its
    workloads were trained. Where as many were trained in the other, both stay, as two entries.
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
    """Return what the runs of one workload must agree on, in addition to the pool's settings."""
    target = None if run.target is None else dataclasses.asdict(run.target)
    return {
        "workload": run.workload,
        "workload_hash": run.workload_hash,
        "data_fingerprint": run.data_fingerprint,
        "target": target,
        "budget_s": run.budget_s,
        "base_workload": run.base_workload,
        "changes": dict(run.changes),
    }


def _disagreement(versions: Sequence[Runs]) -> Finding:
    """Return a finding that names the facts in which versions of one workload differ."""
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
    """Return one finding per submission, with the number of its trials that `message` is about."""
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
    if settings.get("validation_commitment") is not None:
        parts.append(f"validation-{str(settings['validation_commitment'])[:SHOWN_DIGITS]}")
    hardware_class = settings.get("hardware_class")
    if isinstance(hardware_class, Mapping):
        parts.append(f"class-{hardware_class.get('name')}")
    return "-".join(str(part) for part in parts if part) or folder or NOT_RECORDED


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def _unique_names(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Distinguish pools of the same name by up to two differing settings, or by a hash."""
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

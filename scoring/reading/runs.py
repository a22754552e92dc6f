"""Reading of run folders, written by this library or by AlgoPerf, into one TrialRun per trial.

The layout is <submission>/study_<k>/<workload>_<framework>/trial_<j>/, at any depth. Nothing in it
is trusted: whatever is missing or damaged becomes a Finding, and whatever can still be read is
used.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from algoperf import errors
from algoperf.machine import supervision
from algoperf.machine.hardware_class import Spread
from algoperf.run_folder import run_log
from algoperf.workload.crossing import Point
from scoring.reading import unpacked
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN, Rows, read_evaluations
from scoring.reading.trials import (
    INTERRUPTED,
    RUNNING,
    Changes,
    ClassTimes,
    Finding,
    Target,
    TrialRun,
)

LAYOUT = "<submission>/study_<k>/<workload>_<framework>/trial_<j>"

# Leading zeros are not allowed, because study_01 beside study_1 would be the same study twice.
_NUMBER = "(0|[1-9][0-9]*)"
_STUDY = re.compile(f"study_{_NUMBER}")
_WORKLOAD = re.compile(r"(.+)_(jax|pytorch)")
_TRIAL = re.compile(f"trial_{_NUMBER}")
_FLAGS = re.compile(f"flags_{_NUMBER}\\.json")

LEFT_OUT = "left out"
# The reference benchmark writes what its runner printed beside the folders of trials.
LOG_SUFFIXES = frozenset({".log", ".out", ".err"})


def read_runs(*paths: str | Path) -> tuple[list[TrialRun], list[Finding]]:
    """Read every trial in the folders `paths` and below them.

    Args:
        *paths: Folders to search, or files of `algoperf pack`. A submission folder that is reached
            twice is read once. Paths of trials in a file, and in findings about them, begin with
            the file's.

    Returns:
        The trials, and the findings about everything that was missing, damaged or left out.

    Raises:
        UserError: A path is neither.
    """
    runs: list[TrialRun] = []
    findings: list[Finding] = []
    seen: set[Path] = set()
    for path in paths:
        if Path(path).is_file():
            of_file, more = _read_file(Path(path))
            runs, findings = runs + of_file, findings + more
            continue
        submissions = find_submissions(path)
        for submission in submissions:
            if submission.resolve() not in seen:
                seen.add(submission.resolve())
                runs.extend(_read_submission(submission, findings))
        findings += _strays(Path(path), submissions)
    return runs, _without_logs(findings)


def _read_file(file: Path) -> tuple[list[TrialRun], list[Finding]]:
    """Return the trials of a file of `algoperf pack`, and the findings, as if it were a folder."""
    folder = unpacked.folder_of(file)
    runs, findings = read_runs(folder)

    def shown(path: Path) -> Path:
        return file / path.relative_to(folder) if path.is_relative_to(folder) else path

    return [dataclasses.replace(run, path=shown(run.path), unpacked=run.path) for run in runs], [
        dataclasses.replace(each, path=shown(each.path)) for each in findings
    ]


def _without_logs(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, those about log files beside trial folders as one line for all of them."""
    logs = [finding for finding in findings if _is_log(finding)]
    if not logs:
        return list(findings)
    files = "1 log file" if len(logs) == 1 else f"{len(logs)} log files"
    message = f"{files} beside the folders of trials: ignored"
    kept = [finding for finding in findings if not _is_log(finding)]
    return [*kept, Finding(logs[0].path, message, damage=False)]


def _is_log(finding: Finding) -> bool:
    """Return whether a finding says that a log file was left out."""
    is_left_out = LEFT_OUT in finding.message
    return is_left_out and finding.path.suffix in LOG_SUFFIXES and not finding.path.is_dir()


def _strays(root: Path, submissions: Sequence[Path]) -> list[Finding]:
    """Return a finding for each entry beside the submissions that does not lead to one."""
    on_the_way = {folder for submission in submissions for folder in submission.parents}
    holders = {submission.parent for submission in submissions if submission != root}
    return [
        Finding(entry, f"holds no study_<k> folder: {LEFT_OUT}")
        for holder in sorted(holders)
        for entry in _entries(holder, [])
        if entry not in submissions and entry not in on_the_way
    ]


def check_metrics(runs: Iterable[TrialRun]) -> list[Finding]:
    """Return findings about trials whose decisive metric is absent, NaN or inf, or times negative.

    The decisive metric is the metric of the trial's target.

    Values that are not finite count as damage, except in a trial whose status is 'diverged', where
    they are to be expected.
    """
    findings = []
    for run in runs:
        if run.target is None or not run.rows:
            continue
        column, path = run.target.column, run.path / "eval_measurements.csv"
        if column not in run.rows:
            findings.append(Finding(path, f"has no column {column}"))
            continue
        count, bad = len(run.rows[column]), int((~np.isfinite(run.rows[column])).sum())
        if bad:
            problem = "no finite value" if bad == count else f"{bad} of {count} values not finite"
            message = f"has {problem} of {column}: such a value never meets a target"
            findings.append(Finding(path, message, damage=run.status != "diverged"))
        negative = int((run.rows.get(TIME_COLUMN, np.empty(0)) < 0).sum())
        if negative:
            message = f"has {negative} of {count} times below 0: such a time never meets a target"
            findings.append(Finding(path, message))
    return findings


def find_submissions(path: str | Path) -> list[Path]:
    """Return the folders at or below `path` that directly hold study_<k> folders, sorted.

    Those of a file of `algoperf pack` are where it is unpacked.

    Raises:
        UserError: `path` is neither.
    """
    root = Path(path)
    if root.is_file():
        root = unpacked.folder_of(root)
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise errors.UserError(
            f"{path} {problem}; give a folder of runs, with {LAYOUT} at any depth below it"
        )
    submissions: list[Path] = []
    waiting, seen = [root], {root.resolve()}
    while waiting:
        folders = [entry for entry in _entries(waiting.pop(), []) if entry.is_dir()]
        if any(_STUDY.fullmatch(folder.name) for folder in folders):
            submissions.append(folders[0].parent)
            continue
        for folder in folders:
            if folder.resolve() not in seen:  # A symbolic link may lead back up.
                seen.add(folder.resolve())
                waiting.append(folder)
    return sorted(submissions)


def _entries(folder: Path, findings: list[Finding]) -> list[Path]:
    """Return the entries of a folder, sorted and without hidden files.

    A folder that cannot be listed becomes a finding, and has no entries.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        findings.append(Finding(folder, f"cannot be listed ({error.strerror})"))
        return []


def _matching(
    folder: Path, pattern: re.Pattern[str], expected: str, findings: list[Finding]
) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield the subfolders whose name matches `pattern`; any other entry becomes a finding."""
    for entry in _entries(folder, findings):
        match = pattern.fullmatch(entry.name)
        if match and entry.is_dir():
            yield entry, match
        elif not (pattern is _TRIAL and entry.name.endswith(run_log.POPULATION)):
            findings.append(Finding(entry, f"{LEFT_OUT}: not a folder named {expected}"))


def _read_submission(submission: Path, findings: list[Finding]) -> Iterator[TrialRun]:
    name, experiment = submission.resolve().name, submission.resolve().parent.name
    for study_folder, study in _matching(submission, _STUDY, "study_<k>", findings):
        for folder, workload in _matching(
            study_folder, _WORKLOAD, "<workload>_<framework>", findings
        ):
            for path, trial in _matching(folder, _TRIAL, "trial_<j>", findings):
                if _has_just_begun(path):
                    findings.append(Finding(path, "is running: nothing is written yet", False))
                    continue
                yield TrialRun(
                    submission=name,
                    experiment=experiment,
                    study=int(study[1]),
                    workload=workload[1],
                    framework=workload[2],
                    trial=int(trial[1]),
                    path=path,
                    **_read_trial(path, findings),
                )


def _has_just_begun(path: Path) -> bool:
    """Return whether a trial is running and has not said yet what it is."""
    return not any(path.glob("flags_*.json")) and supervision.is_locked(path)


def _unfinished(path: Path, flags: Mapping[str, Any]) -> str | None:
    """Return what a trial without a result is: running, interrupted, or (None) not known.

    Folders of AlgoPerf have no result either, so only a folder with this library's settings is of
    an interrupted trial.
    """
    is_locked = supervision.is_locked(path)
    if (path / "result.json").exists():
        return None
    if is_locked:
        return RUNNING
    return INTERRUPTED if flags.get("pool") or "config_hash" in flags else None


def _read_trial(path: Path, findings: list[Finding]) -> dict[str, Any]:
    """Return the fields of a TrialRun that come from the files in its folder."""
    flags = _read_flags(path, findings)
    result = _read_object(path / "result.json", findings)
    target = _target(flags.get("target", result.get("target")), path, findings)
    unfinished = _unfinished(path, flags)
    rows, problems = read_evaluations(path / "eval_measurements.csv")
    if unfinished and not rows:
        problems = []  # There was no evaluation yet.
    if unfinished == RUNNING:
        problems = [problem for problem in problems if "torn line" not in problem]
    if rows:
        needed = (TIME_COLUMN, STEP_COLUMN)
        problems += [f"has no column {column}" for column in needed if column not in rows]
    findings.extend(Finding(path / "eval_measurements.csv", problem) for problem in problems)
    pool = flags.get("pool", {})
    if not isinstance(pool, dict):
        findings.append(
            Finding(path, f"pool in flags is {pool!r}, not an object: no settings recorded")
        )
        pool = {}
    status, fingerprint = result.get("status"), flags.get("data_fingerprint")
    source = flags.get("workload_hash")
    contended = result.get("contended")
    base = flags.get("base_workload")
    if base is not None and not isinstance(base, str):
        findings.append(Finding(path, "base_workload in flags is no text: no held-out variant"))
    return {
        "rows": rows,
        "target": target,
        "budget_s": _budget_s(flags.get("budget_s", result.get("budget_s")), path, findings),
        "base_workload": base if isinstance(base, str) else None,
        "status": status if isinstance(status, str) else None,
        "scoreable": _is_scoreable(result, flags, target),
        "pool": MappingProxyType(pool),
        "data_fingerprint": fingerprint if isinstance(fingerprint, str) else None,
        "hyperparameters": MappingProxyType(_read_object(path / "hparams.json", findings)),
        "flags": _texts(result.get("flags")),
        "changes": _changes(flags.get("changes"), path, findings),
        "workload_hash": source if isinstance(source, str) else None,
        "unfinished": unfinished,
        "busy_share": _busy_share(result.get("resources")),
        "probes": _probes(result.get("probes")),
        "first_step_s": _of_ledger(result.get("ledger"), "first_step_s"),
        "clock_s": _of_ledger(result.get("ledger"), "submission_s"),
        "last_step": _of_ledger(result, "steps"),
        "wall_s": _wall_s(result, rows),
        "contended": contended if isinstance(contended, bool) else None,
        "class_times": _class_times(flags.get("class_times"), path, findings),
    }


def _class_times(value: Any, path: Path, findings: list[Finding]) -> ClassTimes | None:
    if value is None:
        return None
    try:
        step = value.get("step")
        spread = None if step is None else Spread(step["median_s"], step["low_s"], step["high_s"])
        numbers = [value["budget_factor"], *([] if step is None else step.values())]
        good = all(is_number(each) and each > 0 for each in numbers)
    except (AttributeError, KeyError, TypeError):
        good = False
    if good:
        return ClassTimes(float(value["budget_factor"]), str(value.get("work", "")), spread)
    problem = "class_times in flags are no times of a hardware class: not restated"
    findings.append(Finding(path, problem))
    return None


def _probes(values: Any) -> tuple[Point, ...]:
    """Return the probes of a result; none unless each is three numbers."""
    probes = values if isinstance(values, list) else []
    good = all(
        isinstance(each, list) and len(each) == len(Point._fields) and all(map(is_number, each))
        for each in probes
    )
    return tuple(Point(*map(float, each)) for each in probes) if good else ()


def _of_ledger(ledger: Any, name: str) -> float:
    """Return a number of a result or of its ledger; NaN if it has none."""
    value: Any = ledger.get(name) if isinstance(ledger, dict) else None
    return float(value) if is_number(value) else math.nan


def _wall_s(result: Mapping[str, Any], rows: Rows) -> float:
    wall_s = _of_ledger(result.get("ledger"), "wall_s")
    known = rows.get("total_duration", np.empty(0))
    known = known[np.isfinite(known) & (known >= 0)]
    return float(known[-1]) if math.isnan(wall_s) and len(known) else wall_s


def _busy_share(resources: Any) -> float:
    """Return the share of the cores that others used, by a result's resources; 0 if not counted."""
    if not isinstance(resources, dict):
        return 0.0
    used: Any = resources.get("other_cores")
    cores: Any = resources.get("cores")
    is_counted = is_number(used) and is_number(cores) and cores > 0
    return float(used / cores) if is_counted else 0.0


def _is_scoreable(
    result: Mapping[str, Any], flags: Mapping[str, Any], target: Target | None
) -> bool:
    """Return whether a trial's own records allow it to be scored.

    A killed trial has no result.json, but its flags still say whether it was cut short on purpose
    (`max_steps`). A trial that ran in full but had no target records that it is not scoreable for
    that reason alone; it counts as scoreable here, because a file of targets may give it one.
    """
    whole = flags.get("max_steps") is None
    if "max_steps" in flags and whole and target is not None and target.validation is None:
        return True
    return result.get("scoreable", whole) is True


def _changes(value: Any, path: Path, findings: list[Finding]) -> Changes:
    if value is None:
        return MappingProxyType({})
    if isinstance(value, dict) and all(
        isinstance(each, str | bool) or is_number(each) for each in value.values()
    ):
        return MappingProxyType(value)
    problem = "changes in flags is no object of texts, numbers or booleans: no changes recorded"
    findings.append(Finding(path, problem))
    return MappingProxyType({})


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _read_flags(path: Path, findings: list[Finding]) -> dict[str, Any]:
    """Return the newest flags_<n>.json that can be read.

    It stands alone, because a trial must not mix two configurations.
    """
    numbered = [
        (int(match[1]), entry)
        for entry in _entries(path, findings)
        if (match := _FLAGS.fullmatch(entry.name))
    ]
    for _, entry in sorted(numbered, reverse=True):
        flags = _read_object(entry, findings)
        if flags:
            return flags
    return {}


def _read_object(path: Path, findings: list[Finding]) -> dict[str, Any]:
    """Return the JSON object in a file.

    It is {} where the file is absent. It is {} too where the file is damaged, which is a finding.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        findings.append(Finding(path, f"cannot be read ({error.strerror})"))
        return {}
    except (ValueError, RecursionError):
        findings.append(Finding(path, "is not JSON (torn or damaged)"))
        return {}
    if isinstance(value, dict):
        return value
    findings.append(Finding(path, f"holds a JSON {type(value).__name__}, not an object"))
    return {}


def is_number(value: object) -> bool:
    """Return whether a JSON value is a number (not a boolean) with a magnitude below 1e300."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _target(value: Any, path: Path, findings: list[Finding]) -> Target | None:
    if value is None:
        return None
    if isinstance(value, dict):
        metric, higher = value.get("metric"), value.get("higher_is_better")
        goal = value.get("validation")
        goal_known = goal is None or is_number(goal)
        if isinstance(metric, str) and isinstance(higher, bool) and goal_known:
            return Target(metric, higher, None if goal is None else float(goal))
    problem = f"target {value!r} is not metric, higher_is_better and validation: no target"
    findings.append(Finding(path, problem))
    return None


def _budget_s(value: Any, path: Path, findings: list[Finding]) -> float | None:
    if value is None:
        return None
    if is_number(value) and value > 0:
        return float(value)
    findings.append(Finding(path, f"budget_s {value!r} is not a positive number: no budget"))
    return None

"""Read from run folders what ran, what runs, and what is left; no framework, and nothing written.

It may look while runs go on: a file that is half written counts as the damage of one trial.
"""

import csv
import dataclasses
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import supervision
from algoperf.run_folder import checkpoint, device_history, run_log
from algoperf.study.executors import orders
from algoperf.trial.plan import LATE, OUTRUN, STOPPED

RUNNING, INTERRUPTED, WAITING, DAMAGED = "running", "interrupted", "waiting", "damaged"
ENDED = ("reached", "budget", "complete", "diverged", "failed", STOPPED, OUTRUN, LATE)
STATES = (*ENDED, RUNNING, INTERRUPTED, WAITING, DAMAGED)
GROUP = ("experiment", "submission", "workload", "framework")
_TRIAL = re.compile(r"trial_(\d+)")
_STUDY = re.compile(r"study_(\d+)")


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the folder of one trial says.

    Attributes:
        folder: The run folder, which does not exist yet for a trial that waits.
        state: One of `STATES`.
        step: The step of its last evaluation, or its last step where it has ended.
        clock_s: The submission's time at that step, in seconds.
        budget_s: The submission's time that it may take; None where it is limited in steps.
        max_steps: The step at which it ends; None where it is limited in time alone.
        metric: The name of the target's metric.
        value: The metric's best value on the validation split so far.
        target: The target, or None.
        time_to_target_s: The submission's time at the target, or None.
        wall_s: The wall time that it took, for a trial that has ended.
        left_s: An estimate of the wall time that is left, None where nothing can be estimated. A
            trial that reaches its target needs less.
        note: What is damaged, what failed, or how an interrupted trial goes on; and on how many
            devices it was, where their number has changed.
        command: The command line that began it last; empty where a script did.
    """

    folder: Path
    experiment: str
    submission: str
    workload: str
    framework: str
    study: int
    trial: int
    state: str
    step: int | None = None
    clock_s: float | None = None
    budget_s: float | None = None
    max_steps: int | None = None
    metric: str | None = None
    value: float | None = None
    target: float | None = None
    time_to_target_s: float | None = None
    wall_s: float | None = None
    left_s: float | None = None
    note: str = ""
    command: str = ""

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Experiment, submission, workload and framework."""
        return self.experiment, self.submission, self.workload, self.framework

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from all other trials below one folder."""
        return *self.group, self.study, self.trial

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}


def read(folder: Path) -> list[Trial]:
    """Return the trials below a folder, with those that were planned and have not begun.

    Args:
        folder: A folder that holds runs at any depth, or the folder of one trial.

    Raises:
        UserError: There is no such folder, or no trial below it.
    """
    if not folder.is_dir():
        raise UserError(f"status {folder}: no such folder")
    folders = list(_trial_folders(folder.resolve()))
    trials = {trial.key: trial for trial in map(_read_trial, folders)}
    for each in folders:
        for waiting in _planned(each):
            if waiting.folder.is_relative_to(folder.resolve()):
                trials.setdefault(waiting.key, waiting)
    for out in {folder.resolve(), *(each.parents[4] for each in folders)}:
        for waiting in _ordered(out):
            if waiting.folder.is_relative_to(folder.resolve()):
                begun = trials.setdefault(waiting.key, waiting)
                if begun.state == INTERRUPTED:
                    note = f"{begun.note}, by {waiting.note}"
                    trials[begun.key] = dataclasses.replace(begun, note=note, command="")
    if not trials:
        raise UserError(f"status {folder}: no trial of a run is below it")
    return sorted(_with_time_left(list(trials.values())), key=lambda trial: trial.key)


def _trial_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of trials below one, without what is kept of earlier trials inside."""
    if _TRIAL.fullmatch(folder.name) and _STUDY.fullmatch(folder.parent.parent.name):
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            paths = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in sorted(paths):
        yield from _trial_folders(Path(path))


def _read_trial(folder: Path) -> Trial:
    """Return what a trial's folder says; its names are enough where its files are damaged."""
    trial = _read_names(folder)
    try:
        return _described(trial)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        return dataclasses.replace(trial, note=f"cannot be read ({type(error).__name__}: {error})")


def _read_names(folder: Path) -> Trial:
    """Return what the names of a trial's folder and of those above it say."""
    framework_folder, study_folder = folder.parent, folder.parent.parent
    workload, _, framework = framework_folder.name.rpartition("_")
    return Trial(
        folder,
        experiment=study_folder.parent.parent.name,
        submission=study_folder.parent.name,
        workload=workload,
        framework=framework,
        study=_number(_STUDY, study_folder),
        trial=_number(_TRIAL, folder),
        state=DAMAGED,
    )


def _number(pattern: re.Pattern[str], folder: Path) -> int:
    match = pattern.fullmatch(folder.name)
    return int(match[1]) if match else 0


def _described(trial: Trial) -> Trial:
    """Return the trial with what its files say; raise what reading them raises."""
    folder = trial.folder
    is_locked = supervision.is_locked(folder)
    result = run_log.read_result(folder)
    if result is None and (folder / run_log.RESULT).exists() and not is_locked:
        return dataclasses.replace(trial, note=f"{run_log.RESULT} is not whole")
    flags = result or run_log.read_flags(folder)
    if flags is None:
        if is_locked:
            return dataclasses.replace(trial, state=RUNNING, note="starts")
        left = "no files" if not any(folder.iterdir()) else "no flags_<n>.json that is whole"
        return dataclasses.replace(trial, note=left)
    target = flags.get("target") or {}
    metric = target.get("metric")
    rows = run_log.evaluations(folder)
    values = [row[f"validation/{metric}"] for row in rows if f"validation/{metric}" in row]
    finite = [value for value in values if math.isfinite(value)]
    choose = max if target.get("higher_is_better", True) else min
    last = rows[-1] if rows else {}
    settings = run_log.read_flags(folder) or flags
    devices = ""
    if device_history.FIELD in settings:
        devices = f"on {device_history.text(device_history.of(settings))}"
    max_steps = settings.get("max_steps")
    trial = dataclasses.replace(
        trial,
        step=int(last.get("global_step", 0)),
        clock_s=float(last.get("accumulated_submission_time", 0.0)),
        budget_s=None if max_steps is not None else float(flags["budget_s"]),
        max_steps=None if max_steps is None else int(max_steps),
        metric=metric,
        value=choose(finite) if finite else None,
        target=target.get("validation"),
    )
    if result is not None:
        return _ended(trial, result, devices)
    if is_locked:
        left_s = _left_s(trial, _ratio(rows))
        return dataclasses.replace(trial, state=RUNNING, left_s=left_s, note=devices)
    if settings.get("population") and supervision.is_locked(folder.parent):
        note = f"its turn comes after step {trial.step}"
        left_s = _left_s(trial, _ratio(rows))
        return dataclasses.replace(trial, state=WAITING, left_s=left_s, note=note)
    saved = list((folder / checkpoint.FOLDER).glob("step_*.safetensors"))
    note = "goes on from its checkpoint" if saved else "no checkpoint: starts over"
    note += f", so far {devices}" if devices else ""
    left_s = _left_s(trial, _ratio(rows))
    command = str((_meta(folder) or {}).get("command", ""))
    return dataclasses.replace(trial, state=INTERRUPTED, note=note, left_s=left_s, command=command)


def _meta(folder: Path) -> dict[str, Any] | None:
    """Return the meta data of the process that worked on a trial last."""
    paths = folder.glob("meta_data_*.json")
    newest = max(paths, key=lambda path: int(path.stem.rpartition("_")[2]), default=None)
    return None if newest is None else run_log.read_json(newest)


def _ended(trial: Trial, result: Mapping[str, Any], devices: str) -> Trial:
    if result["status"] not in ENDED:
        return dataclasses.replace(trial, note=f"unknown status {result['status']!r}")
    ledger = result["ledger"]
    cause = (result.get("error") or {}).get("cause", "")
    return dataclasses.replace(
        trial,
        state=result["status"],
        step=int(result["steps"]),
        clock_s=ledger.get("submission_s"),
        time_to_target_s=result["time_to_target_s"],
        wall_s=ledger.get("wall_s"),
        note=cause if result["status"] == "failed" else devices,
    )


def _ratio(rows: Sequence[Mapping[str, float]]) -> float:
    """Return how much wall time a second of the submission's clock takes, evaluations included.

    It is counted from the first evaluation, which takes longer than the others.
    """
    if not rows:
        return 1.0
    clock_s, wall_s = (
        rows[-1].get(name, 0.0) - rows[0].get(name, 0.0)
        for name in ("accumulated_submission_time", "total_duration")
    )
    return max(1.0, wall_s / clock_s) if clock_s > 0 else 1.0


def _left_s(trial: Trial, wall_per_clock: float) -> float | None:
    """Return the wall time until the trial's limit, at the pace so far; None before its pace."""
    clock_s = trial.clock_s or 0.0
    if trial.max_steps is not None:
        if not trial.step:
            return None
        return clock_s / trial.step * max(0, trial.max_steps - trial.step) * wall_per_clock
    if trial.budget_s is None:
        return None
    return max(0.0, trial.budget_s - clock_s) * wall_per_clock


def _planned(folder: Path) -> Iterator[Trial]:
    """Yield the trials that the command which began this one runs, too, as waiting."""
    try:
        planned = (_meta(folder) or {}).get("planned")
    except (OSError, ValueError):
        return
    out = folder.parents[4]
    for each in planned if isinstance(planned, list) else []:
        try:
            experiment, submission, workload, framework = (str(each[name]) for name in GROUP)
            numbers = [
                (study, trial)
                for study in _studies(each)
                for trial in range(int(each["first"]), int(each["last"]) + 1)
            ]
        except (KeyError, TypeError, ValueError):
            continue
        for study, trial in numbers:
            path = run_log.trial_folder(
                out, experiment, submission, study, workload, framework, trial
            )
            yield Trial(
                path, experiment, submission, workload, framework, study, trial, state=WAITING
            )


def _ordered(out: Path) -> Iterator[Trial]:
    """Yield the trials for which a cluster has jobs that have not ended, as waiting."""
    for order in orders.read_all(out):
        for index, task in enumerate(order.tasks):
            if order.outcome(index) is not None:
                continue
            for name in task["folders"]:
                trial = _read_names(out / name)
                note = f"a job of {order.content.get('executor')} ({order.name})"
                yield dataclasses.replace(trial, state=WAITING, note=note)


def _studies(planned: Mapping[str, Any]) -> range:
    """Return the numbers of the studies that were planned; a folder may say only how many."""
    first = int(planned.get("first_study", 0))
    return range(first, first + int(planned["studies"]))


def _with_time_left(trials: Sequence[Trial]) -> Iterator[Trial]:
    """Yield the trials, those that wait with an estimate from the others of their group."""
    for trial in trials:
        if trial.state != WAITING or trial.left_s is not None:
            yield trial
            continue
        group = [each for each in trials if each.group == trial.group]
        walls = [each.wall_s for each in group if each.wall_s and each.state != "failed"]
        limits = [each.budget_s for each in group if each.budget_s is not None]
        left_s = sum(walls) / len(walls) if walls else next(iter(limits), None)
        yield dataclasses.replace(trial, left_s=left_s)


def counts(trials: Iterable[Trial]) -> dict[str, int]:
    """Return how many trials there are of each state, without those that none has."""
    states = [trial.state for trial in trials]
    return {state: states.count(state) for state in STATES if state in states}


def left_s(trials: Iterable[Trial]) -> float | None:
    """Return the wall time that all trials still need, one after the other; None if unknown."""
    going = [trial for trial in trials if trial.state in (RUNNING, INTERRUPTED, WAITING)]
    known = [trial.left_s for trial in going if trial.left_s is not None]
    return sum(known) if going and len(known) == len(going) else None

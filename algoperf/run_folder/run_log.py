"""The run folder: the only module that knows its file names and columns.

    <out>/<experiment>/<submission>/study_<k>/<workload>_<framework>/trial_<j>/

The layout and the column names are those of AlgoPerf's public logs, so that its reader and ours
read both. Rows are appended and flushed as they happen; a last line torn by a crash is cut off
before the next append.
"""

import csv
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from algoperf.errors import UserError
from algoperf.run_folder import crash_points, writing
from algoperf.run_folder.event_file import EventFile

EVALUATIONS = "eval_measurements.csv"
SCALARS = "measurements.csv"
HYPERPARAMETERS = "hparams.json"
RESULT = "result.json"
PREDICTIONS = "predictions.jsonl"
CARBON = "carbon.json"  # the energy of each process that the trial ran in
WANDB = "wandb"  # W&B's folder
WANDB_RUN = f"{WANDB}/algoperf_run.json"  # which of its runs is the trial's
SOURCE = "submission"
TIMES = (
    "accumulated_submission_time",
    "accumulated_eval_time",
    "accumulated_logging_time",
    "global_step",
    "preemption_count",
    "score",
    "total_duration",
)
SCALAR_COLUMNS = ("global_step", "loss", "gradient_norm", "learning_rate")
# Settings that differ between trials of one folder, or that say nothing about what is measured.
PER_TRIAL = frozenset(
    {"study", "trial", "submission_path", "workload_folder", "config_hash", "pool"}
)
# Settings that two results must share before they are pooled in one table.
POOLED = (
    "scale",
    "data",
    "precision",
    "tuning_ruleset",
    "eval_every_steps",
    "pretrained",
    "pretrained_hash",
    "skip_bad_rows",
    "drop_duplicates",
    "balance",
    "versions",
    "hardware",
)


def trial_folder(
    out: Path,
    experiment: str,
    submission: str,
    study: int,
    workload: str,
    framework: str,
    trial: int,
) -> Path:
    """The folder of one trial; studies count from 0 and trials from 1, as AlgoPerf's do."""
    return (
        out
        / experiment
        / submission
        / f"study_{study}"
        / f"{workload}_{framework}"
        / f"trial_{trial}"
    )


def configuration_hash(flags: Mapping[str, Any]) -> str:
    """SHA-256 of everything that the trials of one folder must share, the first 16 hex digits."""
    shared = {key: value for key, value in flags.items() if key not in PER_TRIAL}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def with_hashes(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags with `pool` (what scoring groups by) and `config_hash`."""
    return {
        **flags,
        "pool": {key: flags[key] for key in POOLED if key in flags},
        "config_hash": configuration_hash(flags),
    }


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a trial that has ended, or None."""
    return read_json(folder / RESULT)


def read_flags(folder: Path) -> dict[str, Any] | None:
    """The newest flags of a trial, or None."""
    paths = sorted(folder.glob("flags_*.json"))
    return read_json(paths[-1]) if paths else None


def check_same_configuration(folder: Path, flags: Mapping[str, Any]) -> None:
    """Raise UserError where the flags (all of them, or a part) contradict those of the trials
    already there.

    All trials of a submission's folder share its source; those of one workload and framework the
    whole configuration.
    """
    now = json.loads(json.dumps(dict(flags)))  # lists for tuples, as files have them
    submission_folder = folder.parents[2]
    for path in sorted(submission_folder.glob("study_*/*/trial_*/flags_*.json")):
        earlier = read_json(path) or {}
        shared = sorted(set(earlier) & set(now) - PER_TRIAL)
        changed = [key for key in shared if earlier[key] != now[key]]
        if any(key.startswith("submission_") for key in changed):
            raise UserError(
                f"{submission_folder}: holds another submission named "
                f"{flags['submission']!r}, with other "
                "source; use another --experiment, or rename the file or its folder"
            )
        if changed and path.parents[1].name == folder.parent.name:
            shown = ", ".join(
                line for key in changed for line in _differences(key, earlier[key], now[key])
            )
            raise UserError(
                f"{folder.parent}: holds another configuration ({shown}); use "
                "another --experiment or --out"
            )


def set_aside(folder: Path) -> Path | None:
    """Move what an interrupted trial left into `interrupted_<n>` inside its folder; return that, or
    None.
    """
    left = [path for path in folder.glob("*") if not path.name.startswith("interrupted_")]
    if not left:
        return None
    number = 1 + max(
        (int(path.name.split("_")[1]) for path in folder.glob("interrupted_*")), default=-1
    )
    aside = folder / f"interrupted_{number}"
    with writing.into(folder):
        aside.mkdir()
        for path in left:
            path.rename(aside / path.name)
    return aside


T = TypeVar("T")


def _writes(method: Callable[..., T]) -> Callable[..., T]:
    """A method of TrialLog that writes: UnwritableError where the folder does not take it, and not
    in a process that the submission forked, which ends instead: rows are written once.
    """

    @functools.wraps(method)
    def checked(self: "TrialLog", *arguments: Any) -> T:
        if os.getpid() != self.process_id:
            os._exit(0)
        with writing.into(self.folder):
            return method(self, *arguments)

    return checked


class TrialLog:
    """Writes one trial's folder; `writing.UnwritableError` where that takes no more."""

    def __init__(self, folder: Path, metric_names: Iterable[str], splits: Iterable[str]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"run folder {folder} is not writable ({error.strerror}); choose another --out"
            ) from error
        self.folder = folder
        self.process_id = os.getpid()
        self._metric_columns = [
            f"{split}/{name}" for split in splits for name in (*metric_names, "num_examples")
        ]
        self._events = EventFile(folder)

    @_writes
    def begin(
        self, flags: Mapping[str, Any], meta: Mapping[str, Any], point: Mapping[str, Any] | None
    ) -> int:
        """Write what the trial is, before its first step; return how often it began before."""
        number = len(list(self.folder.glob("flags_*.json")))
        write_json(self.folder / f"flags_{number}.json", flags)
        write_json(self.folder / f"meta_data_{number}.json", meta)
        write_json(self.folder / HYPERPARAMETERS, dict(point or {}))
        return number

    @_writes
    def copy_source(self, files: Mapping[str, Path]) -> None:
        """Copy the submission's files, by their path relative to its folder."""
        for name, path in files.items():
            target = self.folder / SOURCE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    @_writes
    def evaluation(self, times: Mapping[str, float], metrics: Mapping[str, float]) -> None:
        """Append one evaluation: the columns of `TIMES` and the metrics by `split/name`."""
        row = {**times, **metrics}
        writing.append_rows(self.folder / EVALUATIONS, (*TIMES, *self._metric_columns), [row])
        shown = {**metrics, "accumulated_submission_time": times["score"]}
        self._events.add([(int(times["global_step"]), shown)])

    @_writes
    def scalars(self, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Append training scalars by step; names outside the columns go to TensorBoard alone."""
        rows = list(rows)
        if not rows:
            return
        kept = [
            {"global_step": step, **{name: values.get(name) for name in SCALAR_COLUMNS[1:]}}
            for step, values in rows
        ]
        writing.append_rows(self.folder / SCALARS, SCALAR_COLUMNS, kept)
        self._events.add(
            (step, {f"training/{name}": value for name, value in values.items()})
            for step, values in rows
        )

    @_writes
    def predictions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write what the last evaluation generated, in place of what an earlier one did."""
        partial = self.folder / f".{PREDICTIONS}"
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        partial.replace(self.folder / PREDICTIONS)

    def sizes(self) -> dict[str, int]:
        """The bytes of the files that rows are appended to."""
        paths = (self.folder / name for name in (EVALUATIONS, SCALARS))
        return {path.name: path.stat().st_size for path in paths if path.is_file()}

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether the files have all the rows that they had at these sizes."""
        return all(writing.ends_a_line(self.folder / name, size) for name, size in sizes.items())

    @_writes
    def go_back(self, sizes: Mapping[str, int]) -> None:
        """Cut the files to these sizes: rows after a checkpoint will be measured again."""
        for name in (EVALUATIONS, SCALARS):
            path = self.folder / name
            if name in sizes:
                os.truncate(path, sizes[name])
            else:
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Take back a trial that turned out to be a user's mistake; what earlier ones
        left stays.
        """
        for path in self.folder.iterdir():
            if not path.name.startswith("interrupted_"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in (self.folder, *self.folder.parents[:4]):
            if any(folder.iterdir()):
                break
            folder.rmdir()

    @_writes
    def result(self, result: Mapping[str, Any]) -> None:
        """Write the result, after which the trial counts as ended."""
        write_json(self.folder / RESULT, result)


def evaluations(folder: Path) -> list[dict[str, float]]:
    """The whole rows of a trial's evaluations, as numbers; empty cells are left out."""
    return list(_rows(folder / EVALUATIONS))


def scalars(folder: Path, start: int = 0) -> tuple[list[dict[str, float]], int]:
    """The whole rows of a trial's training scalars from the byte `start` on, and where they end."""
    path = folder / SCALARS
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]  # what comes after is torn
    lines = text.decode().splitlines()[1 if start == 0 else 0 :]  # without the names
    reader = csv.DictReader(lines, SCALAR_COLUMNS)
    return [_numbers(row) for row in reader], start + len(text)


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if value != ""}


def _rows(path: Path) -> Iterator[dict[str, float]]:
    if not path.is_file():
        return
    lines = path.read_text().splitlines(keepends=True)
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):  # else it is torn
        yield _numbers(row)


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all: to a neighbour, to the disk, then renamed."""
    text = json.dumps(value, indent=2, sort_keys=True)
    neighbour = path.with_name(f".{path.name}.writing")
    try:
        with neighbour.open("w") as file:
            file.write(text + "\n")
            writing.flush(file)
    except OSError:
        neighbour.unlink(missing_ok=True)  # half of it
        raise
    crash_points.reach(f"{path.stem} written")
    neighbour.replace(path)
    crash_points.reach(f"{path.stem} kept")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a file holds; None where there is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _differences(name: str, earlier: Any, now: Any) -> list[str]:
    """What a message says of a setting that differs; of a mapping, only the entries that do."""
    if isinstance(earlier, Mapping) and isinstance(now, Mapping):
        return [
            f"{name}.{key}: {_short(earlier.get(key))}, now {_short(now.get(key))}"
            for key in {**earlier, **now}
            if earlier.get(key) != now.get(key)
        ]
    return [f"{name}: {_short(earlier)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

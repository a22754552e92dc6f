"""The files of a run folder: the only module that knows their names and columns.

    <out>/<experiment>/<submission>/study_<k>/<workload>_<framework>/trial_<j>/

The layout and the column names are those of AlgoPerf's public logs, so that both its reader and
ours can read them. Rows are appended and flushed to the disk as they arise. A last line that a
crash cut short is removed before the next append.
"""

import csv
import functools
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from algoperf.errors import UserError
from algoperf.run_folder import crash_points, device_history, writing
from algoperf.run_folder.event_file import EventFile

EVALUATIONS = "eval_measurements.csv"
SCALARS = "measurements.csv"
HYPERPARAMETERS = "hparams.json"
RESULT = "result.json"
PAUSED = "paused.json"  # What the result would be of a trial that is left for a later process.
POPULATION = "population.json"  # The exchanges of a study's members; beside their folders.
PREDICTIONS = "predictions.jsonl"
CARBON = "carbon.json"  # The energy used by each process that the trial ran in.
WANDB = "wandb"  # The folder that W&B writes to.
WANDB_RUN = f"{WANDB}/algoperf_run.json"  # Says which W&B run is the trial's.
SOURCE = "submission"
ASIDE = ("interrupted", "replaced")  # What is kept of earlier trials, in `<kind>_<n>`.
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
    {
        *("study", "trial", "submission_path", "workload_folder", "config_hash", "pool"),
        "compilation_cache",  # A trial finds warm what the one before it left.
    }
)
# Settings that are recorded where they were asked for; that one is missing says so, too.
WHERE_CHOSEN = frozenset(
    {
        *("pretrained", "skip_bad_rows", "drop_duplicates", "balance", "keep_going"),
        *("base_workload", "changes", "checkpoint_activations", "accumulate"),
        *("workload_folder", "workload_hash", "rouge_tokenizer", "referee"),
        *("validation_commitment", "hardware_class", "devices", "processes", "shard"),
        *("population", "offload"),
    }
)
BY_WORKLOAD = frozenset({"base_workload", "changes"})  # Of these, what its name says as well.
# Settings that two results must share before they are pooled in one table.
POOLED = (
    "scale",
    "data",
    "precision",
    "tuning_ruleset",
    "population",
    "eval_every_steps",
    "pretrained",
    "pretrained_hash",
    "skip_bad_rows",
    "drop_duplicates",
    "balance",
    "rouge_tokenizer",
    "validation_commitment",
    "versions",
    "hardware",
    "hardware_class",
    "devices",
    "processes",
    "devices_by_step",
    "shard",
    "offload",
    "environment",
    "referee",
    "framework_threads",
    "compilation_cache",
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
    """Return the run folder of one trial.

    Studies count from 0 and trials from 1, as AlgoPerf's do.
    """
    return (
        out
        / experiment
        / submission
        / f"study_{study}"
        / f"{workload}_{framework}"
        / f"trial_{trial}"
    )


def configuration_hash(flags: Mapping[str, Any]) -> str:
    """Return a hash of all the settings that the trials of one folder must share.

    Args:
        flags: The configuration of a trial; the settings in `PER_TRIAL` are left out.

    Returns:
        The first 16 hex digits of the SHA-256 of the settings as sorted JSON.
    """
    shared = {key: value for key, value in flags.items() if key not in PER_TRIAL}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def with_hashes(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags with the entries `pool` and `config_hash` added.

    `pool` holds the settings in `POOLED`, by which scoring groups results; `config_hash` is the
    `configuration_hash`.
    """
    return {
        **flags,
        "pool": {key: flags[key] for key in POOLED if key in flags},
        "config_hash": configuration_hash(flags),
    }


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a trial, or None if the trial has not ended."""
    return read_json(folder / RESULT)


def is_contended(folder: Path) -> bool:
    """Return whether a trial has ended with a result that says that others delayed it."""
    return (read_result(folder) or {}).get("contended") is True


def read_flags(folder: Path) -> dict[str, Any] | None:
    """Return the configuration of a trial as it was last written, or None if there is none."""
    paths = [path for path in folder.glob("flags_*.json") if _number(path).isdecimal()]
    return read_json(max(paths, key=lambda path: int(_number(path)))) if paths else None


def _number(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def as_written(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as its file has it: tuples are lists there."""
    return dict(json.loads(json.dumps(dict(flags))))


def check_same_configuration(
    folder: Path, flags: Mapping[str, Any], replaced: Collection[Path] = ()
) -> None:
    """Check that a trial has the same configuration as the trials that are already there.

    All trials in a submission's folder must have the same submission source. Those of the same
    workload and framework must have the whole configuration in common, except `PER_TRIAL`. A trial
    that has gone on on another number of devices counts as it began (`device_history`).

    Args:
        folder: The run folder of the new trial.
        flags: The new trial's configuration, or a part of it that has all of `WHERE_CHOSEN` that
            was asked for; of other settings those that both sides have are compared. It always
            names the `submission`.
        replaced: Run folders that do not count, since their trials are to be run anew.

    Raises:
        UserError: A setting or the source differs; of a setting the message has both values.
    """
    now = as_written(flags)
    submission_folder = folder.parents[2]
    for path in sorted(submission_folder.glob("study_*/*/trial_*/flags_*.json")):
        if path.parent in replaced:
            continue
        earlier = device_history.as_begun(read_json(path) or {})
        compared = (set(earlier) & set(now)) | (WHERE_CHOSEN - BY_WORKLOAD)
        changed = [key for key in sorted(compared - PER_TRIAL) if earlier.get(key) != now.get(key)]
        if any(key.startswith("submission_") for key in changed):
            raise UserError(
                f"{submission_folder}: holds another submission named "
                f"{flags['submission']!r}, with other "
                "source; use another --experiment, or rename the file or its folder"
            )
        if changed and path.parents[1].name == folder.parent.name:
            shown = ", ".join(
                line
                for key in changed
                for line in _differences(key, earlier.get(key), now.get(key))
            )
            raise UserError(
                f"{folder.parent}: holds another configuration ({shown}); use "
                f"another --experiment or --out{_or_change_devices(changed)}"
            )


def check_same_as_begun(
    folder: Path, flags: Mapping[str, Any], *, may_change_devices: bool
) -> None:
    """Check as `check_same_configuration` does; where a trial may go on with another number of
    devices, it counts with the number that it began with.

    Args:
        folder: The run folder of the trial.
        flags: Its configuration, or a part of it.
        may_change_devices: Whether it may.

    Raises:
        UserError: A setting or the source differs.
    """
    before = read_flags(folder)
    compared = device_history.comparable(flags, before, may_change_devices)
    check_same_configuration(folder, compared)


def _or_change_devices(changed: Collection[str]) -> str:
    """Return what can be done where trials differ in their number of devices alone."""
    if set(changed) != {"devices"}:
        return ""
    return f", or go on with an interrupted trial by --devices N {device_history.OPTION}"


def begun_without(folder: Path, setting: str) -> bool:
    """Return whether trials of a workload were begun by a version that did not record a setting.

    Args:
        folder: The run folder of a trial; all trials of its submission, workload and framework
            count.
        setting: The name in the flags.
    """
    paths = folder.parents[2].glob(f"study_*/{folder.parent.name}/trial_*/flags_*.json")
    return any(setting not in (read_json(path) or {setting: None}) for path in paths)


def set_aside(folder: Path, kind: str = "interrupted") -> Path | None:
    """Move the files that a trial left into a folder `<kind>_<n>` inside its own.

    Args:
        folder: The trial's run folder.
        kind: One of `ASIDE`: 'interrupted', or 'replaced' for a trial that is to be run again.

    Returns:
        That folder, or None where there was nothing to move.

    Raises:
        writing.UnwritableError: The run folder cannot be written.
    """
    left = [path for path in folder.glob("*") if not is_aside(path)]
    if not left:
        return None
    earlier = (path.name.removeprefix(f"{kind}_") for path in folder.glob(f"{kind}_*"))
    number = 1 + max((int(text) for text in earlier if text.isdecimal()), default=-1)
    aside = folder / f"{kind}_{number}"
    with writing.into(folder):
        aside.mkdir()
        for path in left:
            path.rename(aside / path.name)
    return aside


def is_aside(path: Path) -> bool:
    """Return whether a path in a run folder is one that `set_aside` made."""
    return path.name.startswith(tuple(f"{kind}_" for kind in ASIDE))


T = TypeVar("T")


def _writes(method: Callable[..., T]) -> Callable[..., T]:
    """Wrap a method of `TrialLog` that writes, so that it fails clearly and writes once.

    The wrapped method raises UnwritableError where the folder cannot be written. In a process that
    the submission forked it ends that process instead, so that no row is written twice.
    """

    @functools.wraps(method)
    def checked(self: "TrialLog", *arguments: Any) -> T:
        if os.getpid() != self.process_id:
            os._exit(0)
        with writing.into(self.folder):
            return method(self, *arguments)

    return checked


class TrialLog:
    """Writes the files of one trial's run folder.

    The methods that write raise `writing.UnwritableError` once the folder cannot be written any
    more. Creating the log creates the folder, and raises UserError where that is not possible.

    Attributes:
        folder: The run folder.
        process_id: The process that created the log; only this one writes.
    """

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
        self._begun: dict[str, Mapping[str, Any]] = {}

    @_writes
    def begin(
        self, flags: Mapping[str, Any], meta: Mapping[str, Any], point: Mapping[str, Any] | None
    ) -> int:
        """Write the trial's configuration before its first step.

        Args:
            flags: The configuration, for `flags_<n>.json`.
            meta: The facts about the machine, the data and the workload, for `meta_data_<n>.json`.
            point: The hyperparameters, for `hparams.json`; None is written as an empty object.

        Returns:
            The number n: how many times the trial had begun before.
        """
        number = len(list(self.folder.glob("flags_*.json")))
        self._begun = {f"flags_{number}.json": flags, f"meta_data_{number}.json": meta}
        for name, content in self._begun.items():
            write_json(self.folder / name, content)
        write_json(self.folder / HYPERPARAMETERS, dict(point or {}))
        return number

    @_writes
    def take_back(self) -> None:
        """Remove the configuration that `begin` has written, of a process that did not train."""
        for name in self._begun:
            (self.folder / name).unlink(missing_ok=True)

    @_writes
    def copy_source(self, files: Mapping[str, Path]) -> None:
        """Copy the submission's files into the run folder.

        Args:
            files: The files by their path relative to the submission's folder.
        """
        for name, path in files.items():
            target = self.folder / SOURCE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    @_writes
    def evaluation(self, times: Mapping[str, float], metrics: Mapping[str, float]) -> None:
        """Append one evaluation, to the CSV file and for TensorBoard.

        Args:
            times: A value for each of the columns in `TIMES`; times are in seconds.
            metrics: The metrics by '<split>/<name>'.
        """
        row = {**times, **metrics}
        writing.append_rows(self.folder / EVALUATIONS, (*TIMES, *self._metric_columns), [row])
        shown = {**metrics, "accumulated_submission_time": times["score"]}
        self._events.add([(int(times["global_step"]), shown)])

    @_writes
    def scalars(self, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Append training scalars, to the CSV file and for TensorBoard.

        Args:
            rows: A step and its scalars by name, for each row. Only those named in `SCALAR_COLUMNS`
                go to the CSV file; TensorBoard gets all of them.
        """
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
        """Write the texts that the last evaluation generated, replacing those of an earlier one.

        Args:
            rows: One JSON object for each text.
        """
        partial = self.folder / f".{PREDICTIONS}"
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        partial.replace(self.folder / PREDICTIONS)

    def sizes(self) -> dict[str, int]:
        """Return the current size in bytes of each file that rows are appended to, by its name."""
        paths = (self.folder / name for name in (EVALUATIONS, SCALARS))
        return {path.name: path.stat().st_size for path in paths if path.is_file()}

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return whether the files still have all the rows that they had at these sizes.

        Args:
            sizes: Sizes in bytes by file name, from `sizes`.
        """
        return all(writing.ends_a_line(self.folder / name, size) for name, size in sizes.items())

    @_writes
    def go_back(self, sizes: Mapping[str, int]) -> None:
        """Cut the files to earlier sizes, since the rows after a checkpoint will be measured again.

        Args:
            sizes: Sizes in bytes by file name, from `sizes`; a file that is not named is removed.
        """
        for name in (EVALUATIONS, SCALARS):
            path = self.folder / name
            if name in sizes:
                os.truncate(path, sizes[name])
            else:
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the files of a trial that turned out to be a user's mistake.

        What `set_aside` moved of earlier trials stays; folders that are left empty are
        removed.
        """
        for path in self.folder.iterdir():
            if not is_aside(path):
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
    """Return the evaluations of a trial, oldest first, as numbers by column.

    Empty cells are left out of a row, and a last line that a crash cut short is ignored.
    """
    return list(_rows(folder / EVALUATIONS))


def scalars(folder: Path, start: int = 0) -> tuple[list[dict[str, float]], int]:
    """Return the training scalars of a trial that were written after a position in the file.

    Args:
        folder: The run folder.
        start: The position in bytes; 0 reads from the beginning.

    Returns:
        The complete rows as numbers by column, and the position in bytes at which they end, for the
        next call. A last line that is not complete yet is left to that call.
    """
    path = folder / SCALARS
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]  # The rest is a line that is not complete.
    lines = text.decode().splitlines()[1 if start == 0 else 0 :]  # The header is no row.
    reader = csv.DictReader(lines, SCALAR_COLUMNS)
    return [_numbers(row) for row in reader], start + len(text)


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if value != ""}


def _rows(path: Path) -> Iterator[dict[str, float]]:
    if not path.is_file():
        return
    lines = path.read_text("utf-8-sig").splitlines(keepends=True)
    # A line without its end was cut short by a crash.
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):
        yield _numbers(row)


def write_json(path: Path, value: Any) -> None:
    """Write a value to a JSON file, either completely or not at all.

    It is written to a temporary file beside it, flushed to the disk and renamed.

    Raises:
        OSError: The disk does not take the file; what was there before stays.
    """
    text = json.dumps(value, indent=2, sort_keys=True)
    # Another process, here or on another machine, may write the same file at the same time.
    neighbour = path.with_name(f".{path.name}.writing-{platform.node()}-{os.getpid()}")
    try:
        with neighbour.open("w") as file:
            file.write(text + "\n")
            writing.flush(file)
    except OSError:
        neighbour.unlink(missing_ok=True)  # It holds only half of the value.
        raise
    crash_points.reach(f"{path.stem} written")
    neighbour.replace(path)
    crash_points.reach(f"{path.stem} kept")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds.

    Returns:
        None where there is no file, it is no JSON, or it holds something else than an object.
    """
    try:
        value = json.loads(path.read_bytes())  # with a byte order mark or without
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _differences(name: str, earlier: Any, now: Any) -> list[str]:
    """Return the parts of a message that say how a setting differs, each with both values.

    For a mapping only the entries that differ are named.
    """
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

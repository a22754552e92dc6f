"""The data of trials, whoever wrote their folders, and findings about files and folders."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from algoperf.machine.hardware_class import Spread
from algoperf.workload.crossing import Point
from scoring.reading.evaluations import Rows

Changes = Mapping[str, str | float | bool]
BUSY_SHARE = 0.1  # Of the cores that a trial may use.
RUNNING, INTERRUPTED = "running", "interrupted"
CONTENDED = "contended"  # In place of these for a trial that is left out, and is to be run again.


@dataclasses.dataclass(frozen=True)
class Finding:
    """A remark about a file or folder that the reader of a score should know.

    Attributes:
        path: The file or folder that the remark is about.
        message: The remark, which continues a sentence that begins with the path.
        damage: Whether something was left out or had to be guessed. False marks records that are
            unusual but complete.
    """

    path: Path
    message: str
    damage: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Target:
    """The validation metric and the value of it that a trial has to reach.

    Attributes:
        metric: The name of the metric, such as 'accuracy'.
        higher_is_better: Whether the metric has to rise to `validation` (otherwise: fall to it).
        validation: The value to reach on the validation split; None where the trial had no target.
    """

    metric: str
    higher_is_better: bool
    validation: float | None

    @property
    def column(self) -> str:
        """The column of `TrialRun.rows` whose values are compared with the target."""
        return f"validation/{self.metric}"


@dataclasses.dataclass(frozen=True)
class ClassTimes:
    """What a trial records of its hardware class for its workload.

    Attributes:
        budget_factor: What the workload's own budget was multiplied by.
        work: A digest of what the reference algorithm did there; '' without a step time.
        step: The reference algorithm's seconds a step in the trial's framework; None where the
            class has none.
    """

    budget_factor: float
    work: str
    step: Spread | None


@dataclasses.dataclass(frozen=True, eq=False)
class TrialRun:
    """One trial: its place in the run folder, its settings, its evaluations and how it ended.

    Attributes:
        submission: The name of the submission folder.
        experiment: The name of the folder that holds the submission folder.
        study: The number of the study.
        workload: The workload's name.
        framework: 'jax' or 'pytorch'.
        trial: The number of the trial within its study.
        path: The trial folder.
        rows: The columns of eval_measurements.csv by name. Each is an array with one value per
            evaluation, NaN where a value is empty or unreadable.
        target: The target on record, None where there is none.
        budget_s: The limit of submission time in seconds; None where none is recorded.
        base_workload: The base workload of a held-out variant; None for any other workload.
        status: How the run says that it ended ('reached', 'budget', 'diverged', 'failed', ...);
            None where it has not ended, or AlgoPerf wrote the folder.
        scoreable: Whether the trial's own records allow it to be scored.
        pool: The settings that must be equal before results are compared; {} where none are
            recorded.
        workload_hash: A digest of the source of a workload from outside of the library; else None.
        unfinished: 'running' where a process works on the trial, 'interrupted' where this library
            wrote the folder, the trial has no result and no process works on it; None where it has
            ended, and in folders of AlgoPerf. 'contended' where the reader of a score leaves it
            out, since others' work delayed it.
        busy_share: The share of the cores that other processes used while the trial ran; 0 where
            that is not recorded.
        contended: Whether the run says that others took more of its clock than may be overlooked;
            None where it does not say.
        probes: The metric of a few validation rows from the last evaluation that missed the target
            to the one that met it, the rows of both included; empty where there were none.
        first_step_s: The seconds of the submission's time that the first step took, which hold the
            compilation; NaN where that is not recorded.
        clock_s: The submission's time at its end, in seconds; NaN where that is not recorded.
        last_step: The step at its end; NaN likewise.
        wall_s: The seconds from its beginning to its end, with set-up and evaluations; where they
            are not recorded those at its last evaluation; NaN where these are not, either.
        data_fingerprint: A digest of the data the trial was trained on, where it is recorded.
        hyperparameters: The contents of hparams.json.
        flags: What the run saw the submission do that it should not do. A flag is not a verdict
            (docs/trust.md).
        changes: For a held-out variant, the new value of each axis it changes; {} where this is not
            recorded.
        class_times: What is recorded of the trial's hardware class; None where it has none.
        unpacked: Where the trial's files are if `path` is in a file of `algoperf pack`, else None.
    """

    submission: str
    experiment: str
    study: int
    workload: str
    framework: str
    trial: int
    path: Path
    rows: Rows
    target: Target | None
    budget_s: float | None
    base_workload: str | None
    status: str | None
    scoreable: bool
    pool: Mapping[str, Any]
    data_fingerprint: str | None
    hyperparameters: Mapping[str, Any]
    flags: tuple[str, ...] = ()
    changes: Changes = dataclasses.field(default_factory=dict)
    workload_hash: str | None = None
    unfinished: str | None = None
    busy_share: float = 0.0
    contended: bool | None = None
    probes: tuple[Point, ...] = ()
    first_step_s: float = math.nan
    class_times: ClassTimes | None = None
    clock_s: float = math.nan
    last_step: float = math.nan
    wall_s: float = math.nan
    unpacked: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder that has the trial's files."""
        return self.unpacked or self.path

    @property
    def submission_folder(self) -> Path:
        """The folder that holds the studies. Submissions are told apart by it, not by its name."""
        return self.path.parents[2]

    @property
    def is_on_busy_machine(self) -> bool:
        """Whether other processes used so much of the cores that it may show in the times.

        Where the trial says whether it waited for them, that is told in place of this.
        """
        return self.contended is None and self.busy_share >= BUSY_SHARE


def grouped(
    runs: Iterable[TrialRun], key: Callable[[TrialRun], Hashable]
) -> Iterable[list[TrialRun]]:
    """Group runs by a key.

    Args:
        runs: The runs to group.
        key: A function that returns the key of a run.

    Returns:
        One list of runs per key, ordered by the first appearance of each key.
    """
    groups: dict[Hashable, list[TrialRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups.values()


def changes_told(changes: Changes) -> str:
    """Return a variant's changes as text, sorted by axis, such as 'dropout 0.1, norm_place post'.

    The text is empty where no changes are recorded.
    """
    return ", ".join(f"{axis} {changes[axis]}" for axis in sorted(changes))

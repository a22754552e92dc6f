"""Trials as scoring knows them, whoever wrote their folders, and findings about these."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from scoring.reading.evaluations import Rows

Changes = Mapping[str, str | float | bool]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about a file or folder that the reader of a score should know.

    `damage` is False for what is odd but whole: nothing was left out or guessed because of it.
    """

    path: Path
    message: str
    damage: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Target:
    """The metric that decides; `validation` is None where the run had nothing to reach."""

    metric: str
    higher_is_better: bool
    validation: float | None

    @property
    def column(self) -> str:
        """The column of `TrialRun.rows` that is compared with the target."""
        return f"validation/{self.metric}"


@dataclasses.dataclass(frozen=True, eq=False)
class TrialRun:
    """One trial folder.

    `rows` maps a column of eval_measurements.csv to its values, one an evaluation, NaN where a
    value is empty or unreadable. `base_workload` is None unless the workload is a held-out variant
    of it; `changes` then holds what the variant changes, values by axis ({}: not recorded).
    `status` is None where the trial was killed (or AlgoPerf wrote the folder). `pool` holds the
    settings that must agree before results are pooled; {} where none are recorded. `flags` say what
    the run saw the submission do that it should not (docs/trust.md).
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

    @property
    def submission_folder(self) -> Path:
        """The folder that holds the studies; it, not its name, identifies a submission."""
        return self.path.parents[2]


def grouped(
    runs: Iterable[TrialRun], key: Callable[[TrialRun], Hashable]
) -> Iterable[list[TrialRun]]:
    """The runs of each key, in order of first appearance."""
    groups: dict[Hashable, list[TrialRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups.values()


def changes_told(changes: Changes) -> str:
    """Changes as text, by axis: 'dropout 0.1, norm_place post'; '' where none is recorded."""
    return ", ".join(f"{axis} {changes[axis]}" for axis in sorted(changes))

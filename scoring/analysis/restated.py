"""Times of a leaderboard restated in another hardware class: an estimate, never a measurement.

    estimate = measured time x the reference algorithm's step time there / its step time here

Both step times are of `algoperf calibrate`, for the same work, workload by workload in each
framework: of the class that the runs record, and of the class that the times are restated in. A
submission whose steps are made of other work than the reference algorithm's, or that spends its
time on compilation, would be faster or slower there by another factor. A missed target stays
missed. Scores and ranks are never computed from estimates.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeGuard

from algoperf.machine.hardware_class import HardwareClass, Key, Spread
from scoring.analysis.leaderboard import Leaderboard, Row
from scoring.reading.trials import Finding, TrialRun


@dataclasses.dataclass(frozen=True)
class RestatedTime:
    """One entry's time on one workload, measured and as an estimate.

    Attributes:
        label: The entry's label.
        workload: The workload.
        framework: The framework.
        time_s: The measured median time to target in seconds; inf where it was missed, NaN where no
            study is decided.
        ratio: The step time there over the one here.
        low: The least that the ratio may be by the spread of both measurements.
        high: The most.
        budget_s: The budget here in seconds; None where there is none.
        budget_ratio: The budget there over the one here.
    """

    label: str
    workload: str
    framework: str
    time_s: float
    ratio: float
    low: float
    high: float
    budget_s: float | None
    budget_ratio: float

    @property
    def estimate_s(self) -> float:
        """The estimated time in seconds; inf and NaN as in `time_s`."""
        return self.ratio * self.time_s

    @property
    def low_s(self) -> float:
        """The lower end of the estimate in seconds."""
        return self.low * self.time_s

    @property
    def high_s(self) -> float:
        """Its upper end."""
        return self.high * self.time_s

    @property
    def budget_there_s(self) -> float | None:
        """The budget there in seconds; None where there is none."""
        return None if self.budget_s is None else self.budget_ratio * self.budget_s


@dataclasses.dataclass(frozen=True)
class Restated:
    """The times of a leaderboard in another hardware class, as far as they can be estimated.

    Attributes:
        name: The other class's name.
        id: Its id.
        measured_in: The name and id of the class that the runs record, as text.
        times: A time for each entry and workload, in the order of the leaderboard.
    """

    name: str
    id: str
    measured_in: str
    times: tuple[RestatedTime, ...]


def restate(board: Leaderboard, there: HardwareClass) -> tuple[Restated | None, list[Finding]]:
    """Return the times of a leaderboard in a hardware class, and what could not be restated.

    Args:
        board: The leaderboard.
        there: The class to restate in.

    Returns:
        The estimates; None where the runs record no class, where theirs is the same, and where
        nothing can be estimated. And a finding about each workload that is left out.
    """
    here = board.pool.settings.get("hardware_class")
    if not board.rows:
        return None, []
    folder = board.pool.runs[0].submission_folder
    if not _is_class(here):
        message = (
            f"{board.pool.name} records no hardware class: not restated in {there}; "
            "algoperf run --hardware-class records it"
        )
        return None, [Finding(folder, message, damage=False)]
    if here["id"] == there.id:
        message = f"{board.pool.name} is of hardware class {there} already: nothing to restate"
        return None, [Finding(folder, message, damage=False)]
    times: list[RestatedTime] = []
    reasons: dict[str, Finding] = {}
    for row in board.rows:
        for name in board.layout.workloads:
            runs = [run for run in row.entry.runs if run.workload == name]
            if not runs:
                continue
            result = _restated(board, row, name, runs[0], there)
            if isinstance(result, str):
                message = f"{name} is not restated in {there}: {result}"
                reasons.setdefault(message, Finding(runs[0].path.parent, message, damage=False))
            else:
                times.append(result)
    measured_in = f"{here['name']} ({here['id']})"
    restated = Restated(there.name, there.id, measured_in, tuple(times)) if times else None
    return restated, [*reasons.values()]


def _is_class(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and {"name", "id"} <= value.keys()


def _restated(
    board: Leaderboard, row: Row, name: str, run: TrialRun, there: HardwareClass
) -> RestatedTime | str:
    """Return an entry's time on a workload, or why it cannot be restated."""
    settings, framework = board.pool.settings, row.entry.framework
    base = run.base_workload or name
    key = Key(base, str(settings.get("scale")), str(settings.get("data")))
    theirs, budget = there.measurement(key, framework), there.budget(key)
    if theirs is None or budget is None:
        return f"that class has no times of {key} in {framework}"
    ours = run.class_times
    if ours is None or ours.step is None:
        return f"the runs record no step time of their own class in {framework}"
    if ours.work != theirs.work:
        return f"the two classes measured other work ({ours.work} and {theirs.work})"
    step = ours.step
    return RestatedTime(
        row.entry.label,
        name,
        framework,
        row.cells[name].median_time_s,
        *_ratios(theirs.step, step),
        board.benchmark.workloads[name].budget_s,
        budget.factor / ours.budget_factor,
    )


def _ratios(there: Spread, here: Spread) -> tuple[float, float, float]:
    """Return the ratio of two measured times, the least and the most that it may be."""
    return (
        there.median_s / here.median_s,
        there.low_s / here.high_s,
        there.high_s / here.low_s,
    )

"""Read a comparison's figures from a run folder: a table of measures, and the curves.

Units are in the names: seconds, bytes, joules, kWh. A figure that a run does not have is None.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.run_folder import run_log
from algoperf.trial.goal import Goal

CLOCK, STEP = "accumulated_submission_time", "global_step"
Number = float | None
Rows = Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One trial that has ended.

    Attributes:
        result: The content of its `result.json`.
        flags: Its configuration.
        evaluations: Its evaluations, as numbers by column.
        scalars: Its training scalars, as numbers by column.
        goal: The comparison's target, whatever the trial's own was.
    """

    result: Mapping[str, Any]
    flags: Mapping[str, Any]
    evaluations: Rows
    scalars: Rows
    goal: Goal  # the comparison's, whatever the run's own was

    @property
    def failed(self) -> bool:
        """Whether the trial failed, so that only its curve up to then counts."""
        return bool(self.result["status"] == "failed")

    @property
    def broke(self) -> bool:
        """Whether the trial failed or diverged, so that its curve ends before its time."""
        return self.result["status"] in ("failed", "diverged")

    @property
    def metric(self) -> str:
        """The column of the target metric."""
        return f"validation/{self.goal.metric}"

    def crossing(self) -> Mapping[str, float] | None:
        """Return the first evaluation that meets the comparison's target, or None."""
        return next((row for row in self.evaluations if self.goal.is_met(row)), None)

    def measured(self, table: Mapping[str, "Measure"]) -> dict[str, Number]:
        """Return the values of all measures by name.

        A value is None where it is not known or not finite. A trial that failed has only the
        measures of its curve.

        Args:
            table: The measures by name.
        """
        return {
            name: _finite(measure.value(self)) if measure.of_curve or not self.failed else None
            for name, measure in table.items()
        }


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure of a trial.

    Attributes:
        value: Returns the figure of a trial, or None where it is not known.
        of_curve: Whether it is read from the curve, so that it is known for failed trials, too.
        miss: Whether None means a missed target, which counts as infinite when trials are joined.
    """

    value: Callable[[Trial], Number]
    of_curve: bool = False
    miss: bool = False


def read(folder: Path, goal: Goal) -> Trial | None:
    """Read a trial from its run folder.

    Args:
        folder: The run folder.
        goal: The comparison's target.

    Returns:
        The trial, or None where it has not ended.
    """
    result = run_log.read_result(folder)
    if result is None:
        return None
    flags = run_log.read_flags(folder) or {}
    return Trial(result, flags, run_log.evaluations(folder), run_log.scalars(folder)[0], goal)


def _finite(value: Number) -> Number:
    return None if value is None or not math.isfinite(value) else value


def _at(*path: str) -> Callable[[Trial], Number]:
    """Return a function that reads the number at a path of keys in a trial's result."""

    def read(trial: Trial) -> Number:
        value: Any = trial.result
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


def _final(split: str, name: str | None = None) -> Callable[[Trial], Number]:
    """Return a function that reads the last value of a metric on a split.

    Args:
        split: The split.
        name: The metric; None is the target metric.
    """

    def read(trial: Trial) -> Number:
        return _at("final", f"{split}/{name or trial.goal.metric}")(trial)

    return read


def _best(trial: Trial) -> Number:
    best: Number = None
    for row in trial.evaluations:
        value = row.get(trial.metric, math.nan)
        if trial.goal.is_better(value, best):
            best = value
    return best


def _crossed(column: str) -> Callable[[Trial], Number]:
    def read(trial: Trial) -> Number:
        crossing = trial.crossing()
        return None if crossing is None else crossing[column]

    return read


def _gradient_norms(trial: Trial) -> list[float]:
    return [row["gradient_norm"] for row in trial.scalars if "gradient_norm" in row]


def _mean_norm(trial: Trial) -> Number:
    norms = _gradient_norms(trial)
    return statistics.fmean(norms) if norms else None


def _last_norm(trial: Trial) -> Number:
    norms = _gradient_norms(trial)
    return norms[-1] if norms else None


def _step_s(trial: Trial) -> Number:
    """Return the median time of a step in seconds of submission time.

    It is the median over the stretches between evaluations. The first evaluation follows step 1, so
    no stretch contains the compilation.
    """
    stretches = [
        (after[CLOCK] - before[CLOCK]) / (after[STEP] - before[STEP])
        for before, after in itertools.pairwise(trial.evaluations)
        if after[STEP] > before[STEP]
    ]
    return statistics.median(stretches) if stretches else None


def _compile_s(trial: Trial) -> Number:
    """Return the time of the first step minus that of the median step, in seconds."""
    first_s, step_s = _at("ledger", "first_step_s")(trial), _step_s(trial)
    return None if first_s is None or step_s is None else first_s - step_s


MEASURES: Mapping[str, Measure] = {
    "metric": Measure(_final("validation")),
    "best": Measure(_best, of_curve=True),
    "test_metric": Measure(_final("test")),
    "validation_loss": Measure(_final("validation", "loss")),
    "train_loss": Measure(_final("train", "loss")),
    "time_to_target_s": Measure(_crossed(CLOCK), of_curve=True, miss=True),
    "steps_to_target": Measure(_crossed(STEP), of_curve=True, miss=True),
    "gradient_norm_mean": Measure(_mean_norm),
    "gradient_norm_last": Measure(_last_norm),
    "steps": Measure(_at("steps")),
    "total_s": Measure(_at("ledger", "wall_s")),
    "submission_s": Measure(_at("ledger", "submission_s")),
    "step_s": Measure(_step_s),
    "first_step_s": Measure(_at("ledger", "first_step_s")),
    "compile_s": Measure(_compile_s),
    "samples_per_s": Measure(_at("samples_per_s")),
    "inference_s_per_example": Measure(_at("inference_s_per_example")),
    "peak_process_bytes": Measure(_at("resources", "peak_process_bytes")),
    "peak_device_bytes": Measure(_at("resources", "peak_device_bytes")),
    "cpu_s": Measure(_at("resources", "cpu_s")),
    "parameters": Measure(_at("parameters", "total")),
    "trainable_parameters": Measure(_at("parameters", "trainable")),
    "trainable_share": Measure(_at("parameters", "trainable_share")),
    "device_energy_j": Measure(_at("resources", "device_energy_j")),
    "energy_kwh": Measure(_at("resources", "carbon", "energy_kwh")),
    "co2_kg": Measure(_at("resources", "carbon", "co2_kg")),
}


def table(metrics: Iterable[str], target_metric: str) -> dict[str, Measure]:
    """Return `MEASURES`, followed by the test values of the workload's other metrics.

    Args:
        metrics: The names of the workload's metrics.
        target_metric: The target metric, which `MEASURES` has already.
    """
    others = {
        test_of(name): Measure(_final("test", name)) for name in metrics if name != target_metric
    }
    return {**MEASURES, **others}


def test_of(metric: str) -> str:
    """Return the name of the measure that is a metric's value on the test split."""
    return f"test_{metric}"

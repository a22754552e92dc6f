"""A comparison as plain values.

It has a row for each arm, whose trials are joined by their median, and a list of the runs that are
missing.
"""

import csv
import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.experiments.compare import agreement, measures
from algoperf.experiments.compare.measures import Measure, Number, Trial
from algoperf.experiments.compare.request import SETTINGS, Arm, ComparePlan
from algoperf.study import carbon
from algoperf.trial.goal import Goal


@dataclasses.dataclass(frozen=True)
class Spread:
    """The spread of one measure over the trials of a row.

    Attributes:
        median: The median of the values.
        low: The smallest value.
        high: The largest value.
        values: All values; infinity stands for a target that was missed.
    """

    median: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """An arm of a comparison with those of its trials that have ended.

    Attributes:
        arm: The arm.
        trials: The trials by their number, from 1.
        table: The measures by name.
    """

    arm: Arm
    trials: Mapping[int, Trial]
    table: Mapping[str, Measure]

    @property
    def spreads(self) -> dict[str, Spread | None]:
        """The spread of each measure, or None where no trial has it."""
        measured = [trial.measured(self.table) for trial in self.trials.values()]
        has_target = any(trial.goal.validation is not None for trial in self.trials.values())
        return {
            name: spread(
                [each[name] for each in measured], counts_misses=measure.miss and has_target
            )
            for name, measure in self.table.items()
        }

    @property
    def reached(self) -> int:
        """The number of trials that met the comparison's target."""
        return sum(trial.crossing() is not None for trial in self.trials.values())


def spread(values: Iterable[Number], *, counts_misses: bool = False) -> Spread | None:
    """Return the median and the range of the values that are known, or None if none is.

    Args:
        values: The values; None is one that is not known.
        counts_misses: Whether a value that is not known counts as infinite, being a missed target.
    """
    known = [
        math.inf if value is None else value
        for value in values
        if counts_misses or value is not None
    ]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known), tuple(known))


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The trials of a comparison that have ended, and how two frameworks among them agree.

    Attributes:
        plan: The plan of the comparison.
        rows: A row for each arm.
        goal: The comparison's target.
        missing: The runs that have no result yet.
    """

    plan: ComparePlan
    rows: Sequence[Row]
    goal: Goal
    missing: Sequence[str]  # runs without a result

    @property
    def pairs(self) -> list[tuple[Row, Row]]:
        """The pairs of rows that differ only in their framework."""
        by_setting: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            by_setting.setdefault(tuple(row.arm.setting.items()), []).append(row)
        return [(rows[0], rows[1]) for rows in by_setting.values() if len(rows) == 2]

    @property
    def agreements(self) -> list[tuple[Arm, agreement.Agreement]]:
        """The agreement of each pair of rows that has trials of the same seed in both frameworks.

        Trials that failed are left out. Each comes with the first row's arm.
        """
        agreements = []
        for one, other in self.pairs:
            common = sorted(
                number
                for number in one.trials.keys() & other.trials.keys()
                if not (one.trials[number].failed or other.trials[number].failed)
            )
            if common:
                trials = [(one.trials[number], other.trials[number]) for number in common]
                frameworks = one.arm.framework, other.arm.framework
                agreements.append((one.arm, agreement.of(frameworks, trials)))
        return agreements

    @property
    def machines(self) -> list[str]:
        """Descriptions of the machines on which the trials ran, with the number of their threads.

        Times that were measured on two different machines are not comparable.
        """
        trials = [trial for row in self.rows for trial in row.trials.values()]
        return list(dict.fromkeys(_machine(trial.flags.get("hardware", {})) for trial in trials))

    @property
    def energies(self) -> list[tuple[Row, dict[str, Any]]]:
        """The row and codecarbon's figures of each trial that has them."""
        measured = (
            (row, (trial.result.get("resources") or {}).get("carbon"))
            for row in self.rows
            for trial in row.trials.values()
        )
        return [(row, energy) for row, energy in measured if energy is not None]

    @property
    def estimates_energy(self) -> bool:
        """Whether the energy of some trial was estimated without any sensor."""
        return any(energy["is_estimate"] for _, energy in self.energies)

    @property
    def notes(self) -> list[str]:
        """Facts that a reader of the tables should know, one text for each."""
        return [*_notes(self)]


def make(plan: ComparePlan) -> Comparison:
    """Read the results of those runs of a comparison that have ended."""
    goal = Goal(plan.definition.target_metric, plan.definition.higher_is_better, plan.target)
    by_arm: dict[Arm, dict[int, Trial]] = {arm: {} for arm in plan.arms}
    missing = []
    for run in plan.runs:
        trial = measures.read(run.folder, goal)
        if trial is None:
            missing.append(f"{run.arm.label} trial {run.trial}")
        else:
            by_arm[run.arm][run.trial] = trial
    table = measures.table(plan.definition.metrics, goal.metric)
    rows = [Row(arm, trials, table) for arm, trials in by_arm.items()]
    return Comparison(plan, rows, goal, missing)


def at_best_rates(comparison: Comparison) -> Comparison:
    """Return the comparison with each submission's best learning rate alone.

    It is the rate with the best median of the last validation metric, over the trials in all
    frameworks, where one that has no such value counts as worst; the first of several that are
    equal. A comparison of one submission, or of one rate, is returned as it is.
    """
    submissions = {row.arm.submission for row in comparison.rows}
    rates = {row.arm.learning_rate for row in comparison.rows}
    if len(submissions) == 1 or len(rates) == 1:
        return comparison
    goal = comparison.goal
    best: dict[str | None, tuple[float | None, float | None]] = {}
    for submission, rate in dict.fromkeys(
        (row.arm.submission, row.arm.learning_rate) for row in comparison.rows
    ):
        value = _median_last(comparison, submission, rate)
        known = best.setdefault(submission, (rate, value))[1]
        if value is not None and goal.is_better(value, known):
            best[submission] = rate, value
    rows = [row for row in comparison.rows if best[row.arm.submission][0] == row.arm.learning_rate]
    return dataclasses.replace(comparison, rows=rows)


def _median_last(
    comparison: Comparison, submission: str | None, rate: float | None
) -> float | None:
    worst = -math.inf if comparison.goal.higher_is_better else math.inf
    last = [
        trial.measured(row.table)["metric"]
        for row in comparison.rows
        if (row.arm.submission, row.arm.learning_rate) == (submission, rate)
        for trial in row.trials.values()
    ]
    return statistics.median(worst if each is None else each for each in last) if last else None


def _machine(hardware: Mapping[str, Any]) -> str:
    names = Counter(hardware.get("accelerators", []))
    accelerators = [f"{count} x {name}" for name, count in names.items()]
    threads = hardware.get("threads", "?")
    plural = "" if threads == 1 else "s"
    return ", ".join([*accelerators, f"{hardware.get('cpu', '?')}, {threads} thread{plural}"])


def _notes(comparison: Comparison) -> Iterable[str]:
    for row in comparison.rows:
        for number, trial in row.trials.items():
            status = trial.result["status"]
            if status == "failed":
                cause = (trial.result.get("error") or {}).get("cause", "unknown")
                yield f"{row.arm.label} trial {number} failed ({cause}); run again, it is retried"
            elif status != "complete":
                yield f"{row.arm.label} trial {number}: {status} at step {trial.result['steps']}"
            for text in trial.result.get("flags", []):
                yield f"{row.arm.label} trial {number} flagged: {text} (docs/trust.md)"
    if comparison.missing:
        yield f"not run yet: {', '.join(comparison.missing)}"
    prints = {
        trial.flags.get("data_fingerprint")
        for row in comparison.rows
        for trial in row.trials.values()
    }
    if len(prints) > 1:
        yield "not all rows were trained on the same data (data_fingerprint in flags_0.json)"
    if len(comparison.machines) > 1:
        yield "these ran on different machines: their times are not comparable"
    sensors = []
    for row, energy in comparison.energies:
        if energy["sensors"] not in sensors:  # One note for each set of sensors is enough.
            sensors.append(energy["sensors"])
            yield f"{row.arm.label}: {carbon.line(energy)}"


def to_json(comparison: Comparison, command: str) -> dict[str, Any]:
    """Return the comparison as the content of `compare.json`.

    Args:
        comparison: The comparison.
        command: The command line that asked for it.
    """
    plan = comparison.plan
    return {
        "command": command,
        "workload": plan.definition.name,
        "scale": plan.scale,
        "data": plan.data,
        "submissions": list(plan.submissions),
        "metric": comparison.goal.metric,
        "higher_is_better": comparison.goal.higher_is_better,
        "target": comparison.goal.validation,
        "max_steps": plan.max_steps,
        "eval_every_steps": plan.eval_every_steps,
        "machines": comparison.machines,
        "rows": [
            {
                **dataclasses.asdict(row.arm),
                "trials": len(row.trials),
                "statuses": dict(Counter(trial.result["status"] for trial in row.trials.values())),
                "reached": row.reached,
                "measures": {
                    name: each and dataclasses.asdict(each) for name, each in row.spreads.items()
                },
            }
            for row in comparison.rows
        ],
        "agreement": [
            {**{name: getattr(arm, name) for name in SETTINGS}, **dataclasses.asdict(each)}
            for arm, each in comparison.agreements
        ],
        "missing": list(comparison.missing),
        "notes": comparison.notes,
    }


def cells(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    """Return the comparison as a table: the names of the columns, and the values of each row.

    The first columns tell the rows apart. Each measure then has its median, and its range in the
    columns ending with `_low` and `_high`. A value that is not known is None, and a target that was
    missed is infinite.
    """
    names = [f"{name}{end}" for name in comparison.rows[0].table for end in ("", "_low", "_high")]
    fixed = [field.name for field in dataclasses.fields(Arm)]
    rows = []
    for row in comparison.rows:
        values: list[Any] = [getattr(row.arm, name) for name in fixed]
        values += [len(row.trials), row.reached]
        for each in row.spreads.values():
            values += [None] * 3 if each is None else [each.median, each.low, each.high]
        rows.append(values)
    return [*fixed, "trials", "reached", *names], rows


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write the table that `cells` returns to a CSV file.

    A value that is not known is left empty.
    """
    columns, rows = cells(comparison)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)

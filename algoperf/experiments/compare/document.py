"""A comparison as plain values: a row for each arm, seeds joined by their median, and what is
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
from algoperf.experiments.compare.request import Arm, ComparePlan
from algoperf.study import carbon
from algoperf.trial.goal import Goal


@dataclasses.dataclass(frozen=True)
class Spread:
    """The values of a row's seeds; infinite is a target that was missed."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """An arm and those of its trials that have ended, by their number."""

    arm: Arm
    trials: Mapping[int, Trial]
    table: Mapping[str, Measure]

    @property
    def spreads(self) -> dict[str, Spread | None]:
        """The spread of each measure, None where no trial has it."""
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
        """How many trials met the comparison's target."""
        return sum(trial.crossing() is not None for trial in self.trials.values())


def spread(values: Iterable[Number], *, counts_misses: bool = False) -> Spread | None:
    """Median and range of the values that are known; with `counts_misses` an unknown one is
    infinite.
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
    """What has ended of a comparison, and where two frameworks are in it, how they agree."""

    plan: ComparePlan
    rows: Sequence[Row]
    goal: Goal
    missing: Sequence[str]  # runs without a result

    @property
    def pairs(self) -> list[tuple[Row, Row]]:
        """Rows that differ in their framework alone."""
        by_setting: dict[Any, list[Row]] = {}
        for row in self.rows:
            by_setting.setdefault((row.arm.technique, row.arm.batch_size), []).append(row)
        return [(rows[0], rows[1]) for rows in by_setting.values() if len(rows) == 2]

    @property
    def agreements(self) -> list[tuple[Arm, agreement.Agreement]]:
        """The agreement of each pair that has trials of one seed in both frameworks."""
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
        """What machines the trials ran on, with their threads: times of two are not comparable."""
        trials = [trial for row in self.rows for trial in row.trials.values()]
        return list(dict.fromkeys(_machine(trial.flags.get("hardware", {})) for trial in trials))

    @property
    def energies(self) -> list[tuple[Row, dict[str, Any]]]:
        """What codecarbon measured, of each trial that has it."""
        measured = (
            (row, (trial.result.get("resources") or {}).get("carbon"))
            for row in self.rows
            for trial in row.trials.values()
        )
        return [(row, energy) for row, energy in measured if energy is not None]

    @property
    def estimates_energy(self) -> bool:
        """Whether no sensor read the energy of some trial."""
        return any(energy["is_estimate"] for _, energy in self.energies)

    @property
    def notes(self) -> list[str]:
        """What the reader of the table should know, a line each."""
        return [*_notes(self)]


def make(plan: ComparePlan) -> Comparison:
    """Read what has ended of a comparison's runs."""
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
        if energy["sensors"] not in sensors:  # the first of each kind stands for the others
            sensors.append(energy["sensors"])
            yield f"{row.arm.label}: {carbon.line(energy)}"


def to_json(comparison: Comparison, command: str) -> dict[str, Any]:
    """The comparison as `compare.json` has it."""
    plan = comparison.plan
    return {
        "command": command,
        "workload": plan.definition.name,
        "scale": plan.scale,
        "data": plan.data,
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
            {"technique": arm.technique, "batch_size": arm.batch_size, **dataclasses.asdict(each)}
            for arm, each in comparison.agreements
        ],
        "missing": list(comparison.missing),
        "notes": comparison.notes,
    }


def cells(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    """Return (columns, a list of values for each row): what tells it apart, and each measure's
    median, and its range as `_low` and `_high`; None is what is unknown, inf a target that was
    missed.
    """
    names = [f"{name}{end}" for name in comparison.rows[0].table for end in ("", "_low", "_high")]
    fixed = ["workload", "technique", "framework", "batch_size", "trials", "reached"]
    rows = []
    for row in comparison.rows:
        arm = row.arm
        values: list[Any] = [arm.workload, arm.technique, arm.framework, arm.batch_size]
        values += [len(row.trials), row.reached]
        for each in row.spreads.values():
            values += [None] * 3 if each is None else [each.median, each.low, each.high]
        rows.append(values)
    return fixed + names, rows


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write `cells`; empty is what is unknown."""
    columns, rows = cells(comparison)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)

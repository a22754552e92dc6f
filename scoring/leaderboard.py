"""The leaderboard of one pool, as plain data."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scoring import profiles
from scoring.pools import Entry, Pool, make_entries
from scoring.runs import Finding, Target
from scoring.time_to_target import REACHED, StudyResult, median_steps, median_time_s, study_results


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One entry on one workload; infinite times, steps and ratio where the target was missed."""

    studies: tuple[StudyResult, ...]
    median_time_s: float
    median_steps: float
    ratio: float

    @property
    def studies_reached(self) -> int:
        """In how many studies the target was reached."""
        return sum(result.outcome == REACHED for result in self.studies)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One entry: its place (equal scores share one), score and cells by workload."""

    rank: int
    entry: Entry
    score: float
    cells: Mapping[str, Cell]

    @property
    def workloads_reached(self) -> int:
        """On how many workloads the median time is finite."""
        return sum(math.isfinite(cell.ratio) for cell in self.cells.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Leaderboard:
    """One pool scored: best entry first. `targets` are those of the scored workloads, by name."""

    pool: Pool
    targets: Mapping[str, Target]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What was compared, e.g. 'mini-builtin, 2 workloads'."""
        count = len(self.targets)
        return f"{self.pool.name}, {count} workload{'' if count == 1 else 's'}"

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Ratios to the fastest, (S, W): rows and workloads in this leaderboard's order."""
        ratios = [[row.cells[workload].ratio for workload in self.targets] for row in self.rows]
        return np.array(ratios, np.float64).reshape(len(self.rows), len(self.targets))


def build_leaderboard(pool: Pool) -> tuple[Leaderboard, list[Finding]]:
    """Score a pool over every workload in it that has a target.

    The studies that count on a workload are all that any entry of the pool has there: an entry that
    lacks one has not reached its target in it.
    """
    entries = make_entries(pool.runs)
    targets: dict[str, Target] = {}
    findings: list[Finding] = []
    for run in sorted(pool.runs, key=lambda run: run.workload):
        if run.target is not None and run.target.validation is not None:
            targets[run.workload] = run.target
    for workload in sorted(set(pool.workloads) - set(targets)):
        example = next(run for run in pool.runs if run.workload == workload)
        findings.append(
            Finding(example.path.parent, f"{workload} has no target in {pool.name}: not scored")
        )
    studies = {
        name: sorted({run.study for run in pool.runs if run.workload == name}) for name in targets
    }
    results = [
        {name: _results(entry, name, studies[name]) for name in targets} for entry in entries
    ]
    for entry, of_entry in zip(entries, results, strict=True):
        findings += _contradictions(entry, of_entry)
    rows = _rank(entries, results) if targets else []
    return Leaderboard(pool, targets, tuple(rows)), findings


def _results(entry: Entry, workload: str, studies: Iterable[int]) -> tuple[StudyResult, ...]:
    return study_results([run for run in entry.runs if run.workload == workload], studies)


def _rank(
    entries: Sequence[Entry], results: Sequence[Mapping[str, tuple[StudyResult, ...]]]
) -> list[Row]:
    times_SW = np.array(
        [[median_time_s(studies) for studies in of.values()] for of in results], np.float64
    )
    ratios_SW = profiles.ratios_to_fastest(times_SW)
    scores = profiles.benchmark_score(ratios_SW).tolist()
    rows = []
    for index, (entry, of_entry) in enumerate(zip(entries, results, strict=True)):
        cells = {
            workload: Cell(
                studies,
                median_time_s(studies),
                median_steps(studies),
                float(ratios_SW[index, column]),
            )
            for column, (workload, studies) in enumerate(of_entry.items())
        }
        rank = 1 + sum(score > scores[index] for score in scores)
        rows.append(Row(rank, entry, scores[index], cells))
    return sorted(rows, key=lambda row: (row.rank, row.entry.label))


def _contradictions(entry: Entry, results: Mapping[str, tuple[StudyResult, ...]]) -> list[Finding]:
    """Trials that say they reached the target in a study whose rows do not show it."""
    missed = {
        (name, study.study)
        for name, studies in results.items()
        for study in studies
        if study.outcome != REACHED
    }
    return [
        Finding(
            run.path,
            "result.json says 'reached', eval_measurements.csv does not: counted as not reached",
        )
        for run in entry.runs
        if run.status == REACHED and (run.workload, run.study) in missed
    ]

"""Leaderboards as tables for the screen, as JSON and as CSV files."""

import csv
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring import profiles
from scoring.leaderboard import Cell, Leaderboard
from scoring.runs import Finding
from scoring.time_to_target import StudyResult

if TYPE_CHECKING:
    from rich.console import Group

TABLE_TAUS = (1.0, 1.5, 2.0, profiles.TAU_MAX)


def to_table(board: Leaderboard) -> "Group":
    """Two rich tables: the ranking, and the time to target on every workload."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text  # names are not markup

    ranking = Table(title=Text(board.title), title_justify="left")
    for name in (
        "#",
        "submission",
        "score",
        "reached",
        *(f"within {tau:g}x" for tau in TABLE_TAUS),
    ):
        ranking.add_column(
            name, justify="left" if name == "submission" else "right", overflow="fold"
        )
    shares_ST = profiles.performance_profile(board.ratios, np.array(TABLE_TAUS))
    for row, shares in zip(board.rows, shares_ST, strict=True):
        reached = f"{row.workloads_reached}/{len(board.targets)}"
        ranking.add_row(
            str(row.rank),
            Text(row.entry.label),
            f"{row.score:.4f}",
            reached,
            *(f"{s:.0%}" for s in shares),
        )
    detail = Table(title="Time to target (median over studies)", title_justify="left")
    for name in ("workload", "submission", "time s", "steps", "studies", "ratio"):
        detail.add_column(
            name, justify="left" if name in ("workload", "submission") else "right", overflow="fold"
        )
    for workload in board.targets:
        for row in sorted(board.rows, key=lambda row: row.cells[workload].ratio):
            cell = row.cells[workload]
            numbers = (
                f"{cell.median_time_s:,.2f}",
                f"{cell.median_steps:,.0f}",
                f"{cell.ratio:.3f}",
            )
            time_s, steps, ratio = numbers if math.isfinite(cell.ratio) else ("-", "-", "-")
            studies = f"{cell.studies_reached}/{len(cell.studies)}"
            detail.add_row(Text(workload), Text(row.entry.label), time_s, steps, studies, ratio)
        detail.add_section()
    return Group(ranking, detail)


def to_json(boards: Sequence[Leaderboard], findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything as JSON values; null where a target was not reached."""
    return {
        "pools": [_board_json(board) for board in boards],
        "findings": [
            {"path": str(finding.path), "message": finding.message} for finding in findings
        ],
    }


def _board_json(board: Leaderboard) -> dict[str, Any]:
    taus = profiles.profile_taus(board.ratios)
    shares_ST = profiles.performance_profile(board.ratios, taus)
    return {
        "pool": board.pool.name,
        "settings": dict(board.pool.settings),
        "workloads": {name: dataclasses.asdict(target) for name, target in board.targets.items()},
        "submissions": [
            {
                "submission": row.entry.label,
                "experiment": row.entry.experiment,
                "framework": row.entry.framework,
                "rank": row.rank,
                "score": row.score,
                "workloads": {name: _cell_json(cell) for name, cell in row.cells.items()},
                "profile": {"tau": taus.tolist(), "share": shares.tolist()},
            }
            for row, shares in zip(board.rows, shares_ST, strict=True)
        ],
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "median_time_s": _finite(cell.median_time_s),
        "median_steps": _steps(cell.median_steps),
        "ratio": _finite(cell.ratio),
        "studies_reached": cell.studies_reached,
        "studies": [_study_values(result) for result in cell.studies],
    }


def _study_values(result: StudyResult) -> dict[str, Any]:
    crossing = result.crossing
    return {
        "study": result.study,
        "outcome": result.outcome,
        "time_s": _finite(crossing.time_s),
        "steps": _steps(crossing.step),
        "trial": result.trial,
        "evaluation": crossing.evaluation,
        "last_miss_time_s": crossing.last_miss and _finite(crossing.last_miss.time_s),
        "last_miss_steps": crossing.last_miss and _steps(crossing.last_miss.step),
    }


def _finite(value: float) -> float | None:
    """The value; None (JSON null, an empty CSV field) where it is not finite."""
    return value if math.isfinite(value) else None


def _steps(value: float) -> float | int | None:
    """Whole steps as int (a median of two may lie between); None where not finite."""
    return int(value) if value.is_integer() else _finite(value)


def write_csv(boards: Sequence[Leaderboard], out: Path) -> list[Path]:
    """Write scores.csv, time_to_target.csv and profile.csv over all pools; return their paths."""
    scores, times, profile = [], [], []
    for board in boards:
        name = board.pool.name
        taus = profiles.profile_taus(board.ratios)
        shares_ST = profiles.performance_profile(board.ratios, taus)
        for row, shares in zip(board.rows, shares_ST, strict=True):
            label = row.entry.label
            of_entry = [
                row.entry.experiment,
                row.entry.framework,
                row.workloads_reached,
                len(board.targets),
            ]
            scores.append([label, row.score, row.rank, name, *of_entry])
            profile += [
                [label, tau, share, name]
                for tau, share in zip(taus.tolist(), shares.tolist(), strict=True)
            ]
            times += [
                [label, workload, *_study_values(result).values(), name]
                for workload, cell in row.cells.items()
                for result in cell.studies
            ]
    score_header = "submission score rank pool experiment framework workloads_reached workloads"
    times_header = (
        "submission workload study outcome time_s steps trial evaluation"
        " last_miss_time_s last_miss_steps pool"
    )
    return [
        _write(out / "scores.csv", score_header, scores),
        _write(out / "time_to_target.csv", times_header, times),
        _write(out / "profile.csv", "submission tau share_of_workloads pool", profile),
    ]


def _write(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split())
        writer.writerows(rows)
    return path

"""Leaderboards as JSON and as CSV files; docs/scoring.md describes the columns.

A value that does not exist (a target not reached, an interval that is not estimable) is null in
JSON and empty in CSV.
"""

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.analysis import Analysis, Summary
from scoring.analysis.costs import Cost
from scoring.analysis.fragility import Fragility
from scoring.analysis.leaderboard import Cell, Leaderboard, Row
from scoring.analysis.restated import Restated, RestatedTime
from scoring.analysis.robustness import AxisResult, VariantResult
from scoring.analysis.statistics import Bootstrap
from scoring.analysis.step_times import StepTime
from scoring.analysis.workload_agreement import Agreement, Subset, WorkloadAgreement, WorkloadOrder
from scoring.reading.trials import Finding, changes_told
from scoring.rules import profiles
from scoring.rules.time_to_target import StudyResult

SCORES = (
    "submission score score_low score_high rank rank_low rank_high p_first steps_score"
    " base_score workloads_reached workloads speedup speedup_low speedup_high speedup_reference"
    " speedup_note rules pool experiment framework flagged_trials not_estimable contended_trials"
    " lowest_score highest_score best_place worst_place neutral_score"
)
TIMES = (
    "submission workload study outcome time_s steps trial evaluation last_miss_time_s"
    " last_miss_steps hit_time_s hit_steps time_without_first_step_s credit pool"
)
PROFILE = "submission tau share_of_workloads pool"
ROBUSTNESS = (
    "submission variant base changes outcome base_time_s time_s slowdown base_steps steps"
    " steps_slowdown pool"
)
STEP_TIMES = (
    "submission workload framework time_s steps seconds_a_step framework_seconds_a_step own_factor"
    " neutral_time_s pool"
)
RESTATED = (
    "submission workload framework time_s ratio ratio_low ratio_high estimated_time_s"
    " estimated_time_low_s estimated_time_high_s budget_s estimated_budget_s class class_id"
    " measured_in pool"
)
COSTS = "submission workload trials ended_early unknown core_hours full_core_hours pool"
WORKLOAD_AGREEMENT = (
    "workload tau_others tau_others_low tau_others_high tau_suite tau_suite_low tau_suite_high"
    " reached submissions fastest_s slowest_s spread separates_little core_hours pool"
)
WORKLOAD_SUBSETS = (
    "workloads tau_suite tau_suite_low tau_suite_high tau_others tau_others_low tau_others_high"
    " core_hours stays_best is_best is_cheap pool"
)
ROBUSTNESS_AXES = "submission axis variants bases_reached reached slowdown steps_slowdown pool"


def to_json(analyses: Sequence[Analysis], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return all leaderboards and findings as values that can be written as JSON.

    Leaderboards on which no workload has a target are left out.
    """
    return {
        "pools": [_pool_json(analysis) for analysis in analyses if analysis.board.targets],
        "findings": findings_json(findings),
    }


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON values, in the given order."""
    return [
        {"path": str(finding.path), "message": finding.message, "damage": finding.damage}
        for finding in findings
    ]


def _pool_json(analysis: Analysis) -> dict[str, Any]:
    board = analysis.board
    taus = profiles.profile_taus(board.ratios)
    shares_ST = profiles.performance_profile(board.ratios, taus)
    return {
        "pool": board.pool.name,
        "benchmark": board.benchmark.name,
        "rules": board.rules.name,
        "settings": dict(board.pool.settings),
        "workloads": {name: dataclasses.asdict(target) for name, target in board.targets.items()},
        "held_out": dict(board.benchmark.variant_of),
        "submissions": [
            score_values(analysis, index)
            | {
                "workloads": {name: _cell_json(cell) for name, cell in row.cells.items()},
                "profile": {"tau": taus.tolist(), "share": shares.tolist()},
            }
            for index, (row, shares) in enumerate(zip(board.rows, shares_ST, strict=True))
        ],
        "intervals": {over: _interval_json(board, one) for over, one in analysis.resampled.items()},
        "sensitivity": _sensitivity_json(analysis),
        "robustness": {
            "variants": [
                _variant_values(each) | {"changes": dict(each.changes)}
                for each in analysis.robustness.variants
            ],
            "axes": [_axis_values(each) for each in analysis.robustness.axes],
            "bases_without_a_variant": list(analysis.robustness.unguarded),
        },
        "step_times": [_step_values(each) for each in analysis.steps.cells],
        "frameworks": [
            {
                "workload": gap.workload,
                "seconds_a_step": dict(gap.step_s),
                "ratio": finite(gap.ratio),
                "algorithms_apart": finite(gap.apart),
            }
            for gap in analysis.steps.gaps
        ],
        "fragility": _fragility_json(analysis.fragility),
        "costs": [_cost_values(each) for each in analysis.costs],
        "workload_agreement": _agreement_json(analysis.agreement),
        **({} if analysis.restated is None else {"restated": _restated_json(analysis.restated)}),
    }


def _agreement_json(agreement: WorkloadAgreement | None) -> dict[str, Any] | None:
    if agreement is None:
        return None
    return {
        "workloads": [_order_values(each) for each in agreement.orders],
        "subsets": [_subset_values(each, agreement) for each in agreement.subsets],
    }


def _cost_values(one: Cost) -> dict[str, Any]:
    """Return the columns of costs.csv without the pool."""
    values = {"submission" if name == "label" else name: value for name, value in vars(one).items()}
    return {name: finite(value) for name, value in values.items()}


def _tau_values(name: str, one: Agreement) -> dict[str, Any]:
    values = {name: one.tau, f"{name}_low": one.low, f"{name}_high": one.high}
    return {key: finite(value) for key, value in values.items()}


def _order_values(one: WorkloadOrder) -> dict[str, Any]:
    """Return the columns of workload_agreement.csv without the pool."""
    return {
        "workload": one.workload,
        **_tau_values("tau_others", one.with_others),
        **_tau_values("tau_suite", one.with_suite),
        "reached": one.reached,
        "submissions": one.submissions,
        "fastest_s": finite(one.fastest_s),
        "slowest_s": finite(one.slowest_s),
        "spread": finite(one.spread),
        "separates_little": one.separates,
        "core_hours": finite(one.core_hours),
    }


def _subset_values(one: Subset, agreement: WorkloadAgreement) -> dict[str, Any]:
    """Return the columns of workload_subsets.csv without the pool."""
    return {
        "workloads": " ".join(one.workloads),
        **_tau_values("tau_suite", one.with_suite),
        **_tau_values("tau_others", one.with_others),
        "core_hours": finite(one.core_hours),
        "stays_best": finite(one.stays_best),
        "is_best": one is agreement.best,
        "is_cheap": one is agreement.cheap,
    }


def _restated_json(restated: Restated) -> dict[str, Any]:
    return {
        "is_estimate": True,
        "class": {"name": restated.name, "id": restated.id},
        "measured_in": restated.measured_in,
        "times": [_restated_values(each) for each in restated.times],
    }


def _restated_values(one: RestatedTime) -> dict[str, Any]:
    """Return the columns of restated.csv without those of the class and the pool."""
    return {
        "submission": one.label,
        "workload": one.workload,
        "framework": one.framework,
        "time_s": finite(one.time_s),
        "ratio": one.ratio,
        "ratio_low": one.low,
        "ratio_high": one.high,
        "estimated_time_s": finite(one.estimate_s),
        "estimated_time_low_s": finite(one.low_s),
        "estimated_time_high_s": finite(one.high_s),
        "budget_s": one.budget_s,
        "estimated_budget_s": one.budget_there_s,
    }


def _fragility_json(fragility: Fragility) -> dict[str, Any]:
    change = fragility.time
    return {
        "targets_easier_by": finite(fragility.easier),
        "first_if_easier": fragility.easier_first,
        "targets_harder_by": finite(fragility.harder),
        "first_if_harder": fragility.harder_first,
        "unknown_trials_if_harder": fragility.unknown,
        "smallest_change_of_a_time": change
        and {**dataclasses.asdict(change), "overtaken": list(change.overtaken)},
    }


def _step_values(one: StepTime) -> dict[str, Any]:
    """Return the columns of step_times.csv without the pool."""
    return {
        "submission": one.label,
        "workload": one.workload,
        "framework": one.framework,
        "time_s": finite(one.time_s),
        "steps": whole(one.steps),
        "seconds_a_step": one.step_s,
        "framework_seconds_a_step": one.framework_s,
        "own_factor": one.own,
        "neutral_time_s": finite(one.neutral_time_s),
    }


def _variant_values(one: VariantResult) -> dict[str, Any]:
    """Return the columns of robustness.csv without the pool."""
    return {
        "submission": one.label,
        "variant": one.variant,
        "base": one.base,
        "changes": changes_told(one.changes),
        "outcome": one.outcome,
        "base_time_s": finite(one.base_time_s),
        "time_s": finite(one.time_s),
        "slowdown": finite(one.slowdown),
        "base_steps": whole(one.base_steps),
        "steps": whole(one.steps),
        "steps_slowdown": finite(one.steps_slowdown),
    }


def _axis_values(one: AxisResult) -> dict[str, Any]:
    """Return the columns of robustness_axes.csv without the pool."""
    values = {"submission" if name == "label" else name: value for name, value in vars(one).items()}
    return {name: finite(value) for name, value in values.items()}


def score_values(summary: Summary, index: int) -> dict[str, Any]:
    """Return the values of one row of scores.csv, by column.

    Args:
        summary: The leaderboard and its statistics.
        index: The row of the entry, from 0 for the best.
    """
    board, studies, speedups = summary.board, summary.studies, summary.speedups
    row: Row = board.rows[index]
    score_low, score_high = studies.score_interval[index].tolist()
    rank_low, rank_high = studies.rank_interval[index].tolist()
    speedup_low, speedup_high = speedups.interval[index].tolist()
    values = {
        "submission": row.entry.label,
        "score": row.score,
        "score_low": score_low,
        "score_high": score_high,
        "rank": row.rank,
        "rank_low": whole(rank_low),
        "rank_high": whole(rank_high),
        "p_first": float(studies.p_first[index]),
        "steps_score": row.steps_score,
        "base_score": row.base_score,
        "workloads_reached": row.workloads_reached,
        "workloads": len(board.targets),
        "speedup": float(speedups.mean_S[index]),
        "speedup_low": speedup_low,
        "speedup_high": speedup_high,
        "speedup_reference": speedups.reference,
        "speedup_note": speedups.note(index),
        "rules": board.rules.name,
        "pool": board.pool.name,
        "experiment": row.entry.experiment,
        "framework": row.entry.framework,
        "flagged_trials": row.entry.flagged_trials,
        "not_estimable": studies.not_estimable,
        "contended_trials": row.entry.contended_trials,
    }
    bounds = summary.bounds
    values |= {
        "lowest_score": None if bounds is None else bounds.lowest[index],
        "highest_score": None if bounds is None else bounds.highest[index],
        "best_place": None if bounds is None else bounds.best_place[index],
        "worst_place": None if bounds is None else bounds.worst_place[index],
        "neutral_score": summary.steps.neutral_scores[index] if summary.steps.gaps else None,
    }
    return {name: finite(value) for name, value in values.items()}


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "median_time_s": finite(cell.median_time_s),
        "median_steps": whole(cell.median_steps),
        "ratio": finite(cell.ratio),
        "credit": cell.credit,
        "studies_reached": cell.studies_reached,
        "studies": [_study_values(result) for result in cell.studies],
    }


def _study_values(result: StudyResult) -> dict[str, Any]:
    crossing = result.crossing
    return {
        "study": result.study,
        "outcome": result.outcome,
        "time_s": finite(crossing.time_s),
        "steps": whole(crossing.step),
        "trial": result.trial,
        "evaluation": crossing.evaluation,
        "last_miss_time_s": crossing.last_miss and finite(crossing.last_miss.time_s),
        "last_miss_steps": crossing.last_miss and whole(crossing.last_miss.step),
        "hit_time_s": finite(crossing.hit_time_s),
        "hit_steps": whole(crossing.hit_step),
        "time_without_first_step_s": finite(result.time_without_first_step_s),
    }


def _interval_json(board: Leaderboard, one: Bootstrap) -> dict[str, Any]:
    return {
        "method": one.method,
        "not_estimable": one.not_estimable,
        "score": _by_label(board, one.score_interval),
        "rank": _by_label(board, one.rank_interval),
        "p_first": _by_label(board, one.p_first),
        "p_beats": {
            label: _by_label(board, row)
            for label, row in zip(board.labels, one.p_beats, strict=True)
        },
    }


def _sensitivity_json(analysis: Analysis) -> dict[str, Any]:
    board = analysis.board
    return {
        "without_workload": {
            name: _by_label(board, scores) for name, scores in analysis.without_workload.items()
        },
        "without_submission": {
            label: _by_label(board, scores)
            for label, scores in zip(board.labels, analysis.without_submission_SS, strict=True)
        },
        "studies_by": {
            name: _by_label(board, scores) for name, scores in analysis.aggregations.items()
        },
        "trials": [_by_label(board, scores) for scores in analysis.trials_KS],
        "target_changes": [
            {"change": change, "unknown_trials": unknown, "scores": _by_label(board, scores)}
            for change, unknown, scores in zip(
                analysis.targets.changes,
                analysis.targets.unknown,
                analysis.targets.scores_CS,
                strict=True,
            )
        ],
    }


def _by_label(board: Leaderboard, values: NDArray[np.float64]) -> dict[str, Any]:
    return {
        label: [finite(end) for end in value] if isinstance(value, list) else finite(value)
        for label, value in zip(board.labels, values.tolist(), strict=True)
    }


def finite(value: Any) -> Any:
    """Return the value, or None if it is a float that is NaN or infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(value: float) -> float | int | None:
    """Return a number as an int if it is whole, as a float if not, and as None if it is not finite.

    Steps and ranks are whole, but the median of two of them may lie between.
    """
    return int(value) if value.is_integer() else finite(value)


def write_files(analyses: Sequence[Analysis], findings: Sequence[Finding], out: Path) -> list[Path]:
    """Write the CSV files and findings.json into the folder `out`, and return their paths."""
    headers = {
        "scores": SCORES,
        "time_to_target": TIMES,
        "profile": PROFILE,
        "robustness": ROBUSTNESS,
        "robustness_axes": ROBUSTNESS_AXES,
        "step_times": STEP_TIMES,
        "costs": COSTS,
        "workload_agreement": WORKLOAD_AGREEMENT,
        "workload_subsets": WORKLOAD_SUBSETS,
    }
    if any(analysis.restated is not None for analysis in analyses):
        headers["restated"] = RESTATED
    rows: dict[str, list[Sequence[Any]]] = {name: [] for name in headers}
    for analysis in analyses:
        if not analysis.board.targets:
            continue  # The pool has training curves, but no scores.
        for name, of_pool in _rows(analysis).items():
            rows[name] += of_pool
    listed = out / "findings.json"
    text = json.dumps(findings_json(findings), indent=2)
    listed.write_text(f"{text}\n", encoding="utf-8")
    written = [_write(out / f"{name}.csv", header, rows[name]) for name, header in headers.items()]
    return [*written, listed]


def _rows(analysis: Analysis) -> dict[str, list[Sequence[Any]]]:
    """Return the rows of one pool, by the name of the CSV file that they belong to."""
    board, name = analysis.board, analysis.board.pool.name
    taus = profiles.profile_taus(board.ratios).tolist()
    shares_ST = profiles.performance_profile(board.ratios, np.array(taus)).tolist()
    robustness, agreement = analysis.robustness, analysis.agreement
    orders, subsets = (agreement.orders, agreement.subsets) if agreement else ((), ())
    return {
        "scores": [
            list(score_values(analysis, index).values()) for index in range(len(board.rows))
        ],
        "time_to_target": time_rows(board),
        "profile": [
            [label, tau, share, name]
            for label, shares in zip(board.labels, shares_ST, strict=True)
            for tau, share in zip(taus, shares, strict=True)
        ],
        "robustness": [[*_variant_values(each).values(), name] for each in robustness.variants],
        "robustness_axes": [[*_axis_values(each).values(), name] for each in robustness.axes],
        "step_times": [[*_step_values(each).values(), name] for each in analysis.steps.cells],
        "costs": [[*_cost_values(each).values(), name] for each in analysis.costs],
        "workload_agreement": [[*_order_values(each).values(), name] for each in orders],
        "workload_subsets": [
            [*_subset_values(each, agreement).values(), name] for each in subsets if agreement
        ],
        **(
            {}
            if analysis.restated is None
            else {"restated": restated_rows(analysis.restated, name)}
        ),
    }


def restated_rows(restated: Restated, pool: str) -> list[Sequence[Any]]:
    """Return the rows of restated.csv of one pool; the columns are `RESTATED`."""
    ends = [restated.name, restated.id, restated.measured_in, pool]
    return [[*_restated_values(each).values(), *ends] for each in restated.times]


def time_rows(board: Leaderboard) -> list[Sequence[Any]]:
    """Return the rows of time_to_target.csv: one per submission, workload and study.

    The columns are `TIMES`.
    """
    return [
        [row.entry.label, workload, *_study_values(result).values(), cell.credit, board.pool.name]
        for row in board.rows
        for workload, cell in row.cells.items()
        for result in cell.studies
    ]


def _write(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split())
        writer.writerows(rows)
    return path

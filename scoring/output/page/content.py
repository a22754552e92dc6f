"""The contents of the page about one leaderboard, as finished texts for the template."""

import math
from collections.abc import Sequence
from typing import Any

from scoring.analysis.analysis import Analysis
from scoring.analysis.leaderboard import Cell, Leaderboard, Row
from scoring.output.page import charts, composition, texts, uncertainty, workload_tables
from scoring.output.page.machines import machines
from scoring.output.page.trials import trials
from scoring.output.page.weaknesses import weaknesses
from scoring.output.plot_profile import studies_told
from scoring.output.tables import between, bounds_told
from scoring.reading.trials import Finding, TrialRun
from scoring.rules.rules import CREDITED
from scoring.rules.time_to_target import MISSING, REACHED, StudyResult

OUTCOMES = {MISSING: "no logs", "budget": "over the budget"}
ARROW = "\N{RIGHTWARDS ARROW}"


def pool(analysis: Analysis, number: int) -> dict[str, Any]:
    """Return everything that the template shows of one pool.

    Args:
        analysis: The leaderboard and its statistics.
        number: A number that makes the pool's anchors differ from those of other pools.
    """
    board, hardware = analysis.board, machines(analysis.board)
    rows = [_row(analysis, index) for index in range(len(board.rows))]
    return {
        "id": f"pool-{number}",
        "title": board.title,
        "benchmark": board.benchmark.name,
        "rules": board.rules.name,
        "studies": studies_told(analysis),
        "interpolates": board.rules.interpolates,
        "labels": board.labels,
        "not_estimable": analysis.studies.not_estimable,
        "method": analysis.studies.method,
        "reference": analysis.speedups.reference,
        "held_out": len(board.benchmark.variant_of),
        "ignored": texts.plural(len(board.ignored), "held-out variant") if board.ignored else "",
        "robustness": _robustness(analysis) if analysis.robustness.variants else None,
        "rows": rows,
        "bounds": "" if analysis.bounds is None else bounds_told(analysis.bounds),
        "weaknesses": "; ".join(weaknesses(analysis, hardware)),
        "has_intervals": not analysis.studies.not_estimable,
        "has_speedups": any(row["speedup"] != texts.NONE for row in rows),
        "profile": charts.profile_chart(analysis),
        "curves": charts.curve_groups(board),
        "speedups": uncertainty.speedup_table(analysis),
        "workloads": [_workload(board, name) for name in board.layout.workloads],
        "uncertainty": uncertainty.tables(analysis),
        "agreement": workload_tables.agreement_tables(analysis),
        "first": workload_tables.first_told(analysis),
        "costs": workload_tables.cost_table(analysis),
        "composition": composition.tables(analysis),
        "fragility": composition.fragility_told(analysis),
        "sensitivity": uncertainty.sensitivity_tables(analysis),
        "machines": hardware,
    }


def _row(analysis: Analysis, index: int) -> dict[str, Any]:
    board, of_studies = analysis.board, analysis.studies
    row = board.rows[index]
    ends = of_studies.score_interval[index].tolist()
    speedups = analysis.speedups
    return {
        "rank": row.rank,
        "label": row.entry.label,
        "flagged": _flagged(row),
        "contended": _contended(row),
        "score": texts.score(row.score),
        "interval": texts.interval(ends),
        "bar": charts.interval_bar(row.score, ends, index),
        "ranks": texts.rank_interval(of_studies.rank_interval[index].tolist()),
        "p_first": texts.probability(float(of_studies.p_first[index])),
        "reached": f"{row.workloads_reached}/{len(board.targets)}",
        "speedup": texts.factor(float(speedups.mean_S[index])),
        "has_speedup": not math.isnan(float(speedups.mean_S[index])),
        "is_reference": row.entry.label == speedups.reference,
        "speedup_interval": texts.interval(speedups.interval[index].tolist(), 2),
        "speedup_note": speedups.note(index),
        "steps_score": texts.score(row.steps_score),
        "base_score": texts.score(row.base_score),
        **_bounds(analysis, index),
    }


def _bounds(analysis: Analysis, index: int) -> dict[str, str]:
    """Return the texts of what the score and place of an entry can still become."""
    bounds = analysis.bounds
    if bounds is None:
        return {"can_end_in": "", "places": ""}
    return {
        "can_end_in": between((bounds.lowest[index], bounds.highest[index]), ".4f"),
        "places": between((bounds.best_place[index], bounds.worst_place[index]), ".0f"),
    }


def _robustness(analysis: Analysis) -> dict[str, Any]:
    """Return the table of axes, and each variant with the times of each submission."""
    robustness, places = analysis.robustness, {x: n for n, x in enumerate(analysis.board.labels)}
    return {
        "axes": uncertainty.axis_table(analysis),
        "variants": [
            {
                "name": name,
                "what": texts.foreign(of_variant[0].what),
                "entries": [
                    {
                        "place": places[one.label],
                        "label": one.label,
                        "base": texts.count(one.base_time_s),
                        "time": texts.count(one.time_s),
                        "slowdown": texts.slowdown(one.slowdown),
                        "steps_slowdown": texts.slowdown(one.steps_slowdown),
                        "outcome": one.outcome,
                        "reached": one.outcome == REACHED,
                    }
                    for one in of_variant
                ],
            }
            for name, of_variant in robustness.by_variant.items()
        ],
    }


def _flagged(row: Row) -> dict[str, Any] | None:
    """Return the texts behind the mark of a flagged submission; None if it is not flagged."""
    entry = row.entry
    if not entry.flags:
        return None
    trials = texts.plural(len(entry.runs), "trial")
    return {
        "told": f"flagged in {entry.flagged_trials} of {trials}",
        "what": [texts.foreign(text) for text in entry.flags],
    }


def _contended(row: Row) -> str:
    """Return the mark of a submission that others' work delayed; empty if none did."""
    entry = row.entry
    if not entry.contended_trials:
        return ""
    return f"contended in {entry.contended_trials} of {texts.plural(len(entry.runs), 'trial')}"


def _workload(board: Leaderboard, name: str) -> dict[str, Any]:
    """Return the details of one workload: target and budget, every study, and the chosen trials."""
    facts = board.benchmark.workloads[name]
    budgets_s = [run.budget_s for run in board.pool.runs if run.workload == name]
    budget_s = max((limit for limit in budgets_s if limit is not None), default=facts.budget_s)
    cells = [(index, row, row.cells[name]) for index, row in enumerate(board.rows)]
    reached = sum(math.isfinite(cell.median_time_s) for _, _, cell in cells)
    entries = [_entry(index, row, cell) for index, row, cell in cells]
    return {
        "name": name,
        "variant_of": board.benchmark.variant_of.get(name),
        "metric": facts.target.metric,
        "goal": texts.goal(facts.target),
        "budget": None if budget_s is None else texts.count(budget_s),
        "reached": f"{reached} of {texts.plural(len(cells), 'submission')}",
        "entries": entries,
        "known": _known(entries),
        "trials": [
            {"label": row.entry.label, "place": index, **table}
            for index, row, _ in cells
            if (table := trials(board, row, name))
        ],
        "chosen": [curve for row in board.rows if (curve := _chosen(row, name))],
    }


def _known(entries: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Return which columns of the table of studies have a value for any submission."""
    own = ("median", "median_steps", "ratio")
    of_studies = ("time", "without", "steps", "trial", "bracket")
    studies = [study for entry in entries for study in entry["studies"]]
    return {name: any(entry[name] != texts.NONE for entry in entries) for name in own} | {
        name: any(study[name] != texts.NONE for study in studies) for name in of_studies
    }


def _entry(index: int, row: Row, cell: Cell) -> dict[str, Any]:
    return {
        "place": index,
        "label": row.entry.label,
        "median": texts.count(cell.median_time_s),
        "median_steps": texts.count(cell.median_steps),
        "ratio": texts.factor(cell.ratio),
        "credit": cell.credit or "held-out variant",
        "credited": cell.credit == CREDITED,
        "studies": [_study(result) for result in cell.studies],
    }


def _study(result: StudyResult) -> dict[str, Any]:
    """Return the texts of one study.

    'bracket' names the times of the two evaluations between which the target was met, or the last
    evaluation.
    """
    before = result.crossing.last_miss
    reached = result.outcome == REACHED
    bracket = texts.NONE
    if before is not None:
        bracket = texts.count(before.time_s)
        after = texts.count(result.crossing.hit_time_s)
        bracket = f"{bracket} {ARROW} {after}" if reached else f"{bracket} {ARROW} never"
    return {
        "study": result.study,
        "outcome": OUTCOMES.get(result.outcome, result.outcome),
        "reached": reached,
        "time": texts.count(result.crossing.time_s),
        "without": texts.count(result.time_without_first_step_s),
        "steps": texts.count(result.crossing.step),
        "trial": texts.NONE if result.trial is None else result.trial,
        "bracket": bracket,
    }


def _chosen(row: Row, workload: str) -> dict[str, Any] | None:
    """Return a table of the hyperparameters of the trials that a submission's studies rest on."""
    trials = {(result.study, result.trial) for result in row.cells[workload].studies}
    runs = [
        run
        for run in row.entry.runs
        if run.workload == workload and (run.study, run.trial) in trials
    ]
    if not runs:
        return None
    runs.sort(key=lambda run: run.study)
    names = dict.fromkeys(name for run in runs for name in run.hyperparameters)
    return {
        "label": row.entry.label,
        "trials": [f"study {run.study}, trial {run.trial}" for run in runs],
        "rows": [{"name": name, "of": [_value(run, name) for run in runs]} for name in names],
    }


def _value(run: TrialRun, name: str) -> str:
    known = run.hyperparameters
    return texts.foreign(known[name]) if name in known else texts.NONE


def findings(all_findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings grouped by message: damage first, then remarks."""
    kinds = []
    for damage, title in ((True, "Damage"), (False, "Remarks")):
        groups: dict[str, list[str]] = {}
        for finding in all_findings:
            if finding.damage == damage:
                groups.setdefault(finding.message, []).append(str(finding.path))
        total = sum(map(len, groups.values()))
        summary = f"{texts.plural(total, 'finding')} of {texts.plural(len(groups), 'kind')}"
        listed = [{"message": message, "paths": paths} for message, paths in groups.items()]
        kinds.append({"title": title, "told": summary, "groups": listed})
    return {"count": len(all_findings), "kinds": kinds}

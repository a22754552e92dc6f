"""The tables of the page that say how far to trust the scores.

A table is a dict: `title`, `note`, `corner`, `head` (labels of columns) and `rows` of `name` and
`cells`. A cell is a dict of `text` and, where it is shaded, `side` ('over' or 'under' one half) and
`tint` (how far, from 0 to 50); a cell with `moved` marks a rank that changed.

Legend: S submissions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.analysis import Analysis
from scoring.analysis.robustness import ALL_AXES, AxisResult
from scoring.output.page import texts
from scoring.rules import rules as scoring_rules

Floats = NDArray[np.float64]
Cell = dict[str, Any]
Table = dict[str, Any]


def tables(analysis: Analysis) -> list[Table]:
    """Return the tables of uncertainty: pairs of submissions, intervals, leave-one-out scores."""
    return [
        pairwise_table(analysis),
        interval_table(analysis),
        *_without_workload(analysis),
        *_without_submission(analysis),
    ]


def sensitivity_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of scores at other targets, numbers of trials and aggregations."""
    return [target_table(analysis), trials_table(analysis), aggregation_table(analysis)]


def pairwise_table(analysis: Analysis) -> Table:
    """Return the table of probabilities that the row's submission scores above the column's."""
    labels, studies = analysis.board.labels, analysis.studies
    rows = []
    for index, (label, chances) in enumerate(zip(labels, studies.p_beats.tolist(), strict=True)):
        cells = [
            {"text": ""} if other == index else _shaded(texts.probability(p), p)
            for other, p in enumerate(chances)
        ]
        rows.append({"name": label, "cells": cells})
    note = (
        "The share of resampled competitions (over studies) in which the submission of the row "
        "scores above that of the column. Equal scores count for neither."
    )
    if studies.not_estimable:
        note += f" Not estimable: {studies.not_estimable}."
    return make_table("Who beats whom", note, "row beats column", labels, rows)


def interval_table(analysis: Analysis) -> Table:
    """Return the table of intervals of score and rank over studies, workloads and both."""
    head, columns, reasons = [], [], []
    for over, resampled in analysis.resampled.items():
        head += [f"score, over {over}", f"rank, over {over}"]
        columns += [
            [texts.interval(ends) or texts.NONE for ends in resampled.score_interval.tolist()],
            [texts.rank_interval(ends) for ends in resampled.rank_interval.tolist()],
        ]
        if resampled.not_estimable:
            reasons.append(f"over {over}, not estimable: {resampled.not_estimable}")
    rows = [
        {"name": label, "cells": [{"text": column[index]} for column in columns]}
        for index, label in enumerate(analysis.board.labels)
    ]
    note = (
        "95 % intervals. Over studies: the same workloads, run again. Over workloads: other "
        "workloads of the same kind, with the studies as they are. Over both: new studies on "
        "other workloads."
    )
    note += "".join(f" {reason[0].upper()}{reason[1:]}." for reason in reasons)
    return make_table("Intervals by what varies", note, "submission", head, rows)


def _without_workload(analysis: Analysis) -> list[Table]:
    if not analysis.without_workload:
        return []
    rows = _against_all(analysis, analysis.without_workload)
    note = (
        "Scores when one base workload, with its held-out variant, does not count. A dot marks "
        "a place that differs from the place among all workloads."
    )
    return [make_table("Leave one workload out", note, "without", analysis.board.labels, rows)]


def _without_submission(analysis: Analysis) -> list[Table]:
    labels = analysis.board.labels
    # With two submissions, the remaining one would be alone and have the fastest time everywhere.
    if len(labels) < 3:
        return []
    rows = _against_all(
        analysis, dict(zip(labels, analysis.without_submission_SS, strict=True)), first=False
    )
    note = (
        "Scores are relative to the fastest submission, so they move when one leaves. A dot marks "
        "a place that differs from the place among the same submissions before."
    )
    return [make_table("Leave one submission out", note, "without", labels, rows)]


def target_table(analysis: Analysis) -> Table:
    """Return the table of scores at easier and harder targets, with counts of undecided trials."""
    sweep, labels = analysis.targets, analysis.board.labels
    rows = []
    for change, scores, unknown in zip(sweep.changes, sweep.scores_CS, sweep.unknown, strict=True):
        name = f"{texts.percent(change)} {'easier' if change < 0 else 'harder'}"
        cells = [_score(value) for value in scores.tolist()]
        rows.append({"name": name if change else "as it is", "cells": [*cells, {"text": unknown}]})
    note = (
        "Scores from the logged curves when every target moves by a share of its value. A trial "
        "that stopped at its own target, or early, cannot show whether it would have met a harder "
        "one: such trials are counted as unknown and scored as missed, so where that count is not "
        "0 the scores of a row are no measurement."
    )
    return make_table("Other targets", note, "target", [*labels, "unknown trials"], rows)


def trials_table(analysis: Analysis) -> Table:
    """Return the table of expected scores with k trials per study."""
    most = len(analysis.trials_KS)
    if most < 2:
        return make_table("Fewer trials", "No study has more than one trial.", "", [], [])
    rows = [
        {"name": texts.plural(count, "trial"), "cells": [_score(value) for value in scores]}
        for count, scores in enumerate(analysis.trials_KS.tolist(), start=1)
    ]
    note = (
        f"The expected score when every study keeps that many of its trials (at most {most}), "
        "drawn at random, the same number for all submissions."
    )
    return make_table("Fewer trials", note, "trials a study", analysis.board.labels, rows)


def aggregation_table(analysis: Analysis) -> Table:
    """Return the table of scores by median, mean and best over studies."""
    rows = _against_all(analysis, analysis.aggregations, first=False)
    note = (
        "The rules take the median over studies. By the mean, one missed study makes a workload "
        "missed. A dot marks a place that differs from the leaderboard's."
    )
    return make_table(
        "Median, mean or best study", note, "over studies", analysis.board.labels, rows
    )


def speedup_table(analysis: Analysis) -> Table:
    """Return the table of speed-ups over the reference by base workload.

    Where one side missed the target, the cell is a bound.
    """
    speedups, board = analysis.speedups, analysis.board
    bound = {"<=": "\N{LESS-THAN OR EQUAL TO} ", ">=": "\N{GREATER-THAN OR EQUAL TO} ", "": ""}
    rows = []
    for column, name in enumerate(board.benchmark.base_workloads):
        cells = []
        for submission in range(len(board.rows)):
            value = float(speedups.by_workload_SB[submission, column])
            text = bound[speedups.censored_SB[submission][column]] + texts.factor(value)
            cells.append(_shaded(text, _speedup_shade(value)) if value > 0 else {"text": text})
        rows.append({"name": name, "cells": cells})
    note = (
        f"Median time of {speedups.reference} divided by that of the submission, so above 1 is "
        "faster. A side that missed the target counts at the budget, or where trials of its own "
        "were late at the shortest of their clocks, which gives a bound; where both missed it, "
        "there is nothing to compare."
    )
    return make_table("Speed-up by workload", note, "workload", board.labels, rows)


def axis_table(analysis: Analysis) -> Table:
    """Return the table of robustness by axis.

    A cell says how many variants were reached, and how much slower they were than their base
    workloads.
    """
    robustness, labels = analysis.robustness, analysis.board.labels
    cells: dict[str, dict[str, Cell]] = {}
    for one in robustness.axes:
        cells.setdefault(one.axis, {})[one.label] = _axis_cell(one)
    rows = [
        {"name": axis, "cells": [by_label[label] for label in labels]}
        for axis, by_label in cells.items()
    ]
    note = (
        "How many of the held-out variants that change an axis were reached beside their base "
        "('base 1/3': only one of three bases was reached), and how much slower they were than it: "
        "the geometric mean over those reached, so a missed variant shows in the count, and in the "
        "shade as one twice as slow. A variant of several axes counts for each of them; in "
        f"'{ALL_AXES}' every variant counts once."
    )
    if robustness.unguarded:
        note += f" Without a held-out variant: {', '.join(robustness.unguarded)}."
    return make_table("By axis", note, "axis", labels, rows)


def _axis_cell(one: AxisResult) -> Cell:
    """Return a cell with the number of variants reached of all, and the slow-down.

    In the shade, each missed variant of a reached base workload counts as twice as slow or slower.
    """
    text = f"{one.reached}/{one.variants}"
    if one.bases_reached < one.variants:
        text += f" (base {one.bases_reached}/{one.variants})"
    if one.slowdown > 0:
        shade = (1 - _speedup_shade(one.slowdown)) * one.reached / one.bases_reached
        return _shaded(f"{text}, {texts.factor(one.slowdown)}", shade)
    return _shaded(text, 0.0 if one.bases_reached and not one.reached else math.nan)


def _speedup_shade(value: float) -> float:
    """Return 1/2 for equal times, 1 for twice as fast or more, 0 for half as fast or less."""
    return min(1.0, max(0.0, 0.5 + math.log2(value) / 2))


def _against_all(
    analysis: Analysis, scores_by_name: Mapping[str, Floats], *, first: bool = True
) -> list[Table]:
    """Return rows of scores in which ranks that differ from the leaderboard's are marked.

    Where `first`, the row of the leaderboard's own scores precedes the others.
    """
    full_S = np.array([row.score for row in analysis.board.rows])
    rows = [{"name": "none", "cells": [_score(x) for x in full_S.tolist()]}] if first else []
    for name, scores_S in scores_by_name.items():
        known = ~np.isnan(scores_S)
        moved = np.zeros(len(scores_S), np.bool_)
        moved[known] = scoring_rules.ranks(scores_S[known]) != scoring_rules.ranks(full_S[known])
        cells = [
            _score(value) | {"moved": bool(has_moved)}
            for value, has_moved in zip(scores_S.tolist(), moved, strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _score(value: float) -> Cell:
    return {"text": texts.score(value)}


def _shaded(text: str, share: float) -> Cell:
    """Return a cell tinted by how far `share` is from 1/2; the direction decides the colour."""
    if math.isnan(share):
        return {"text": text}
    side = "over" if share >= 0.5 else "under"
    return {"text": text, "side": side, "tint": f"{100 * abs(share - 0.5):.0f}"}


def make_table(
    title: str, note: str, corner: str, head: Sequence[str], rows: Sequence[Table]
) -> Table:
    """Return a table without the columns in which no row has a value, which the note names.

    Args:
        title: The title.
        note: What the numbers are.
        corner: The name of the column of row names.
        head: The names of the other columns.
        rows: The rows, each with 'name' and 'cells'.
    """
    kept, folded = texts.fold(head, [[str(cell["text"]) for cell in row["cells"]] for row in rows])
    return {
        "title": title,
        "note": f"{note} {folded}".strip(),
        "corner": corner,
        "head": [head[column] for column in kept],
        "rows": [row | {"cells": [row["cells"][column] for column in kept]} for row in rows],
    }

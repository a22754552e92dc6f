"""What times are made of, and how little would have changed the order, as tables of the page."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from scoring.analysis.analysis import Analysis
from scoring.analysis.restated import Restated, RestatedTime
from scoring.analysis.step_times import StepTime
from scoring.output.page import texts
from scoring.output.page.uncertainty import Table, make_table
from scoring.output.tables import frameworks_told
from scoring.rules import rules as scoring_rules

Value = TypeVar("Value", StepTime, RestatedTime)


def tables(analysis: Analysis) -> list[Table]:
    """Return the tables of steps and step times; with two frameworks, those of both; and estimates
    of the times in another hardware class, if these were asked for.
    """
    shown = [factor_table(analysis)]
    if analysis.steps.gaps:
        shown += [framework_table(analysis), order_table(analysis)]
    if analysis.restated is not None:
        shown.append(restated_table(analysis, analysis.restated))
    return shown


def factor_table(analysis: Analysis) -> Table:
    """Return the table of steps, seconds a step and the algorithm's own factor by workload."""

    def text(one: StepTime) -> str:
        steps = texts.count(one.steps) if math.isfinite(one.steps) else "missed"
        return f"{steps} {texts.TIMES} {one.step_s:.3g} s, own {texts.factor(one.own)}"

    rows = _rows(analysis, analysis.steps.cells, text)
    note = (
        "Time to target is steps to the target times seconds a step. A step is as long as the "
        "cheapest of its framework times the algorithm's own factor, which also holds how well it "
        "is implemented. Of a missed target the step time is that of the trials until their end."
    )
    return make_table("Steps and seconds a step", note, "workload", analysis.board.labels, rows)


def _rows(analysis: Analysis, values: Iterable[Value], text: Callable[[Value], str]) -> list[Table]:
    """Return a row for each workload, with the text of each submission's value on it."""
    by_place = {(each.label, each.workload): text(each) for each in values}
    return [
        {
            "name": name,
            "cells": [
                {"text": by_place.get((label, name), texts.NONE)} for label in analysis.board.labels
            ],
        }
        for name in analysis.board.layout.workloads
    ]


def framework_table(analysis: Analysis) -> Table:
    """Return the table of the cheapest step of each framework, by workload."""
    gaps = analysis.steps.gaps
    names = sorted({framework for gap in gaps for framework in gap.step_s})
    rows = []
    for gap in gaps:
        steps = [f"{gap.step_s[name]:.4g}" if name in gap.step_s else texts.NONE for name in names]
        texts_of_row = [*steps, texts.factor(gap.ratio), texts.factor(gap.apart)]
        rows.append({"name": gap.workload, "cells": [{"text": text} for text in texts_of_row]})
    head = [*(f"{name}, seconds a step" for name in names), "apart", "two algorithms apart"]
    note = (
        "The cheapest step of each framework, and how many times the dearer one takes. Beside it: "
        "how far apart two submissions that reach the target are in the median, at the same "
        "framework's step."
    )
    return make_table("Frameworks", note, "workload", head, rows)


def restated_table(analysis: Analysis, restated: Restated) -> Table:
    """Return the table of times in another hardware class, as estimates, by workload."""

    def text(one: RestatedTime) -> str:
        if not math.isfinite(one.time_s):
            return "missed"
        measured = f"{one.time_s:,.2f} s {texts.TIMES} {one.ratio:.3f}"
        return f"about {one.estimate_s:,.2f} s ({measured})"

    rows = _rows(analysis, restated.times, text)
    note = (
        f"An estimate, not measured: the times measured in hardware class {restated.measured_in}, "
        "times the reference algorithm's step time in the other class over that in this one. "
        "Scores, ranks and intervals are of the measured times."
    )
    title = f"Estimate: times in hardware class {restated.name} ({restated.id})"
    return make_table(title, note, "workload", analysis.board.labels, rows)


def order_table(analysis: Analysis) -> Table:
    """Return the table of scores and places by time, by steps, and framework-neutral."""
    board, neutral = analysis.board, analysis.steps.neutral_scores
    by_steps = [row.steps_score for row in board.rows]
    rows = []
    scores = ([row.score for row in board.rows], by_steps, list(neutral))
    for name, values in zip(("time", "steps", "framework-neutral (estimate)"), scores, strict=True):
        places = scoring_rules.ranks(np.array(values)).tolist()
        cells = [
            {"text": f"{texts.score(value)} ({rank})"}
            for value, rank in zip(values, places, strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    missed = texts.plural(analysis.steps.held_back, "target")
    note = (
        "Scores with places: as they are, with steps in place of times, and with every submission "
        f"at the cheaper framework's step. {frameworks_told(analysis)} An estimate, as {missed} "
        "missed in the dearer framework might have been reached with the cheaper step."
    )
    return make_table("By time, by steps and framework-neutral", note, "score", board.labels, rows)


def fragility_told(analysis: Analysis) -> str:
    """Return how little would have changed the order, in a sentence or two."""
    one = analysis.fragility
    parts = []
    if one.easier_first:
        share = texts.percent(one.easier)
        parts.append(f"With every target {share} easier {one.easier_first} is first.")
    if one.harder_first:
        share, trials = texts.percent(one.harder), texts.plural(one.unknown, "trial")
        parts.append(
            f"With every target {share} harder {one.harder_first} is first, where {trials} that "
            "stopped too early to show whether they meet it count as missed."
        )
    if not parts:
        parts.append("No change of all targets by up to 20 % changes the first place.")
    change = one.time
    if change is not None:
        percent = f"{100 * abs(change.factor - 1):.2g}\N{NO-BREAK SPACE}%"
        longer = "longer" if change.factor > 1 else "shorter"
        parts.append(
            f"The smallest change of one time that changes a rank: {change.label} on "
            f"{change.workload} {percent} {longer} moves {' and '.join(change.overtaken)}."
        )
    return " ".join(parts)

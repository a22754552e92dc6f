"""The charts of the page: performance profiles, training curves and intervals of scores.

Legend: S submissions, T values of tau, N evaluations.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.analysis import BAND_TAUS, Analysis
from scoring.analysis.leaderboard import Leaderboard
from scoring.output import palette
from scoring.output.page import texts
from scoring.output.page.svg import UNITS, Frame, Markup, broken_line, element, line
from scoring.output.plot_curves import HUGE, limits
from scoring.output.plot_profile import dodge
from scoring.reading.evaluations import TIME_COLUMN
from scoring.reading.trials import Target, TrialRun
from scoring.rules import profiles
from scoring.rules.time_to_target import time_to_target

Floats = NDArray[np.float64]

PROFILE_SIZE = (760.0, 378.0)
PROFILE = Frame((1.0, profiles.TAU_MAX), (-4.0, 104.0), 58.0, 12.0, 690.0, 336.0)
# These are the distance between two lines that coincide, and the largest of all such together.
LANE, LANES_SPREAD = 2.6, 16.0

PANEL_SIZE = (420.0, 246.0)
PANEL = Frame((0.0, 1.0), (0.0, 1.0), 54.0, 10.0, 358.0, 214.0)

BAR_SIZE = (120.0, 16.0)


def interval_bar(score: float, ends: Sequence[float], index: int) -> Markup:
    """Return a small chart of a score and its interval on a line from 0 to 1.

    Args:
        score: The score.
        ends: The ends of its interval; NaN draws none.
        index: The submission's row on the leaderboard, which decides the colour.
    """
    width, middle = BAR_SIZE[0] - 8, BAR_SIZE[1] / 2

    def at(value: float) -> float:
        return round(4 + width * min(1.0, max(0.0, value)), 1)

    parts = [element("path", class_="track", d=f"M4 {middle:g}h{width:g}")]
    if not math.isnan(ends[0]):
        parts.append(element("path", class_="range", d=f"M{at(ends[0])} {middle:g}H{at(ends[1])}"))
    parts.append(element("path", class_="dot", d=f"M{at(score)} {middle:g}h0"))
    size = f"0 0 {BAR_SIZE[0]:g} {BAR_SIZE[1]:g}"
    return element("svg", *parts, class_=f"bar s{index}", viewBox=size, aria_hidden="true")


def profile_chart(analysis: Analysis) -> dict[str, Any]:
    """Return the chart of the performance profiles of all entries.

    Returns:
        'svg', the chart; 'banded', whether it has bands (they need to be estimable); and
        'coinciding', whether lines that coincide are drawn side by side.
    """
    board = analysis.board
    taus = profiles.profile_taus(board.ratios)
    shares_ST = profiles.performance_profile(board.ratios, taus)
    lanes = dodge(shares_ST)
    gap = min(LANE, LANES_SPREAD / max(1, *lanes)) * UNITS
    banded = not np.isnan(analysis.band_TS2).any()
    bands, lines = [], []
    for index, shares in enumerate(shares_ST):
        if banded:
            bands.append(_group(index, _band(analysis.band_TS2[:, index])))
        x, y = _steps(taus, 100 * shares)
        path = element("path", d=line(PROFILE.place(x, y)))
        shift = round(gap * (lanes[index] - max(lanes) / 2))
        lines.append(_group(index, path, transform=f"translate(0 {shift})" if shift else None))
    title = f"Performance profiles of {texts.plural(len(board.rows), 'submission')}"
    chart = PROFILE.chart([*bands, *lines], PROFILE_SIZE, aria_label=title, data_kind="profile")
    return {"svg": chart, "banded": banded, "coinciding": max(lanes, default=0) > 0}


def _group(index: int, *parts: str, **attributes: object) -> Markup:
    """Return an element with everything that is shown or hidden together with one entry."""
    return element("g", *parts, class_=f"s{index}", data_s=index, **attributes)


def _steps(x_T: Floats, y_T: Floats) -> tuple[Floats, Floats]:
    """Return the corners of a curve that keeps its value until the next x."""
    jumps = np.flatnonzero(np.diff(y_T) != 0) + 1
    x = np.concatenate([x_T[:1], np.repeat(x_T[jumps], 2), x_T[-1:]])
    before, after = np.concatenate([y_T[:1], y_T[jumps]])[:-1], y_T[jumps]
    y = np.concatenate([y_T[:1], np.stack([before, after], -1).ravel(), y_T[-1:]])
    return x, y


def _band(band_T2: Floats) -> Markup:
    low, high = (PROFILE.place(*_steps(BAND_TAUS, 100 * band_T2[:, side])) for side in (0, 1))
    outline = np.concatenate([high, low[::-1]])
    return element("path", class_="band", d=f"{line(outline)}z")


def curve_panels(board: Leaderboard) -> list[dict[str, Any]]:
    """Return the charts of validation metric against submission time.

    Returns:
        A panel for each workload that has any evaluation, whether or not it has a target.
    """
    shown = {name: board.benchmark.workloads[name].target for name in board.layout.workloads}
    for run in board.pool.runs:  # A workload without a target still has curves.
        if run.target is not None:
            shown.setdefault(run.workload, run.target)
    panels = (_panel(board, name, target) for name, target in shown.items())
    return [panel for panel in panels if panel is not None]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The training curve of one trial.

    Attributes:
        index: The row of the submission on the leaderboard, from 0 for the best.
        run: The trial.
        chosen: Whether this trial counts in its study.
        time_s_N: Array (N evaluations,) of submission times in seconds; NaN where not finite.
        value_N: Array (N,) of values of the metric; NaN where not finite.
        hit: The index of the evaluation that met the target; None where none did.
    """

    index: int
    run: TrialRun
    chosen: bool
    time_s_N: Floats
    value_N: Floats
    hit: int | None


def _panel(board: Leaderboard, workload: str, target: Target) -> dict[str, Any] | None:
    curves = _curves(board, workload, target)
    times_s = np.concatenate([np.zeros(0), *(curve.time_s_N for curve in curves)])
    times_s = times_s[np.isfinite(times_s)]
    if not len(times_s):
        return None
    longest_s = float(times_s.max())
    unit, seconds = _time_unit(longest_s)
    end = 1.01 * longest_s / seconds if longest_s > 0 else 1.0
    y = limits([curve.value_N[np.isfinite(curve.value_N)] for curve in curves], target)
    frame = dataclasses.replace(PANEL, x=(0.0, end), y=y)
    parts: list[str] = []
    if target.validation is not None:
        goal = frame.place(np.array([0.0]), np.array([target.validation]))[0, 1]
        wide = PANEL.width * UNITS
        parts.append(element("path", class_="target", d=f"M0 {goal}h{wide:g}"))
    for chosen in (False, True):
        for index in range(len(board.rows)):
            group = [c for c in curves if (c.index, c.chosen) == (index, chosen)]
            drawn = [mark for curve in group for mark in _draw(curve, frame, seconds)]
            if drawn:
                parts.append(_group(index, *drawn))
    chart = frame.chart(
        parts,
        PANEL_SIZE,
        aria_label=f"Training curves on {workload}: {texts.plural(len(curves), 'trial')}",
        data_kind="curve",
        data_w=workload,
        data_metric=target.metric,
        data_unit=unit,
        data_seconds=f"{seconds:g}",
    )
    return {
        "workload": workload,
        "metric": target.metric,
        "goal": texts.goal(target),
        "unit": unit,
        "svg": chart,
    }


def _curves(board: Leaderboard, workload: str, target: Target) -> list[Curve]:
    curves = []
    for index, row in enumerate(board.rows):
        cell = row.cells.get(workload)
        chosen = {(result.study, result.trial) for result in cell.studies} if cell else set()
        for run in row.entry.runs:
            if run.workload != workload or not {TIME_COLUMN, target.column} <= run.rows.keys():
                continue
            budget_s = run.budget_s if board.rules.budgets else None
            hit = time_to_target(run.rows, target, budget_s).evaluation
            is_chosen = hit is not None and (run.study, run.trial) in chosen
            time_s_N, value_N = (
                np.where(np.isfinite(column), np.clip(column, -HUGE, HUGE), np.nan)
                for column in (run.rows[TIME_COLUMN], run.rows[target.column])
            )
            curves.append(Curve(index, run, is_chosen, time_s_N, value_N, hit))
    return curves


def _draw(curve: Curve, frame: Frame, seconds: float) -> list[Markup]:
    time_N = curve.time_s_N / seconds
    keep = [] if curve.hit is None else [curve.hit]
    path = broken_line(frame, time_N, curve.value_N, keep)
    if not path:
        return []
    run = curve.run
    name = f"study {run.study}, trial {run.trial}"
    marks = [element("path", d=path, data_l=name, class_="chosen" if curve.chosen else None)]
    if curve.hit is not None:
        at = slice(curve.hit, curve.hit + 1)
        x, y = frame.place(time_N[at], curve.value_N[at])[0].tolist()
        kind = "hit chosen" if curve.chosen else "hit"
        marks.append(element("path", class_=kind, d=f"M{x} {y}h0"))
    return marks


def _time_unit(longest_s: float) -> tuple[str, float]:
    """Return the unit for an axis that ends at `longest_s`, and the unit's length in seconds."""
    return ("h", 3600.0) if longest_s >= 7200 else ("min", 60.0) if longest_s >= 600 else ("s", 1.0)


def palette_css(count: int) -> str:
    """Return CSS with the colour and dashes of the first `count` submissions.

    The colours for a dark ground apply on a dark screen, never in print.
    """
    light, dark = [], []
    for index in range(count):
        dashes, rounds = (
            " ".join(f"{2 * length:g}" for length in palette.dashes(index, rounds_only=only))
            for only in (False, True)
        )
        styles = f"--c:{palette.colour(index)};--d:{dashes or 'none'};--r:{rounds or 'none'}"
        light.append(f".s{index}{{{styles}}}")
        dark.append(f".s{index}{{--c:{palette.colour(index, dark=True)}}}")
    return "\n".join([*light, "@media screen and (prefers-color-scheme:dark){", *dark, "}"])

"""The charts of the page: performance profiles, training curves and intervals of scores.

Legend: S submissions, T values of tau, N evaluations.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.analysis import BAND_TAUS, Analysis
from scoring.analysis.leaderboard import Leaderboard
from scoring.output import palette
from scoring.output.page import texts
from scoring.output.page.svg import UNITS, Frame, Markup, Points, broken_lines, element, line
from scoring.output.plot_curves import HUGE, limits
from scoring.output.plot_profile import dodge
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN, Rows, read_evaluations
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

SCALARS = "measurements.csv"
MOST_POINTS = 150  # A curve of training scalars has at most so many points.
DECADES = 4.0  # A logarithmic axis spans at most so many powers of ten.


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


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a group of panels shows of each trial.

    Attributes:
        title: The title of the group.
        column: The column of measurements.csv; None for the metric of the workload's target.
        is_log: Whether the vertical axis is logarithmic.
    """

    title: str
    column: str | None
    is_log: bool = False


QUANTITIES = (
    Quantity("Validation metric", None),
    Quantity("Training loss", "loss"),
    Quantity("Learning rate", "learning_rate", is_log=True),
)
AXES = ("time", "steps")


def curve_groups(board: Leaderboard) -> list[dict[str, Any]]:
    """Return the charts of the trials' curves, by what they show.

    Returns:
        A group for each of QUANTITIES that any trial has logged: its 'title', and its 'panels', one
        for each workload and axis (submission time, steps), whether or not the workload has a
        target.
    """
    shown = {name: board.benchmark.workloads[name].target for name in board.layout.workloads}
    for run in board.pool.runs:  # A workload without a target still has curves.
        if run.target is not None:
            shown.setdefault(run.workload, run.target)
    groups = []
    scalars = _scalars(board)
    for quantity in QUANTITIES:
        panels = []
        for name, target in shown.items():
            curves = _curves(board, name, target, quantity, scalars)
            panels += [_panel(board, name, target, quantity, curves, axis) for axis in AXES]
        kept = [panel for panel in panels if panel is not None]
        if kept:
            groups.append({"title": quantity.title, "panels": kept})
    return groups


def _scalars(board: Leaderboard) -> dict[Path, Rows]:
    """Return the training scalars of every trial that logged any, by its folder."""
    rows = {
        run.path: read_evaluations(run.folder / SCALARS)[0]
        for row in board.rows
        for run in row.entry.runs
        if (run.folder / SCALARS).is_file()
    }
    return {path: columns for path, columns in rows.items() if STEP_COLUMN in columns}


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The curve of one trial.

    Attributes:
        index: The row of the submission on the leaderboard, from 0 for the best.
        run: The trial.
        chosen: Whether this trial counts in its study.
        time_s_N: Array (N points,) of submission times in seconds; NaN where not known.
        step_N: Array (N,) of training steps; NaN where not known.
        value_N: Array (N,) of values, on a logarithmic axis their logarithms; NaN where not finite.
        hit: The index of the evaluation that met the target; None where none did.
    """

    index: int
    run: TrialRun
    chosen: bool
    time_s_N: Floats
    step_N: Floats
    value_N: Floats
    hit: int | None

    def along(self, axis: str) -> Floats:
        """Return the values on the horizontal axis of this name."""
        return self.time_s_N if axis == "time" else self.step_N

    def points(self, axis: str, scale: float) -> Points:
        """Return the points to draw along an axis, in units of `scale` seconds or steps."""
        keep = () if self.hit is None else (self.hit,)
        return Points(self.along(axis) / scale, self.value_N, keep)


def _panel(
    board: Leaderboard,
    workload: str,
    target: Target,
    quantity: Quantity,
    curves: Sequence[Curve],
    axis: str,
) -> dict[str, Any] | None:
    """Return one chart and what is written beside it; None where no trial has a point."""
    drawn = [np.isfinite(curve.along(axis)) & np.isfinite(curve.value_N) for curve in curves]
    across = [curve.along(axis)[known] for curve, known in zip(curves, drawn, strict=True)]
    values = [curve.value_N[known] for curve, known in zip(curves, drawn, strict=True)]
    longest = max((float(each.max()) for each in across if len(each)), default=math.nan)
    if math.isnan(longest):
        return None
    unit, scale = _time_unit(longest) if axis == "time" else ("steps", 1.0)
    end = 1.01 * longest / scale if longest > 0 else 1.0
    y = _value_limits(values, target, quantity)
    frame = dataclasses.replace(PANEL, x=(0.0, end), y=y, is_log=quantity.is_log)
    is_metric = quantity.column is None
    parts: list[str] = []
    if is_metric and target.validation is not None:
        goal = frame.place(np.array([0.0]), np.array([target.validation]))[0, 1]
        wide = PANEL.width * UNITS
        parts.append(element("path", class_="target", d=f"M0 {goal}h{wide:g}"))
    paths = broken_lines(frame, [curve.points(axis, scale) for curve in curves])
    for chosen in (False, True):
        for index in range(len(board.rows)):
            group = [
                (curve, path)
                for curve, path in zip(curves, paths, strict=True)
                if path and (curve.index, curve.chosen) == (index, chosen)
            ]
            marks = [
                mark for curve, path in group for mark in _draw(curve, path, frame, axis, scale)
            ]
            if marks:
                parts.append(_group(index, *marks))
    name = target.metric if is_metric else quantity.title.lower()
    chart = frame.chart(
        parts,
        PANEL_SIZE,
        aria_label=f"{name} on {workload} against {axis}: {texts.plural(len(curves), 'trial')}",
        data_kind="curve",
        data_w=workload,
        data_metric=name,
        data_axis=axis,
        data_unit=unit,
        data_seconds=f"{scale:g}",
    )
    return {
        "workload": workload,
        "metric": name,
        "goal": texts.goal(target) if is_metric else "",
        "axis": axis,
        "label": f"submission time ({unit})" if axis == "time" else "training steps",
        "svg": chart,
    }


def _value_limits(
    values: Sequence[Floats], target: Target, quantity: Quantity
) -> tuple[float, float]:
    if quantity.column is None:
        return limits(values, target)
    if not quantity.is_log:
        return limits(values, Target(quantity.title, higher_is_better=False, validation=None))
    every = np.concatenate(values)
    high = float(every.max())
    low = max(float(every.min()), high - DECADES)  # Schedules that end near 0 run out of the panel.
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _curves(
    board: Leaderboard,
    workload: str,
    target: Target,
    quantity: Quantity,
    scalars: Mapping[Path, Rows],
) -> list[Curve]:
    curves = []
    for index, row in enumerate(board.rows):
        cell = row.cells.get(workload)
        chosen = {(result.study, result.trial) for result in cell.studies} if cell else set()
        for run in row.entry.runs:
            if run.workload != workload:
                continue
            budget_s = run.budget_s if board.rules.budgets else None
            hit = time_to_target(run.rows, target, budget_s).evaluation
            is_chosen = hit is not None and (run.study, run.trial) in chosen
            points = _points(run, target, quantity, scalars.get(run.path, {}))
            if points is not None:
                hit = hit if quantity.column is None else None
                curves.append(Curve(index, run, is_chosen, *points, hit))
    return curves


def _points(
    run: TrialRun, target: Target, quantity: Quantity, scalars: Rows
) -> tuple[Floats, Floats, Floats] | None:
    """Return times, steps and values of a trial's points; None where it has not logged them."""
    if quantity.column is None:
        if not {TIME_COLUMN, target.column} <= run.rows.keys():
            return None
        time_s_N, value_N = (_known(run.rows[name]) for name in (TIME_COLUMN, target.column))
        step_N = run.rows.get(STEP_COLUMN, np.full(len(time_s_N), np.nan))
        return time_s_N, _known(step_N), value_N
    if quantity.column not in scalars:
        return None
    step_N, value_N = (_known(scalars[name]) for name in (STEP_COLUMN, quantity.column))
    if quantity.is_log:
        value_N = np.log10(np.where(value_N > 0, value_N, np.nan))
    known = np.isfinite(step_N) & np.isfinite(value_N)
    step_N, value_N = _binned(step_N[known]), _binned(value_N[known])
    return _times_s(run.rows, step_N), step_N, value_N


def _known(column: Floats) -> Floats:
    return np.where(np.isfinite(column), np.clip(column, -HUGE, HUGE), np.nan)


def _binned(values_N: Floats) -> Floats:
    """Return means of at most MOST_POINTS runs of values, so that noise does not fill the page."""
    if len(values_N) <= MOST_POINTS:
        return values_N
    return np.array([part.mean() for part in np.array_split(values_N, MOST_POINTS)])


def _times_s(rows: Rows, step_N: Floats) -> Floats:
    """Return the submission time at each step, linear between evaluations.

    It is NaN beyond the last evaluation, and where steps or times of evaluations are not known.
    """
    if not {STEP_COLUMN, TIME_COLUMN} <= rows.keys():
        return np.full(len(step_N), np.nan)
    steps, times_s = _known(rows[STEP_COLUMN]), _known(rows[TIME_COLUMN])
    known = np.isfinite(steps) & np.isfinite(times_s)
    if not known.any() or (np.diff(steps[known]) < 0).any():
        return np.full(len(step_N), np.nan)
    steps, times_s = np.append(0.0, steps[known]), np.append(0.0, times_s[known])
    return np.interp(step_N, steps, times_s, right=np.nan)


def _draw(curve: Curve, path: str, frame: Frame, axis: str, scale: float) -> list[Markup]:
    across_N = curve.along(axis) / scale
    run = curve.run
    name = f"study {run.study}, trial {run.trial}"
    marks = [element("path", d=path, data_l=name, class_="chosen" if curve.chosen else None)]
    if curve.hit is not None and np.isfinite(across_N[curve.hit]):
        at = slice(curve.hit, curve.hit + 1)
        x, y = frame.place(across_N[at], curve.value_N[at])[0].tolist()
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

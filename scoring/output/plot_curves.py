"""Plots of training curves: validation metric against submission time, a panel per workload."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.leaderboard import Leaderboard, Row
from scoring.output import palette
from scoring.output import plot_style as style
from scoring.reading.evaluations import TIME_COLUMN
from scoring.reading.trials import Target, TrialRun
from scoring.rules.time_to_target import Crossing, is_readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

WIDTH_IN, PANEL_WIDTH_IN, PANEL_HEIGHT_IN = 13.2, 5.2, 2.7
FEW_PANELS = 9  # Up to nine panels, there are three in a row; beyond, four.
THIN, THICK = {"linewidth": 0.5, "alpha": 0.5}, {"linewidth": 1.4, "alpha": 0.95}
REACH_OF_BULK = 3.0
HUGE = 1e30  # Beyond this value, an axis would lose its ticks.
BEYOND = 20.0  # A line is drawn outside its panel as far as this multiple of the panel's span.
TITLE_POINTS = 8.5
# A line of the legend, the two lines above a panel, a line below it, and a tick with its gap.
LEGEND_LINE_IN, HEADING_IN, LABEL_IN, TICK_IN = 0.22, 0.4, 0.22, 0.11
_KEYS: Mapping[str, Any] = {
    "counts in its study": {"color": palette.GREY, "linewidth": 2.0},
    "another trial": {"color": palette.GREY, "linewidth": 0.6},
    "target reached": {"color": palette.GREY, "marker": "o", "linestyle": "none"},
    "target": {"color": "black", "linewidth": 0.9},
}


def plot_curves(board: Leaderboard) -> "Figure | None":
    """Return the training curves of a leaderboard; None if no run names its metric.

    Each trial is a thin line; the trial that counts in its study is thick.
    """
    targets: dict[str, Target] = {
        run.workload: run.target
        for row in board.rows
        for run in row.entry.runs
        if run.target is not None
    }
    if not targets:
        return None
    columns = min(3 if len(targets) <= FEW_PANELS else 4, len(targets))
    lines = -(-len(targets) // columns)
    width_in = min(WIDTH_IN, 0.6 + PANEL_WIDTH_IN * columns)
    labels = [style.plain(label) for label in board.labels]
    legend_columns = max(1, int((width_in - 0.4) / (0.8 + max(1.6, style.widest(labels)))))
    legend_lines = -(-(len(labels) + len(_KEYS)) // legend_columns)
    legend_in = LEGEND_LINE_IN * legend_lines
    height_in = 1.0 + PANEL_HEIGHT_IN * lines + legend_in
    figure = style.new_figure(width_in, height_in, makes_room=False)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (axes, workload) in enumerate(zip(panels, sorted(targets), strict=False)):
        draw_panel(axes, workload, targets[workload], board.rows)
        heading = _heading(workload, targets[workload], width_in / columns - 0.6)
        # Where y is given the ticks are not measured at each drawing to find it.
        axes.set_title(heading, loc="left", fontsize=TITLE_POINTS, y=1.0)
        # Where a place is given for a name, the ticks are not measured at each drawing to find it.
        axes.yaxis.set_label_coords(0.0, 0.5)
        if panel + columns >= len(targets):  # No panel is below this one.
            axes.set_xlabel("submission time (s)", fontsize=TITLE_POINTS)
        else:
            axes.xaxis.set_label_coords(0.5, 0.0)
    for axes in panels[len(targets) :]:
        axes.set_axis_off()
    _legend(figure, labels, legend_columns)
    title = style.plain(board.title, max(2.0, width_in - 4), style.TITLE_POINTS)
    figure.suptitle(
        f"{title}: validation metric of every trial",
        fontsize=style.TITLE_POINTS,
        y=1 - style.PAD_IN / height_in,
    )
    _place(figure, panels[: len(targets)], (lines, columns), legend_in)
    return figure


def _place(
    figure: "Figure", panels: Iterable["Axes"], grid: tuple[int, int], legend_in: float
) -> None:
    """Place a grid of panels so that their labels, the title and the legend have room."""
    width_in, height_in = figure.get_size_inches().tolist()
    labels: list[str] = []
    for axes in panels:
        axis = axes.yaxis
        labels += axis.get_major_formatter().format_ticks(list(axis.get_major_locator()()))
    beside_in = style.widest(labels, style.SMALL_POINTS) + TICK_IN + style.PAD_IN
    below_in = legend_in + 2 * LABEL_IN + 2 * style.PAD_IN
    above_in, between_in = HEADING_IN + 0.32, HEADING_IN + LABEL_IN + style.PAD_IN
    last_in = 0.25  # Half of the label of the last tick.
    tall_in = (height_in - above_in - below_in - (grid[0] - 1) * between_in) / grid[0]
    wide_in = (width_in - last_in - grid[1] * beside_in - (grid[1] - 1) * last_in) / grid[1]
    figure.subplots_adjust(
        left=beside_in / width_in,
        right=1 - last_in / width_in,
        bottom=below_in / height_in,
        top=1 - above_in / height_in,
        wspace=(beside_in + last_in) / wide_in,
        hspace=between_in / tall_in,
    )


def _heading(workload: str, target: Target, widest_in: float) -> str:
    """Return the two lines above a panel: the workload, then its metric and target."""
    name = style.plain(workload, widest_in, TITLE_POINTS)
    before, after = "", ", no target"
    if target.validation is not None:
        before, after = "target: ", f" {'≥' if target.higher_is_better else '≤'} "
        after += f"{target.validation:g}"
    room_in = widest_in - style.inches(before + after, TITLE_POINTS)
    return f"{name}\n{before}{style.plain(target.metric, room_in, TITLE_POINTS)}{after}"


def _legend(figure: "Figure", labels: Sequence[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, linewidth=2, **style.line(index, rounds_only=True))
        for index, label in enumerate(labels)
    ]
    handles += [Line2D([], [], label=label, **look) for label, look in _KEYS.items()]
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False)


def draw_panel(axes: "Axes", workload: str, target: Target, rows: Sequence[Row]) -> None:
    """Draw the trials of all submissions on one workload, and the target.

    Args:
        axes: Where to draw.
        workload: The workload.
        target: Its metric and target.
        rows: The entries of the leaderboard, best first.
    """
    curves = [
        [
            (run, *_curve(run, target))
            for run in row.entry.runs
            if run.workload == workload and is_readable(run)
        ]
        for row in rows
    ]
    every = [(time_s, value) for of_row in curves for _, time_s, value in of_row]
    low, high = limits([value for _, value in every], target)
    end_s = max((time_s.max(initial=0.0) for time_s, _ in every), default=0.0) or 1.0
    reach = BEYOND * (high - low)
    for index, (row, of_row) in enumerate(zip(rows, curves, strict=True)):
        counted = chosen(row, workload)
        thin: list[Floats] = []
        thick: list[Floats] = []
        marks: list[tuple[float, float]] = []
        for run, time_s, value in of_row:
            points = np.column_stack([time_s, np.clip(value, low - reach, high + reach)])
            crossing = counted.get((run.study, run.trial))
            (thin if crossing is None else thick).append(points)
            if crossing is not None and crossing.evaluation is not None:
                reached = float(run.rows[target.column][crossing.evaluation])
                marks.append((crossing.hit_time_s, reached))
        _draw_lines(axes, index, thin, thick=False)
        _draw_lines(axes, index, thick, thick=True)
        _draw_marks(axes, index, np.clip(marks, -HUGE, HUGE))
    if target.validation is not None:
        axes.axhline(target.validation, color="black", linewidth=0.8, zorder=1.5)
    axes.set(xlim=(0.0, 1.02 * end_s), ylim=(low, high))
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=6)
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.tick_params(labelsize=style.SMALL_POINTS)
    style.tidy(axes)


def chosen(row: Row, workload: str) -> Mapping[tuple[int, int], Crossing]:
    """Return the trials that count in their study, and where each met its target.

    Returns:
        The crossing of each such trial, by (study, trial). Studies that missed have no such trial.
    """
    cell = row.cells.get(workload)
    return {
        (result.study, result.trial): result.crossing
        for result in (cell.studies if cell else ())
        if result.trial is not None
    }


def _curve(run: TrialRun, target: Target) -> tuple[Floats, Floats]:
    """Return times in seconds and values of the evaluations that measured the metric."""
    time_s, value = run.rows[TIME_COLUMN], run.rows[target.column]
    known = np.isfinite(time_s) & np.isfinite(value)
    return np.clip(time_s[known], 0.0, HUGE), np.clip(value[known], -HUGE, HUGE)


def _draw_lines(axes: "Axes", index: int, curves: Sequence[Floats], *, thick: bool) -> None:
    from matplotlib.collections import LineCollection

    if curves:
        look = style.line(index, rounds_only=True)
        lines = LineCollection(
            curves,
            colors=look["color"],
            linestyles=[look["linestyle"]],
            zorder=2.5 if thick else 1.0,
            **(THICK if thick else THIN),
        )
        axes.add_collection(lines, autolim=False)


def _draw_marks(axes: "Axes", index: int, marks: Floats) -> None:
    """Draw dots at pairs of time and value, of which `marks` has one per row."""
    if len(marks):
        axes.plot(
            *marks.T,
            "o",
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            color=palette.colour(index),
            zorder=3,
        )


def limits(values: Sequence[Floats], target: Target) -> tuple[float, float]:
    """Return limits of the vertical axis that show the target, the best value, and the way there.

    Values far from the best run out of the panel: the worst tenth, and any value farther from the
    best than REACH_OF_BULK times the distance of the better three quarters.

    Args:
        values: The finite values of each curve.
        target: The target, which says which direction is better.

    Returns:
        The lower and the upper limit.
    """
    goals = [] if target.validation is None else [float(np.clip(target.validation, -HUGE, HUGE))]
    known = np.concatenate([*values, goals])
    if not len(known):
        return 0.0, 1.0
    best = float(known.max() if target.higher_is_better else known.min())
    gaps = np.abs(np.concatenate([*values, []]) - best)
    far, bulk = (_quantile(gaps, share) for share in (0.9, 0.75))
    reach = min(far, REACH_OF_BULK * bulk or far)
    worst = best - reach if target.higher_is_better else best + reach
    low, high = min(worst, best, *goals), max(worst, best, *goals)
    margin = 0.06 * (high - low) or 0.5 * (abs(high) or 1.0)
    return low - margin, high + margin


def _quantile(gaps: Floats, share: float) -> float:
    return float(np.quantile(gaps, share, method="nearest")) if len(gaps) else 0.0

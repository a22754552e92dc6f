"""Plots that compare submissions: rank intervals, and speed-ups over the reference.

Legend: S submissions, B base workloads.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.analysis import Analysis
from scoring.output import palette
from scoring.output import plot_style as style
from scoring.output.plot_profile import studies_told

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

MOST_TICKS = 12
BAR_POINTS = 10.0
# A bar is longer at each end by this share of a rank, so that an interval of one rank is visible.
BAR_END = 0.2
# On each side of a speed-up of 1, the colours span between one and three powers of two.
LEAST_SPAN, MOST_SPAN = 1.0, 3.0
CELL_IN = (0.82, 0.46)
HEADING_POINTS, SLANT = 9.0, 35.0  # The workloads' names stand above the cells, at an angle.
GAP = 0.12  # This share of a cell separates the workloads from the mean.


def plot_ranks(analysis: Analysis) -> "Figure":
    """Plot each submission's rank, rank interval and probability of being first, best on top."""
    board, studies = analysis.board, analysis.studies
    labels = [style.plain(label) for label in board.labels]
    count = len(labels)
    width_in = 4.2 + style.widest(labels) + min(5.0, 0.3 * count)
    figure = style.new_figure(width_in, 1.9 + 0.32 * count)
    axes = figure.subplots()
    interval = studies.rank_interval
    for index, row in enumerate(board.rows):
        colour = palette.colour(index)
        if not np.isnan(interval[index]).any():
            low, high = interval[index]
            ends = low - BAR_END, high + BAR_END
            axes.hlines(index, *ends, color=colour, linewidth=BAR_POINTS, alpha=0.4, zorder=2)
        axes.plot(row.rank, index, "o", color=colour, markersize=7, zorder=3)
    axes.set(xlim=(0.5, count + 0.5), ylim=(count - 0.5, -0.5), xlabel="rank")
    axes.set_yticks(range(count), labels)
    axes.set_xticks(range(1, count + 1, -(-count // MOST_TICKS)))
    title = style.plain(board.title, width_in - 1.0, style.TITLE_POINTS)
    figure.suptitle(f"{title}: rank", fontsize=style.TITLE_POINTS)
    style.tidy(axes)
    if studies.not_estimable:
        reason = style.plain(studies.not_estimable, 4.5, style.SMALL_POINTS)
        style.small_print(figure, f"Rank intervals are not estimable: {reason}.")
        return figure
    _probabilities(axes, studies.p_first)
    style.small_print(
        figure,
        "Dot: rank. Bar: where 95 % of the ranks lie in fresh competitions",
        f"with {studies_told(analysis)}; a short one is a single rank.",
    )
    return figure


def _probabilities(axes: "Axes", p_first_S: Floats) -> None:
    """Write each submission's probability of being first at the right of the plot."""
    across = axes.get_yaxis_transform()
    for index, p_first in enumerate(p_first_S.tolist()):
        axes.text(1.06, index, percent(p_first), transform=across, va="center", ha="left")
    axes.annotate(
        "probability of\nbeing first",
        (1.06, 1.0),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=style.SMALL_POINTS,
    )


def percent(share: float) -> str:
    """Return a share in whole per cent.

    A share that would round to 0 or 100 % without being it becomes '<1 %' or '>99 %'.
    """
    rounded = round(100 * share)
    if rounded == 0 and share > 0:
        return "<1 %"
    return ">99 %" if rounded == 100 and share < 1 else f"{rounded} %"


def plot_speedups(analysis: Analysis) -> "Figure":
    """Plot a heat map of speed-ups: a row per submission, a column per base workload.

    The last column is the geometric mean over workloads. Cells without a number are hatched.
    """
    board, speedups = analysis.board, analysis.speedups
    labels = [style.plain(label) for label in board.labels]
    names = [style.plain(name, 2.0, HEADING_POINTS) for name in board.benchmark.base_workloads]
    values = np.column_stack([speedups.by_workload_SB, speedups.mean_S])
    count, across = values.shape
    headings = [*names, "geometric mean"]
    slanted_in = style.widest(headings, HEADING_POINTS)
    figure = style.new_figure(
        max(5.8, 0.5 + style.widest(labels) + CELL_IN[0] * (across + GAP) + 0.4 * slanted_in),
        2.2 + np.sin(np.radians(SLANT)) * slanted_in + CELL_IN[1] * count,
    )
    axes = figure.subplots()
    lefts = np.arange(across) + GAP * (np.arange(across) == across - 1)
    _cells(axes, lefts, values, [[*marks, ""] for marks in speedups.censored_SB])
    for index, column in np.argwhere(np.isnan(values)).tolist():
        _hatched(axes, lefts[column], index, why_unknown(analysis, index, column))
    axes.set(xlim=(0, across + GAP), ylim=(count, 0))
    axes.set_yticks(np.arange(count) + 0.5, labels)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_xticks(lefts + 0.5, headings, fontsize=HEADING_POINTS)
    for label in axes.get_xticklabels():
        label.set(rotation=SLANT, ha="left", va="baseline", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    title = style.plain(board.title, 4.0, style.TITLE_POINTS)
    reference = style.plain(speedups.reference, 3.0, style.TITLE_POINTS)
    figure.suptitle(f"{title}\nspeed-up over {reference}", fontsize=style.TITLE_POINTS)
    _colour_bar(figure, axes, _span(values))
    style.small_print(
        figure,
        "≤: the submission missed the target, its time is at least what a miss counts as. "
        "≥: the reference did.",
        "The mean takes these at their bounds and leaves out hatched cells.",
    )
    return figure


def why_unknown(analysis: Analysis, index: int, column: int) -> str:
    """Return the label of a cell of the heat map whose speed-up is not a number.

    Args:
        analysis: The leaderboard and its statistics.
        index: The row of the submission, from 0 for the best.
        column: The index of the base workload; one past the last is the geometric mean.
    """
    board = analysis.board
    if column == len(board.benchmark.base_workloads):
        return "none"
    name = board.benchmark.base_workloads[column]
    own = board.rows[index].cells.get(name)
    other = board.rows[board.labels.index(analysis.speedups.reference)].cells.get(name)
    reached = [cell is not None and np.isfinite(cell.median_time_s) for cell in (own, other)]
    return "not\nknown" if any(reached) else "missed\nby both"


def _span(values: Floats) -> float:
    """Return how many powers of two the colours reach on each side of 1."""
    with np.errstate(divide="ignore"):
        logs = np.abs(np.log2(values[~np.isnan(values)]))
    return float(np.clip(logs.max(initial=0.0), LEAST_SPAN, MOST_SPAN))


def _cells(axes: "Axes", lefts: Floats, values: Floats, marks: list[list[str]]) -> None:
    """Draw coloured cells with their speed-ups as text."""
    span = _span(values)
    with np.errstate(divide="ignore"):
        logs = np.clip(np.log2(values), -span, span)
    edges = np.arange(len(values) + 1)
    workloads = len(lefts) - 1
    for columns in (slice(0, workloads), slice(workloads, None)):
        if lefts[columns].size:
            mesh = axes.pcolormesh(
                [*lefts[columns], lefts[columns][-1] + 1],
                edges,
                np.ma.masked_invalid(logs[:, columns]),
                cmap="PuOr",
                vmin=-span,
                vmax=span,
                edgecolors="white",
                linewidth=1.5,
            )
    for index, column in np.argwhere(~np.isnan(values)).tolist():
        axes.text(
            lefts[column] + 0.5,
            index + 0.5,
            number(values[index, column], marks[index][column]),
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold" if column == workloads else "normal",
            color=ink(mesh.to_rgba(logs[index, column])),
        )


def ink(rgba: Iterable[float]) -> str:
    """Return 'black' or 'white', whichever has the higher contrast (WCAG 2) on a background colour.

    Args:
        rgba: Red, green and blue in [0, 1]; further numbers are ignored.
    """
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in list(rgba)[:3]
    )
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def number(value: float, mark: str) -> str:
    """Return a speed-up with its censoring mark as text, such as '≤0.25'.

    Args:
        value: The speed-up.
        mark: '<=', '>=' or '' (see `scoring.analysis.speedup.Speedups`).
    """
    sign = {"<=": "≤", ">=": "≥"}.get(mark, "")
    if value < 0.095:
        return f"{sign}{value:#.2g}"
    return f"{sign}{value:.2f}" if value < 99.995 else f"{sign}{value:.3g}"


def _hatched(axes: "Axes", left: float, index: int, why: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (left + 0.012, index + 0.022),
            0.976,
            0.956,
            facecolor="#EBEBEB",
            edgecolor="#BDBDBD",
            hatch="///",
            linewidth=0,
        )
    )
    axes.text(
        left + 0.5,
        index + 0.5,
        why,
        ha="center",
        va="center",
        fontsize=7,
        color="#333333",
        bbox={"facecolor": "#EBEBEB", "edgecolor": "none", "pad": 1.0},
    )


def _colour_bar(figure: "Figure", axes: "Axes", span: float) -> None:
    powers = np.arange(-np.floor(span), np.floor(span) + 1).tolist()
    bar = figure.colorbar(
        axes.collections[0], ax=axes, location="bottom", shrink=0.6, aspect=35, pad=0.03
    )
    # As decimal fractions they would touch each other.
    labels = [f"{2**power:g}" if power >= 0 else f"1/{2**-power:g}" for power in powers]
    bar.set_ticks(powers, labels=labels)
    bar.outline.set_visible(False)
    bar.set_label("times as fast as the reference (log scale)", fontsize=9)

"""The plots of a comparison: quality against cost, and the curves of all rows.

They are drawn in the style of the leaderboard's plots (`scoring.output.plot_style`). Each row has
a colour, and the second framework is dashed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algoperf.experiments.compare import agreement
from algoperf.experiments.compare.document import Comparison, Row, Spread
from algoperf.experiments.compare.measures import CLOCK, Trial
from scoring.output import palette, plot_curves
from scoring.output import plot_style as style
from scoring.reading.trials import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_IN = (4.9, 3.6)
MARKERS = "osD^v"
MIB = 2**20
# An axis is logarithmic if its largest value is more than this many times its smallest.
LOG_FROM = 20.0


def write(comparison: Comparison, out: Path) -> list[Path]:
    """Write the plots `quality_cost` and `curves` as PNG and SVG files.

    Args:
        comparison: The comparison.
        out: The folder.

    Returns:
        The files; none where no trial has ended.
    """
    if not any(row.trials for row in comparison.rows):
        return []
    with style.context():
        paths = style.save(quality_cost(comparison), out / "quality_cost")
        return paths + style.save(curves(comparison), out / "curves")


def looks(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the colour, dashes and marker of each row, as arguments of matplotlib.

    The frameworks of one technique or batch size share its colour, unless the rows differ in
    nothing but the framework.
    """
    groups = [(row.arm.technique, row.arm.batch_size) for row in comparison.rows]
    order = list(dict.fromkeys(groups))
    frameworks = list(dict.fromkeys(row.arm.framework for row in comparison.rows))
    styles = []
    for row, key in zip(comparison.rows, groups, strict=True):
        side = frameworks.index(row.arm.framework)
        colour = palette.colour(side if len(order) == 1 else order.index(key))
        dashes = palette.dashes(side)
        styles.append(
            {
                "color": colour,
                "linestyle": (0, dashes) if dashes else "solid",
                "marker": MARKERS[side % len(MARKERS)],
                # A wide line lies under a narrow one, so that curves that coincide are both seen.
                "linewidth": 1.3 if side else 3.2 if len(frameworks) > 1 else 1.6,
                "alpha": 0.95 if side or len(frameworks) == 1 else 0.5,
            }
        )
    return styles


def quality_cost(comparison: Comparison) -> "Figure":
    """Plot the last value of the metric against time and against memory.

    Each row is a point, with the ranges over its trials.
    """
    has_device = all(
        row.spreads["peak_device_bytes"] is not None for row in comparison.rows if row.trials
    )
    memory = "peak_device_bytes" if has_device else "peak_process_bytes"
    costs = {
        "submission_s": ("training time (s)", 1.0),
        memory: (f"peak memory of the {'device' if has_device else 'process'} (MiB)", 1 / MIB),
    }
    figure, panels = _figure(comparison, len(costs), "quality against cost")
    for axes, (measure, (label, factor)) in zip(panels, costs.items(), strict=True):
        _scatter(axes, comparison, measure, factor)
        axes.set_xlabel(label)
        axes.set_ylabel(f"validation {_metric(comparison)}")
    _legend(figure, comparison, points=True)
    several = any(len(row.trials) > 1 for row in comparison.rows)
    bars = "Points are medians over the trials, bars their ranges." if several else ""
    style.small_print(figure, _small_print(comparison), bars)
    return figure


def _scatter(axes: "Axes", comparison: Comparison, measure: str, factor: float) -> None:
    costs: list[float] = []
    qualities: list[float] = []
    for row, look in zip(comparison.rows, looks(comparison), strict=True):
        cost, quality = row.spreads[measure], row.spreads["metric"]
        if cost is None or quality is None:
            continue
        costs += [end * factor for end in (cost.low, cost.high)]
        qualities += [quality.low, quality.high]
        axes.errorbar(
            cost.median * factor,
            quality.median,
            xerr=_ends(cost, factor),
            yerr=_ends(quality, 1.0),
            fmt=look["marker"],
            color=look["color"],
            markersize=8,
            markeredgecolor="white",
            elinewidth=1.0,
            zorder=3,
        )
    _target(axes, comparison)
    if costs and min(costs) > 0 and max(costs) / min(costs) > LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    elif costs:
        axes.set_xlim(0.0, 1.1 * max(costs))
    if qualities:
        goals = [] if comparison.goal.validation is None else [comparison.goal.validation]
        low, high = min(qualities + goals), max(qualities + goals)
        margin = max(0.1 * (high - low), 0.01 * abs(high))
        axes.set_ylim(low - margin, high + margin)
    style.tidy(axes)


def _ends(spread: Spread, factor: float) -> list[list[float]]:
    return [
        [(spread.median - spread.low) * factor],
        [(spread.high - spread.median) * factor],
    ]


def curves(comparison: Comparison) -> "Figure":
    """Plot the curves of all rows.

    Three panels show the training loss and the metric by step, and the metric by time. The fourth
    shows the relative difference between the training losses of two frameworks; where there is only
    one, it shows the validation loss.
    """
    metric = _metric(comparison)
    column = f"validation/{comparison.goal.metric}"
    panels: list[tuple[str, str, Callable[[Trial], Mapping[Any, float]]]] = [
        ("step", "training loss", lambda trial: agreement.curve(trial.scalars, "loss")),
        ("step", f"validation {metric}", lambda trial: agreement.curve(trial.evaluations, column)),
        ("training time (s)", f"validation {metric}", lambda trial: _by_time(trial, column)),
    ]
    pairs = comparison.pairs
    if not pairs:
        panels.append(("step", "validation loss", _validation_loss))
    figure, places = _figure(comparison, 4, "curves")
    for axes, (across, up, title) in zip(places, panels, strict=False):
        for row, look in zip(comparison.rows, looks(comparison), strict=True):
            _lines(axes, [title(trial) for trial in row.trials.values()], look)
        if up == f"validation {metric}":
            _target(axes, comparison)
            _show_the_better(axes, comparison)
        axes.set(xlabel=across, ylabel=up)
        style.tidy(axes)
    if pairs:
        _differences(places[-1], comparison, pairs)
    _legend(figure, comparison, points=False)
    style.small_print(figure, _small_print(comparison))
    return figure


def _show_the_better(axes: "Axes", comparison: Comparison) -> None:
    """Limit the axis to the range of the target and the last values.

    The values of the first steps may lie outside.
    """
    goal = comparison.goal
    values = [
        np.array([row[trial.metric] for row in trial.evaluations if trial.metric in row])
        for row in comparison.rows
        for trial in row.trials.values()
    ]
    finite = [each[np.isfinite(each)] for each in values]
    target = Target(goal.metric, goal.higher_is_better, goal.validation)
    axes.set_ylim(*plot_curves.limits(finite, target))


def _validation_loss(trial: Trial) -> dict[int, float]:
    return agreement.curve(trial.evaluations, "validation/loss")


def _by_time(trial: Trial, column: str) -> dict[float, float]:
    return {row[CLOCK]: row[column] for row in trial.evaluations if column in row}


def _lines(axes: "Axes", drawn: Sequence[Mapping[Any, float]], look: Mapping[str, Any]) -> None:
    for each in drawn:
        axes.plot(
            list(each),
            list(each.values()),
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=look["linewidth"] / (1 if len(drawn) == 1 else 1.6),
            alpha=look["alpha"],
            # A line of a single point would be invisible.
            marker="o" if len(each) == 1 else "none",
        )


def _differences(axes: "Axes", comparison: Comparison, pairs: Sequence[tuple[Row, Row]]) -> None:
    """Plot the relative difference of training losses.

    A difference of 0 is left out, since a logarithmic axis cannot show it.
    """
    look_of = dict(zip((row.arm for row in comparison.rows), looks(comparison), strict=True))
    for one, other in pairs:
        for number in one.trials.keys() & other.trials.keys():
            losses = (agreement.curve(row.trials[number].scalars, "loss") for row in (one, other))
            differing = agreement.relative_differences(*losses)
            shown = {step: each for step, each in differing.items() if 0 < each < math.inf}
            axes.plot(
                list(shown), list(shown.values()), ".-", color=look_of[one.arm]["color"], alpha=0.85
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.0e}")
    axes.set(xlabel="step", ylabel="relative difference of training loss")
    style.tidy(axes)


def _target(axes: "Axes", comparison: Comparison) -> None:
    if comparison.goal.validation is not None:
        axes.axhline(comparison.goal.validation, color="black", linewidth=0.8, zorder=1.5)


def _figure(comparison: Comparison, count: int, what: str) -> tuple["Figure", list["Axes"]]:
    columns = 2
    lines = count // columns
    labels = [style.plain(row.arm.label) for row in comparison.rows]
    width_in = PANEL_IN[0] * columns + 1.1 + max(1.0, style.widest(labels))
    figure = style.new_figure(width_in, PANEL_IN[1] * lines + 0.7)
    places = list(figure.subplots(lines, columns, squeeze=False).flatten())
    plan = comparison.plan
    title = f"{plan.definition.name}, {plan.scale}, {plan.data}: {what}"
    figure.suptitle(style.plain(title, 8.0, style.TITLE_POINTS), fontsize=style.TITLE_POINTS)
    return figure, places


def _metric(comparison: Comparison) -> str:
    return style.plain(comparison.goal.metric)


def _legend(figure: "Figure", comparison: Comparison, *, points: bool) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for row, look in zip(comparison.rows, looks(comparison), strict=True):
        kept = ("color", "marker") if points else ("color", "linestyle", "linewidth", "alpha")
        drawn: dict[str, Any] = {name: look[name] for name in kept}
        if points:
            drawn |= {"linestyle": "none", "markersize": 8, "markeredgecolor": "white"}
        label = style.plain(row.arm.label) + ("" if row.trials else " (no run yet)")
        handles.append(Line2D([], [], label=label, **drawn))
    if comparison.goal.validation is not None:
        label = f"target {comparison.goal.validation:g}"
        handles.append(Line2D([], [], label=label, color="black", linewidth=0.8))
    figure.legend(
        handles=handles,
        loc="outside right upper",
        frameon=False,
        handlelength=3.5,
        alignment="left",
    )


def _small_print(comparison: Comparison) -> str:
    machines = style.plain(" | ".join(comparison.machines), 6.0, style.SMALL_POINTS)
    return f"{comparison.plan.max_steps} steps; times of {machines}"

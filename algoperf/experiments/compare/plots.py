"""The plots of a comparison: quality against cost, the curves of all rows, and learning rates.

They are drawn in the style of the leaderboard's plots (`scoring.output.plot_style`). Each row has
a colour, and the second framework is dashed. Of several submissions at several learning rates,
quality and curves are those of each submission's best rate, and a third plot has all of them.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from algoperf.experiments.compare import agreement, document
from algoperf.experiments.compare.document import Comparison, Row, Spread
from algoperf.experiments.compare.measures import CLOCK, STEP, Rows, Trial
from algoperf.experiments.compare.request import setting_text
from scoring.output import palette, plot_curves
from scoring.output import plot_style as style
from scoring.reading.trials import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Mapping[int, tuple[float, float]]  # (abscissa, value) by step
Floats = NDArray[np.float64]

PANEL_IN = (4.9, 3.6)
BAND_ALPHA = 0.18
FAR = 4.0  # times the usual losses: such ones are left out
CLOSEST_TICKS = 0.14  # of an axis: nearer, labels of learning rates would overlap
SHIFT_IN = 0.045  # between bars that are side by side
APART = 0.05  # of a panel's height: between marks that are one above the other
BEYOND = 1e6  # the length of a bar without an end
LIGHTEST = 0.88  # of the colour map, whose end is too light for a line
VALIDATION_LOSS = "validation/loss"
MARKERS = "osD^v"
MIB = 2**20
# An axis is logarithmic if its largest value is more than this many times its smallest.
LOG_FROM = 20.0


def write(comparison: Comparison, out: Path) -> list[Path]:
    """Write the plots `quality_cost`, `curves` and `learning_rates` as PNG and SVG files.

    The last is there only if the comparison names two or more learning rates.

    Args:
        comparison: The comparison.
        out: The folder.

    Returns:
        The files; none where no trial has ended.
    """
    if not any(row.trials for row in comparison.rows):
        return []
    best = document.at_best_rates(comparison)
    with style.context():
        paths = style.save(quality_cost(best), out / "quality_cost")
        paths += style.save(curves(best), out / "curves")
        if len({row.arm.learning_rate for row in comparison.rows}) > 1:
            paths += style.save(learning_rates(comparison), out / "learning_rates")
    return paths


def looks(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the colour, dashes and marker of each row, as arguments of matplotlib.

    The frameworks of one technique, submission and so on share its colour, unless the rows differ
    in nothing but the framework. Dashes change with the framework, and where the colours repeat.
    The colours of one submission's learning rates are in the order of the rates.
    """
    groups = [tuple(row.arm.setting.items()) for row in comparison.rows]
    order = list(dict.fromkeys(groups))
    frameworks = list(dict.fromkeys(row.arm.framework for row in comparison.rows))
    shades = _shades(comparison)
    styles = []
    for row, key in zip(comparison.rows, groups, strict=True):
        side = frameworks.index(row.arm.framework)
        look = _look(side if len(order) == 1 else order.index(key), side, len(frameworks))
        shade = shades.get(row.arm.learning_rate)
        styles.append(look if shade is None else look | {"color": shade})
    return styles


def _look(index: int, side: int, frameworks: int) -> dict[str, Any]:
    """Return the arguments of matplotlib for one line.

    Args:
        index: The number of its colour.
        side: The number of its framework,
        frameworks: among so many.
    """
    dashes = palette.dashes(side + frameworks * (index // len(palette.COLOURS)))
    return {
        "color": palette.colour(index),
        "linestyle": (0, dashes) if dashes else "solid",
        "marker": MARKERS[side % len(MARKERS)],
        # A wide line lies under a narrow one, so that curves that coincide are both seen.
        "linewidth": 1.3 if side else 3.2 if frameworks > 1 else 1.6,
        "alpha": 0.95 if side or frameworks == 1 else 0.5,
    }


def _shades(comparison: Comparison) -> dict[float | None, Any]:
    """Return a colour for each learning rate of a single submission, darker the smaller it is.

    There is none where the rows differ by their submissions, or have no learning rates.
    """
    from matplotlib import colormaps

    submissions = {row.arm.submission for row in comparison.rows}
    rates = {row.arm.learning_rate for row in comparison.rows} - {None}
    if len(submissions) > 1 or len(rates) < 2:
        return {}
    ends = np.linspace(0.0, LIGHTEST, len(rates))
    return dict(zip(sorted(filter(None, rates)), colormaps["viridis"](ends), strict=True))


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
    _legend(figure, comparison, _row_labels(comparison), points=True)
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
    panels: list[tuple[str, str, Callable[[Trial], Curve]]] = [
        ("step", "training loss", lambda trial: by_step(trial.scalars, "loss")),
        ("step", f"validation {metric}", lambda trial: by_step(trial.evaluations, column)),
        ("training time (s)", f"validation {metric}", lambda trial: _by_time(trial, column)),
    ]
    pairs = comparison.pairs
    if not pairs:
        panels.append(
            ("step", "validation loss", lambda trial: by_step(trial.evaluations, VALIDATION_LOSS))
        )
    figure, places = _figure(comparison, 4, "curves")
    trials = [trial for row in comparison.rows for trial in row.trials.values()]
    for axes, (across, up, curve) in zip(places, panels, strict=False):
        for row, look in zip(comparison.rows, looks(comparison), strict=True):
            draw_row(axes, [curve(trial) for trial in row.trials.values()], look)
            _mark_ends(axes, [curve(trial) for trial in row.trials.values() if trial.broke], look)
        if up == f"validation {metric}":
            _target(axes, comparison)
            _show_the_better(axes, [_values(trial) for trial in trials], comparison)
        else:
            _show_the_bulk(axes, [y for trial in trials for _, y in curve(trial).values()])
        axes.set(xlabel=across, ylabel=up)
        style.tidy(axes)
    if pairs:
        _differences(places[-1], comparison, pairs)
    _legend(figure, comparison, _row_labels(comparison))
    sentences = []
    if any(len(row.trials) > 1 for row in comparison.rows):
        sentences.append("Lines are medians over the trials, bands reach from least to most.")
    if any(trial.broke for trial in trials):
        sentences.append("A cross is the end of a trial that diverged or failed.")
    style.small_print(figure, _small_print(comparison), " ".join(sentences))
    return figure


def _values(trial: Trial) -> list[float]:
    return [row[trial.metric] for row in trial.evaluations if trial.metric in row]


def _show_the_better(
    axes: "Axes", values: Sequence[Sequence[float]], comparison: Comparison
) -> None:
    """Limit the axis to the range of the target and the better values of the metric.

    The values of the first steps, for instance, may lie outside.

    Args:
        axes: The panel.
        values: The values that each of its lines shows.
        comparison: The comparison.
    """
    goal = comparison.goal
    arrays = [np.array(each, dtype=float) for each in values]
    finite = [each[np.isfinite(each)] for each in arrays]
    target = Target(goal.metric, goal.higher_is_better, goal.validation)
    axes.set_ylim(*plot_curves.limits(finite, target))


def _show_the_bulk(axes: "Axes", losses: Sequence[float]) -> None:
    """Leave losses out of the panel that are very much larger than nine tenths of them."""
    finite = np.array([each for each in losses if math.isfinite(each)])
    if len(finite):
        usual = float(np.quantile(finite, 0.9, method="lower"))
        if finite.max() > FAR * usual > 0:
            margin = 0.06 * (usual - finite.min())
            axes.set_ylim(finite.min() - margin, 1.3 * usual)


def by_step(rows: Rows, column: str) -> dict[int, tuple[float, float]]:
    """Return the values of a column by step, each with its step as abscissa."""
    return {step: (step, value) for step, value in agreement.curve(rows, column).items()}


def _by_time(trial: Trial, column: str) -> dict[int, tuple[float, float]]:
    """Return the values of a column by step, each with its submission time as abscissa."""
    rows = trial.evaluations
    return {int(row[STEP]): (row[CLOCK], row[column]) for row in rows if column in row}


def band(curves: Sequence[Curve]) -> "tuple[Floats, Floats, Floats, Floats]":
    """Return the abscissae, medians, least and largest values of the curves of several trials.

    At each step they are of those trials that have a finite value there; the abscissa is their
    median one.
    """
    points: dict[int, list[tuple[float, float]]] = {}
    for curve in curves:
        for step, (x, y) in curve.items():
            if math.isfinite(y):
                points.setdefault(step, []).append((x, y))
    columns = [np.array(points[step]).T for step in sorted(points)]
    return (
        np.array([np.median(x) for x, _ in columns]),
        np.array([np.median(y) for _, y in columns]),
        np.array([y.min() for _, y in columns]),
        np.array([y.max() for _, y in columns]),
    )


def draw_row(axes: "Axes", curves: Sequence[Curve], look: Mapping[str, Any]) -> None:
    """Draw the median of the curves of a row's trials, and a band from least to most."""
    x, median, low, high = band(curves)
    if not len(x):
        return
    if len(curves) > 1:
        axes.fill_between(x, low, high, color=look["color"], alpha=BAND_ALPHA, linewidth=0)
    axes.plot(
        x,
        median,
        **{name: look[name] for name in ("color", "linestyle", "linewidth", "alpha")},
        # A line of a single point would be invisible.
        marker="o" if len(x) == 1 else "none",
    )


def _mark_ends(axes: "Axes", curves: Sequence[Curve], look: Mapping[str, Any]) -> None:
    """Mark the last finite values of trials that diverged or failed."""
    for curve in curves:
        finite = [point for point in curve.values() if math.isfinite(point[1])]
        if finite:
            axes.plot(*finite[-1], marker="x", color=look["color"], linestyle="none")


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


def learning_rates(comparison: Comparison) -> "Figure":
    """Plot the last and the best value of the metric against the learning rate.

    Where there is a target, steps and time to it are plotted, too. Each submission and framework
    has a line through the medians over its trials, with bars for their ranges.
    """
    metric = _metric(comparison)
    panels = {"metric": f"last validation {metric}", "best": f"best validation {metric}"}
    if comparison.goal.validation is not None:
        panels |= {"steps_to_target": "steps to target", "time_to_target_s": "time to target (s)"}
    figure, places = _figure(comparison, len(panels), "learning rates")
    lines = _by_submission(comparison)
    for axes, (measure, title) in zip(places, panels.items(), strict=True):
        for number, (look, rows) in enumerate(lines.values()):
            _rate_line(axes, rows, measure, look, number - (len(lines) - 1) / 2)
        axes.set(xlabel="learning rate", ylabel=title)
        if measure in ("metric", "best"):
            _target(axes, comparison)
            ends = [row.spreads[measure] for row in comparison.rows]
            _show_the_better(axes, [[each.median] for each in ends if each], comparison)
        else:
            _mark_misses(axes, list(lines.values()), measure)
        _rate_axis(axes, comparison)
        style.tidy(axes)
    for number, (look, rows) in enumerate(lines.values()):
        broke = [row for row in rows if any(trial.broke for trial in row.trials.values())]
        _mark(places[0], broke, look, "x", 0.04 + APART * number)
    labels = {label: look for label, (look, _) in lines.items()}
    _legend(figure, comparison, labels)
    sentences = ["Lines are medians over the trials, bars their ranges."]
    if any(trial.broke for row in comparison.rows for trial in row.trials.values()):
        sentences.append("A cross at the bottom: a trial diverged or failed.")
    if len(panels) > 2 and any(row.reached < len(row.trials) for row in comparison.rows):
        sentences.append("A triangle at the top: the median trial missed the target.")
    style.small_print(figure, _small_print(comparison), " ".join(sentences))
    return figure


def _by_submission(comparison: Comparison) -> dict[str, tuple[dict[str, Any], list[Row]]]:
    """Return the look and the rows, by learning rate, of each submission in each framework."""
    submissions = list(dict.fromkeys(row.arm.submission for row in comparison.rows))
    frameworks = list(dict.fromkeys(row.arm.framework for row in comparison.rows))
    lines: dict[str, tuple[dict[str, Any], list[Row]]] = {}
    for row in sorted(comparison.rows, key=_rate):
        index = submissions.index(row.arm.submission)
        side = frameworks.index(row.arm.framework)
        look = _look(side if len(submissions) == 1 else index, side, len(frameworks))
        name = row.arm.submission or comparison.plan.submissions[0]
        lines.setdefault(f"{name} {row.arm.framework}", (look, []))[1].append(row)
    return lines


def _rate(row: Row) -> float:
    assert row.arm.learning_rate is not None
    return row.arm.learning_rate


def _rate_line(
    axes: "Axes", rows: Sequence[Row], measure: str, look: Mapping[str, Any], shift: float
) -> None:
    """Draw a line through the medians of the rows, with bars for their ranges.

    Args:
        axes: The panel.
        rows: The rows of one submission and framework, by learning rate.
        measure: The name of the measure.
        look: The line's look.
        shift: By how many widths of a bar it is moved to the right, as bars would overlap.
    """
    from matplotlib.transforms import ScaledTranslation

    known = [(_rate(row), row.spreads[measure]) for row in rows]
    shown = [(rate, each) for rate, each in known if each and math.isfinite(each.median)]
    if not shown:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    aside = ScaledTranslation(shift * SHIFT_IN, 0.0, figure.dpi_scale_trans)
    # A range that reaches a missed target has no end; its bar goes out of the panel.
    high = [each.high - each.median if math.isfinite(each.high) else BEYOND for _, each in shown]
    axes.errorbar(
        [rate for rate, _ in shown],
        [each.median for _, each in shown],
        yerr=[[each.median - each.low for _, each in shown], high],
        fmt=look["marker"],
        markersize=5,
        elinewidth=1.0,
        transform=axes.transData + aside,
        **{name: look[name] for name in ("color", "linestyle", "linewidth", "alpha")},
    )


def _mark_misses(
    axes: "Axes", lines: Sequence[tuple[Mapping[str, Any], Sequence[Row]]], measure: str
) -> None:
    """Limit the axis to the finite values, and mark the rows whose median trial missed."""
    spreads = [row.spreads[measure] for _, rows in lines for row in rows]
    ends = [end for each in spreads if each for end in (each.low, each.median, each.high)]
    finite = [end for end in ends if math.isfinite(end)]
    if finite:
        axes.set_ylim(0.0, max(finite) / (0.93 - APART * len(lines)))  # room for the marks
    else:
        axes.set_yticks([])
    for number, (look, rows) in enumerate(lines):
        missed = [row for row in rows if (each := row.spreads[measure]) and math.isinf(each.median)]
        _mark(axes, missed, look, "^", 0.97 - APART * number)


def _mark(
    axes: "Axes", rows: Sequence[Row], look: Mapping[str, Any], marker: str, height: float
) -> None:
    """Put a marker at the learning rate of each row, at a share of the panel's height."""
    if not rows:  # A line without points that is not clipped would take all the room there is.
        return
    axes.plot(
        [_rate(row) for row in rows],
        [height] * len(rows),
        transform=axes.get_xaxis_transform(),
        marker=marker,
        color=look["color"],
        markerfacecolor="white",
        linestyle="none",
        markersize=6,
        clip_on=False,
    )


def _rate_axis(axes: "Axes", comparison: Comparison) -> None:
    """Make the axis of learning rates logarithmic; where they are few, its ticks are the rates."""
    from matplotlib.ticker import LogLocator

    rates = sorted({_rate(row) for row in comparison.rows})
    axes.set_xscale("log")
    low, high = rates[0], rates[-1]
    margin = (high / low) ** 0.06
    axes.set_xlim(low / margin, high * margin)
    gaps = [math.log(after / before) for before, after in itertools.pairwise(rates)]
    if min(gaps) >= math.log(high / low) * CLOSEST_TICKS:
        axes.set_xticks(rates, list(map(setting_text, rates)))
    else:
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks([], minor=True)


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
    named = f", {plan.submissions[0]}" if len(plan.submissions) == 1 else ""
    title = f"{plan.definition.name}, {plan.scale}, {plan.data}{named}: {what}"
    figure.suptitle(style.plain(title, 8.0, style.TITLE_POINTS), fontsize=style.TITLE_POINTS)
    return figure, places


def _metric(comparison: Comparison) -> str:
    return style.plain(comparison.goal.metric)


def _row_labels(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the look of each row by its label in the legend."""
    return {
        row.arm.label + ("" if row.trials else " (no run yet)"): look
        for row, look in zip(comparison.rows, looks(comparison), strict=True)
    }


def _legend(
    figure: "Figure",
    comparison: Comparison,
    labels: Mapping[str, Mapping[str, Any]],
    *,
    points: bool = False,
) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for label, look in labels.items():
        kept = ("color", "marker") if points else ("color", "linestyle", "linewidth", "alpha")
        drawn: dict[str, Any] = {name: look[name] for name in kept}
        if points:
            drawn |= {"linestyle": "none", "markersize": 8, "markeredgecolor": "white"}
        handles.append(Line2D([], [], label=style.plain(label), **drawn))
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
    chosen = ""
    if len(comparison.rows) < len(comparison.plan.arms):
        chosen = "; each submission at the learning rate with its best last value"
    return f"{comparison.plan.max_steps} steps{chosen}; times of {machines}"

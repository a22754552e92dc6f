"""Plots of a leaderboard: performance profile and training curves, each as PNG and SVG.

Colours are Okabe and Ito's (Color Universal Design, 2008), safe for colour-blind readers, and line
styles differ as well. matplotlib is imported inside the functions and draws without a display.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoring import profiles
from scoring.evaluations import TIME_COLUMN
from scoring.leaderboard import Leaderboard
from scoring.pools import make_entries
from scoring.runs import Target, TrialRun
from scoring.time_to_target import time_to_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES: tuple[Any, ...] = ("solid", (0, (6, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
LINE_POINTS = 2.0
SPREAD_POINTS = 12.0  # of all lanes together, about 4 % of the height
PANELS_A_ROW = 3
GREY = "#666666"


def file_slugs(boards: Sequence[Leaderboard]) -> list[str]:
    """The name of each pool as part of a file name, numbered where two agree."""
    slugs: list[str] = []
    for board in boards:
        slug = re.sub(r"[^a-z0-9]+", "-", board.pool.name.lower()).strip("-")[:60]
        slugs.append(f"{slug}-{len(slugs)}" if slug in slugs else slug)
    return slugs


def write_plots(board: Leaderboard, out: Path, slug: str) -> list[Path]:
    """Write performance_profile_<slug> and training_curves_<slug> to `out`."""
    paths: list[Path] = []
    if board.targets:
        paths += _save(plot_profile(board), out / f"performance_profile_{slug}")
    figure = plot_curves(board)
    if figure is not None:
        paths += _save(figure, out / f"training_curves_{slug}")
    return paths


def _save(figure: "Figure", stem: Path) -> list[Path]:
    import matplotlib as mpl

    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    # Fixed salt and no date: equal scores give equal files.
    with mpl.rc_context({"svg.hashsalt": "algoperf", "svg.fonttype": "none"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _style(index: int, rounds_only: bool = False) -> dict[str, Any]:
    """Colour and dashes of an entry; with `rounds_only` dashes begin when colours repeat."""
    rounds = index // len(COLOURS)
    dashes = DASHES[(rounds if rounds_only else index) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes}


def dodge(shares_ST: NDArray[np.float64]) -> list[int]:
    """A lane for each profile, greedily, so that no two in one lane coincide over any stretch."""
    lanes: list[int] = []
    for index, shares in enumerate(shares_ST):
        rivals = {
            lanes[other] for other in range(index) if (shares_ST[other, :-1] == shares[:-1]).any()
        }
        lanes.append(next(lane for lane in range(index + 1) if lane not in rivals))
    return lanes


def plot_profile(board: Leaderboard) -> "Figure":
    """The performance profile of every entry; lines that would coincide are drawn side by side."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
    from matplotlib.transforms import ScaledTranslation

    taus = profiles.profile_taus(board.ratios)
    shares_ST = profiles.performance_profile(board.ratios, taus)
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    lanes = dodge(shares_ST)
    gap_points = min(1.2 * LINE_POINTS, SPREAD_POINTS / max(1, *lanes))
    for index, (row, shares, lane) in enumerate(zip(board.rows, shares_ST, lanes, strict=True)):
        points = (lane - max(lanes) / 2) * gap_points
        shift = ScaledTranslation(0, -points / 72, figure.dpi_scale_trans)
        axes.step(
            taus,
            shares,
            where="post",
            linewidth=min(LINE_POINTS, gap_points),
            transform=axes.transData + shift,
            label=f"{row.entry.label}  {row.score:.3f}",
            clip_on=False,
            **_style(index),
        )
    axes.set(xlim=(1, profiles.TAU_MAX), ylim=(-0.04, 1.04), title=board.title)
    axes.set_xlabel("τ: time to target / fastest time to target (ratio)")
    axes.set_ylabel("share of workloads within τ (%)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    _tidy(axes)
    figure.legend(
        title="submission  score", loc="outside right upper", frameon=False, handlelength=3.5
    )
    if max(lanes) > 0:
        axes.text(
            1,
            -0.2,
            "coinciding lines are drawn side by side",
            transform=axes.transAxes,
            **_small("right"),
        )
    return figure


def plot_curves(board: Leaderboard) -> "Figure | None":
    """Validation metric against submission time, a panel a workload; None if no metric is named."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown: dict[str, Target] = {
        run.workload: run.target for run in board.pool.runs if run.target is not None
    }
    if not shown:
        return None
    columns = min(PANELS_A_ROW, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(1.2 + 4.2 * columns, 1.2 + 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    runs_of = _runs_by_label(board)
    for axes, workload in zip(panels, sorted(shown), strict=False):
        _panel(axes, workload, shown[workload], list(runs_of.values()))
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], label=label, **_style(index, rounds_only=True))
        for index, label in enumerate(runs_of)
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=1, label="target"))
    handles.append(
        Line2D(
            [], [], color=GREY, marker="o", markersize=5, linestyle="none", label="target reached"
        )
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False
    )
    figure.suptitle(f"{board.title}: every trial")
    return figure


def _runs_by_label(board: Leaderboard) -> Mapping[str, Sequence[TrialRun]]:
    """The runs of each entry in the order of the leaderboard, hence of the profile's colours."""
    if board.rows:
        return {row.entry.label: row.entry.runs for row in board.rows}
    return {entry.label: entry.runs for entry in make_entries(board.pool.runs)}


def _panel(
    axes: "Axes", workload: str, target: Target, runs_of: Sequence[Sequence[TrialRun]]
) -> None:
    values = []
    for index, runs in enumerate(runs_of):
        for run in runs:
            if run.workload != workload or not {TIME_COLUMN, target.column} <= run.rows.keys():
                continue
            time_s, value = run.rows[TIME_COLUMN], run.rows[target.column]
            axes.plot(time_s, value, linewidth=0.9, alpha=0.8, **_style(index, rounds_only=True))
            values.append(value[np.isfinite(value)])
            crossing = time_to_target(run.rows, target, run.budget_s)
            if crossing.evaluation is not None:
                axes.plot(
                    crossing.time_s,
                    value[crossing.evaluation],
                    "o",
                    markersize=4,
                    color=COLOURS[index % len(COLOURS)],
                )
    if target.validation is not None:
        axes.axhline(target.validation, color=GREY, linewidth=1, zorder=0)
    axes.set_ylim(*_limits(values, target))
    sign = "≥" if target.higher_is_better else "≤"
    goal = "no target" if target.validation is None else f"target {sign} {target.validation:g}"
    axes.set_title(f"{workload}: {goal}", fontsize="medium")
    axes.set_xlabel("submission time (s)")
    axes.set_ylabel(f"validation {target.metric}")
    _tidy(axes)


def _limits(values: Sequence[NDArray[np.float64]], target: Target) -> tuple[float, float]:
    """Limits that show the target and the better nine tenths of the values; the rest run out."""
    known = np.concatenate([*values, [] if target.validation is None else [target.validation]])
    if not len(known):
        return 0.0, 1.0
    goal = known[-1]
    low = min(goal, float(np.quantile(known, 0.1 if target.higher_is_better else 0.0)))
    high = max(goal, float(np.quantile(known, 1.0 if target.higher_is_better else 0.9)))
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _small(align: str) -> dict[str, Any]:
    return {"fontsize": 8, "color": GREY, "ha": align}


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)

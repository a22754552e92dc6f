"""The plot of a leaderboard's performance profiles, with bands.

Legend: S submissions, T values of tau.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scoring.analysis.analysis import BAND_TAUS, Analysis
from scoring.output import plot_style as style
from scoring.rules import profiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_POINTS, LEAST_POINTS = 2.0, 1.0
SPREAD_POINTS = 12.0  # All lanes together have this width, about 4 % of the height.
BAND_ALPHA = 0.13


def dodge(shares_ST: NDArray[np.float64]) -> list[int]:
    """Assign a lane to each profile so that profiles in one lane do not coincide over any stretch.

    Lines that coincide can then be drawn side by side. The assignment is greedy.

    Args:
        shares_ST: Array (S submissions, T values of tau) of shares of workloads.

    Returns:
        The number of each profile's lane, from 0.
    """
    lanes: list[int] = []
    for index, shares in enumerate(shares_ST):
        rivals = {
            lanes[other] for other in range(index) if (shares_ST[other, :-1] == shares[:-1]).any()
        }
        lanes.append(next(lane for lane in range(index + 1) if lane not in rivals))
    return lanes


def plot_profile(analysis: Analysis) -> "Figure":
    """Plot the performance profile of each submission, with its 95 % band where it is estimable.

    Lines that would coincide are drawn side by side.
    """
    from matplotlib.ticker import PercentFormatter

    board = analysis.board
    labels = [f"{style.plain(row.entry.label)}  {row.score:.3f}" for row in board.rows]
    height_in = max(4.6, 1.4 + 0.22 * len(labels))
    figure = style.new_figure(6.6 + style.widest(labels), height_in)
    axes = figure.subplots()
    lanes = _draw_lines(axes, analysis, labels)
    has_bands = _draw_bands(axes, analysis)
    axes.set(xlim=(1, profiles.TAU_MAX), ylim=(-0.04, 1.04))
    axes.set_title(style.plain(board.title, 5.0, style.TITLE_POINTS))
    axes.set_xlabel("τ: time to target / fastest time to target (ratio)")
    axes.set_ylabel("share of workloads within τ (%)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    style.tidy(axes)
    figure.legend(
        # Without handles, matplotlib leaves out labels with a leading underscore.
        handles=axes.lines,
        title="submission  score",
        loc="outside right upper",
        frameon=False,
        handlelength=3.5,
        alignment="left",
    )
    style.small_print(
        figure,
        "Bands: at each τ, where the profile lies in 95 % of fresh competitions with "
        f"{studies_told(analysis)}."
        if has_bands
        else f"No bands: {style.plain(analysis.studies.not_estimable, 5.0, style.SMALL_POINTS)}.",
        "Coinciding lines are drawn side by side." if max(lanes, default=0) > 0 else "",
    )
    return figure


def studies_told(analysis: Analysis) -> str:
    """Return the number of studies per workload as text: '3 studies' or '2 to 3 studies'."""
    counts_SW = (~np.isnan(analysis.board.times_SWN)).sum(axis=-1)
    counts_W = counts_SW.max(axis=0, initial=0)
    few, many = counts_W.min(initial=counts_W.max(initial=0)), counts_W.max(initial=0)
    return (
        f"{many} stud{'y' if many == 1 else 'ies'}" if few == many else f"{few} to {many} studies"
    )


def _draw_lines(axes: "Axes", analysis: Analysis, labels: list[str]) -> list[int]:
    """Draw the profiles, and return the lane of each."""
    from matplotlib.transforms import ScaledTranslation

    board = analysis.board
    taus_T = profiles.profile_taus(board.ratios)
    shares_ST = profiles.performance_profile(board.ratios, taus_T)
    lanes = dodge(shares_ST)
    gap_points = min(1.2 * LINE_POINTS, SPREAD_POINTS / max(1, *lanes))
    for index, (label, shares, lane) in enumerate(zip(labels, shares_ST, lanes, strict=True)):
        points = (lane - max(lanes) / 2) * gap_points
        shift = ScaledTranslation(0, -points / 72, axes.figure.dpi_scale_trans)
        axes.step(
            taus_T,
            shares,
            where="post",
            linewidth=max(LEAST_POINTS, min(LINE_POINTS, gap_points)),
            transform=axes.transData + shift,
            label=label,
            clip_on=False,
            zorder=3,
            **style.line(index),
        )
    return lanes


def _draw_bands(axes: "Axes", analysis: Analysis) -> bool:
    """Draw the bands that are estimable, and return whether there are any."""
    known_S = ~np.isnan(analysis.band_TS2).any(axis=(0, 2))
    for index in np.flatnonzero(known_S).tolist():
        low_T, high_T = analysis.band_TS2[:, index].T
        axes.fill_between(
            BAND_TAUS,
            low_T,
            high_T,
            step="post",
            alpha=BAND_ALPHA,
            linewidth=0,
            color=style.line(index)["color"],
        )
    return bool(known_S.any())

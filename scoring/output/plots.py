"""The plots of a leaderboard, each as PNG and SVG.

Colour-blind readers can tell the colours apart, and line styles differ as well
(`scoring.output.palette`). matplotlib is imported inside the functions, draws without a display,
and keeps its own settings.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from scoring.analysis.analysis import Analysis
from scoring.analysis.leaderboard import Leaderboard
from scoring.output import plot_style as style
from scoring.output.plot_curves import plot_curves
from scoring.output.plot_profile import plot_profile
from scoring.output.plot_submissions import plot_ranks, plot_speedups


def file_slugs(boards: Sequence[Leaderboard]) -> list[str]:
    """Return the name of each pool in a form fit for file names.

    Names that would be equal are numbered.
    """
    slugs: list[str] = []
    for board in boards:
        slug = re.sub(r"[^a-z0-9]+", "-", board.pool.name.lower())[:60].strip("-") or "pool"
        numbered = (f"{slug}-{number}" for number in range(1, len(boards) + 1))
        slugs.append(slug if slug not in slugs else next(n for n in numbered if n not in slugs))
    return slugs


def write_plots(analysis: Analysis, out: Path, slug: str) -> list[Path]:
    """Write the plots of an analysis as <plot>_<slug>.png and .svg, and return their paths.

    The plots performance_profile, rank_intervals and speedups need a workload that is scored;
    training_curves needs a run that names its metric.

    Args:
        analysis: The leaderboard and its statistics.
        out: The folder to write to.
        slug: The name of the pool as in `file_slugs`.
    """
    paths: list[Path] = []
    if analysis.board.targets:
        with style.context():
            paths += style.save(plot_profile(analysis), out / f"performance_profile_{slug}")
            paths += style.save(plot_ranks(analysis), out / f"rank_intervals_{slug}")
            paths += style.save(plot_speedups(analysis), out / f"speedups_{slug}")
    return paths + write_curves(analysis.board, out, slug)


def write_curves(board: Leaderboard, out: Path, slug: str) -> list[Path]:
    """Write the plot training_curves_<slug>, and return its paths.

    There is no plot, and no path, where no run names its metric. Where no workload is scored, this
    is all that there is to draw.
    """
    with style.context():
        figure = plot_curves(board)
        return [] if figure is None else style.save(figure, out / f"training_curves_{slug}")

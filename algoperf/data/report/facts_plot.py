"""Histograms of the rows' lengths, and the balance of their labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algoperf.data.report.facts import Ints, Rows, word_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by every kind of sight.
COLOURS = {"train": "#0072B2", "validation": "#D55E00", "test": "#009E73"}
BINS = 40
WIDEST_SHARE = 99.5  # per cent of the rows inside the axis; longer ones stand in its last bin
PANEL_IN = (4.6, 3.0)
Series = Mapping[str, Ints]  # lengths by split


def plot(facts: Mapping[str, Any], rows: Mapping[str, Rows], path: Path) -> None:
    """Write a picture with a panel for the words and the tokens of each field, and the labels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = _panels(rows)
    count = len(panels) + ("labels" in facts)
    columns = min(count, 2)
    lines = -(-count // columns)
    with rc_context({"font.family": "DejaVu Sans", "text.parse_math": False}):
        figure = Figure(
            figsize=(PANEL_IN[0] * columns, PANEL_IN[1] * lines + 0.4), layout="constrained"
        )
        axes = figure.subplots(lines, columns, squeeze=False).flatten()
        for panel, (title, series) in zip(axes, panels.items(), strict=False):
            _draw_lengths(panel, title, series)
        if "labels" in facts:
            _draw_labels(axes[len(panels)], facts)
        for panel in axes[count:]:
            panel.set_visible(False)
        figure.suptitle(
            f"{facts['workload']} at {facts['scale']}, {facts['data']}, {facts['fingerprint']}",
            fontsize=10,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, metadata={"Software": None})


def _panels(rows: Mapping[str, Rows]) -> dict[str, Series]:
    panels: dict[str, Series] = {}
    for field in next(iter(rows.values())).texts:
        panels[f"{field}: words"] = {
            split: word_counts(part.texts[field]) for split, part in rows.items()
        }
        tokens = {split: part.tokens[field] for split, part in rows.items()}
        counted = {split: values for split, values in tokens.items() if values is not None}
        if counted:
            panels[f"{field}: tokens as the model gets them"] = counted
    return panels


def bins(series: Series) -> np.ndarray:
    """Edges at halves between whole lengths, the same for all splits; at most `BINS` bins."""
    lengths = np.concatenate(list(series.values()))
    longest = int(np.ceil(np.percentile(lengths, WIDEST_SHARE))) if len(lengths) else 0
    step = max(1, -(-(longest + 1) // BINS))
    return np.arange(0, longest + 1 + step, step) - 0.5


def shares(lengths: Ints, edges: np.ndarray) -> np.ndarray:
    """The share of rows in each bin; longer rows are in the last one."""
    inside = np.minimum(lengths, edges[-1])
    return np.histogram(inside, edges)[0] / max(len(lengths), 1)


def _draw_lengths(axes: "Axes", title: str, series: Series) -> None:
    edges = bins(series)
    for split, lengths in series.items():
        axes.stairs(100 * shares(lengths, edges), edges, color=COLOURS[split], label=split)
    axes.set(title=title, ylabel="rows (%)", xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    _tidy(axes)


def _draw_labels(axes: "Axes", facts: Mapping[str, Any]) -> None:
    splits = facts["labels"]
    names = sorted({name for each in splits.values() for name in each["rows"]}, key=int)
    width = 0.8 / len(splits)
    for index, (split, each) in enumerate(splits.items()):
        heights = [100 * each["rows"].get(name, 0) / max(facts["rows"][split], 1) for name in names]
        places = np.arange(len(names)) + (index - (len(splits) - 1) / 2) * width
        axes.bar(places, heights, width, color=COLOURS[split], label=split)
    axes.set(title="labels", ylabel="rows (%)")
    axes.set_xticks(np.arange(len(names)), names)
    _tidy(axes)


def _tidy(axes: "Axes") -> None:
    axes.title.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)

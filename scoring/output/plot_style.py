"""The common style of all plots: settings of matplotlib, lines, and text that can always be drawn.

Names in a plot come from folders that nobody has checked. `plain` makes any of them drawable: no
mathematics in dollar signs, no glyph that the font lacks, no name wider than the room for it.
"""

import bisect
import functools
import unicodedata
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.output import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

FONT = "DejaVu Sans"  # It comes with matplotlib, so every machine draws the same.
SETTINGS: dict[Any, Any] = {
    "font.family": FONT,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",  # Text stays text, which makes files small and searchable.
    "svg.hashsalt": "algoperf",
    "hatch.linewidth": 0.6,
}
DPI = 150
COMPRESS_LEVEL = 1  # A PNG is a tenth larger than at 6, for two thirds of the time.
PAD_IN = 0.07
WIDEST_IN = 2.6  # A name at LABEL_POINTS is at most this wide.
TITLE_POINTS, LABEL_POINTS, SMALL_POINTS = 12.0, 10.0, 8.0
CUT_AT = 200  # Of a longer name, only this many characters at its ends are looked at.


def context() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has its defaults and SETTINGS, not the user's."""
    import matplotlib as mpl

    defaults: dict[Any, Any] = {
        name: value
        for name, value in dict.items(mpl.rcParamsDefault)
        if not name.startswith("backend")
    }
    return mpl.rc_context(defaults | SETTINGS)


def new_figure(width_in: float, height_in: float, *, makes_room: bool = True) -> "Figure":
    """Return a figure.

    Args:
        width_in: Its width in inches.
        height_in: Its height in inches.
        makes_room: Whether it makes room for its labels and its legend itself. It measures every
            tick of every panel twice for that.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=PAD_IN, w_pad=PAD_IN) if makes_room else None
    return Figure(figsize=(width_in, height_in), layout=layout)


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write `figure` as <stem>.png and <stem>.svg, and return their paths.

    Equal figures give equal files.
    """
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    engine = figure.get_layout_engine()
    if engine is not None:
        # The layout is computed once, not again for each file, and a figure that has an engine, be
        # it "none", is drawn twice for each.
        engine.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(paths[0], dpi=DPI, pil_kwargs={"compress_level": COMPRESS_LEVEL})
    figure.savefig(paths[1], metadata={"Date": None})
    return paths


def plain(text: str, widest_in: float = WIDEST_IN, points: float = LABEL_POINTS) -> str:
    """Return a text in a form that can be drawn and is not too wide.

    Args:
        text: Any text. Characters without a glyph are replaced by their escapes.
        widest_in: The widest that the text may be, in inches; the middle of a longer text is
            replaced by '…'.
        points: The size of the font in points.
    """
    composed = unicodedata.normalize("NFC", _cut(text, CUT_AT))
    text = "".join(
        character if _drawable(character) else character.encode("unicode_escape").decode("ascii")
        for character in composed
    )
    if inches(text, points) <= widest_in:
        return text
    kept = bisect.bisect_right(
        range(len(text)), widest_in, key=lambda count: inches(_cut(text, count), points)
    )
    return _cut(text, max(1, kept - 1))


def inches(text: str, points: float = LABEL_POINTS) -> float:
    """Return the width of a line of text in inches; `points` is the size of the font."""
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, _font(points), ismath=False)
    return float(width) / 72


def widest(texts: Sequence[str], points: float = LABEL_POINTS) -> float:
    """Return the width in inches of the widest of some lines of text, 0 if there are none."""
    return max((inches(text, points) for text in texts), default=0.0)


def _cut(text: str, count: int) -> str:
    """Return at most `count` characters of a text, from its ends, with an ellipsis between."""
    if len(text) <= count:
        return text
    tail = count // 3
    return f"{text[: count - tail]}…{text[len(text) - tail :]}"


def _drawable(character: str) -> bool:
    """Return whether a character can be drawn, with a glyph of its own.

    Combining marks, which pile up on another character, have none.
    """
    is_mark = unicodedata.category(character) in ("Mn", "Me")
    return character.isprintable() and not is_mark and ord(character) in _glyphs()


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the characters that the font can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_font(LABEL_POINTS))).get_charmap())


@functools.cache
def _font(points: float) -> "FontProperties":
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=FONT, size=points)


def line(index: int, *, rounds_only: bool = False) -> dict[str, Any]:
    """Return the colour and dashes of a submission as keyword arguments of matplotlib's lines.

    Args:
        index: The submission's row on the leaderboard, from 0 for the best.
        rounds_only: Whether dashes change only when the colours repeat.
    """
    dashes = palette.dashes(index, rounds_only=rounds_only)
    return {
        "color": palette.colour(index),
        "linestyle": (0, dashes) if dashes else "solid",
    }


def small_print(figure: "Figure", *sentences: str) -> None:
    """Put explanatory sentences below everything else in a figure, a line each; '' is left out."""
    text = "\n".join(sentence for sentence in sentences if sentence)
    if text:
        figure.supxlabel(
            text, x=0.01, ha="left", multialignment="left", fontsize=SMALL_POINTS, color="#444444"
        )


def tidy(axes: "Axes") -> None:
    """Remove the frame at the top and at the right, and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)

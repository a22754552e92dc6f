"""Inline SVG: escaped elements, scales with ticks, and thinned lines with short coordinates.

A chart is an outer <svg> with a grid of ticks. In it lies a plot, an inner <svg> whose own
coordinates are tenths of the outer one's. The page zooms by changing the plot's viewBox, and
redraws the ticks from the data ranges that stand on the outer element (page.js reads what this
module writes).

Legend: N points of a line.
"""

import dataclasses
import html
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNITS = 10  # One unit of a chart equals this many units of the plot inside it.
TOLERANCE = 3.0  # A thinned line differs from the whole line by at most this many plot units.


class Markup(str):
    """Text that is already markup, and that Jinja2 and `element` therefore do not escape."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return one SVG or HTML element.

    Args:
        tag: The name of the element.
        *children: Its contents; everything that is not Markup is escaped.
        **attributes: Its attributes. Underscores in names stand for hyphens, except at the ends,
            where they are dropped; None leaves the attribute out.
    """
    text = "".join(
        f' {name.strip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(
        child if isinstance(child, Markup) else html.escape(child) for child in children
    )
    return Markup(f"<{tag}{text}>{inner}</{tag}>" if inner else f"<{tag}{text}/>")


@dataclasses.dataclass(frozen=True)
class Frame:
    """The position of a plot in its chart, and the ranges of data that it shows.

    Attributes:
        x: The lowest and highest value of the horizontal axis.
        y: The lowest and highest value of the vertical axis.
        left: The left edge of the plot, in units of the chart.
        top: The top edge.
        width: The width of the plot.
        height: The height of the plot.
        is_log: Whether values on the vertical axis are logarithms to base 10 of what it says.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    top: float
    width: float
    height: float
    is_log: bool = False

    def place(self, x_N: Floats, y_N: Floats) -> Ints:
        """Return the plot coordinates of data points.

        Args:
            x_N: Array (N points,) of values on the horizontal axis.
            y_N: Array (N,) of values on the vertical axis.

        Returns:
            Integer array (N, 2). A point far outside is held at one plot size from the edge.
        """
        wide, high = self.width * UNITS, self.height * UNITS
        across = wide * (x_N - self.x[0]) / (self.x[1] - self.x[0])
        down = high * (self.y[1] - y_N) / (self.y[1] - self.y[0])
        placed = np.stack([np.clip(across, -wide, 2 * wide), np.clip(down, -high, 2 * high)], -1)
        return np.rint(placed).astype(np.int64)

    def grid(self) -> Markup:
        """Return the grid lines and labels of both axes."""
        right, bottom = self.left + self.width, self.top + self.height
        parts = []
        for value, text in ticks(*self.x, self.width / 75):
            at = self.left + self.width * (value - self.x[0]) / (self.x[1] - self.x[0])
            parts.append(element("path", d=f"M{at:.1f} {self.top:g}V{bottom:g}"))
            parts.append(
                element("text", text, x=f"{at:.1f}", y=f"{bottom:g}", dy="1.3em", class_="tx")
            )
        for value, text in ticks(*self.y, self.height / 45):
            at = self.top + self.height * (self.y[1] - value) / (self.y[1] - self.y[0])
            parts.append(element("path", d=f"M{self.left:g} {at:.1f}H{right:g}"))
            parts.append(
                element(
                    "text",
                    power(value) if self.is_log else text,
                    x=f"{self.left:g}",
                    y=f"{at:.1f}",
                    dx="-.5em",
                    dy=".35em",
                    class_="ty",
                )
            )
        return element("g", *parts, class_="grid")

    def chart(self, plot: Sequence[str], size: tuple[float, float], **facts: object) -> Markup:
        """Return the whole chart.

        Args:
            plot: The elements to draw in the plot.
            size: Width and height of the chart.
            **facts: Further attributes of the outer element.
        """
        inner = element(
            "svg",
            element("rect", class_="ground", width=f"{self.width * UNITS:g}", height="100%"),
            *plot,
            class_="plot",
            x=f"{self.left:g}",
            y=f"{self.top:g}",
            width=f"{self.width:g}",
            height=f"{self.height:g}",
            viewBox=f"0 0 {self.width * UNITS:g} {self.height * UNITS:g}",
            preserveAspectRatio="none",
        )
        return element(
            "svg",
            self.grid(),
            inner,
            class_="chart",
            viewBox=f"0 0 {size[0]:g} {size[1]:g}",
            role="img",
            data_x=f"{self.x[0]:.12g} {self.x[1]:.12g}",
            data_y=f"{self.y[0]:.12g} {self.y[1]:.12g}",
            data_log=1 if self.is_log else None,
            **facts,
        )


def ticks(low: float, high: float, most: float) -> Iterator[tuple[float, str]]:
    """Yield round values from `low` to `high`, about `most` of them, each with its label."""
    rough = (high - low) / max(1.0, most)
    power = math.floor(math.log10(rough))
    step = next(m for m in (1, 2, 5, 10) if m * 10.0**power >= 0.999 * rough) * 10.0**power
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    large = max(abs(low), abs(high)) >= 1e6
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        value = index * step
        text = f"{value:.2e}" if large or decimals > 6 else f"{value:.{decimals}f}"
        yield value, text.replace("-", "\N{MINUS SIGN}")


def power(logarithm: float) -> str:
    """Return ten to a power as text with two significant digits and an exponent; as page.js."""
    mantissa, exponent = f"{10.0**logarithm:.1e}".split("e")
    text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return text.replace("-", "\N{MINUS SIGN}")


def line(points: Ints) -> str:
    """Return the `d` attribute of a path through points: an absolute start, then relative steps.

    Args:
        points: Integer array (N, 2) of plot coordinates.
    """
    (x, y), steps = points[0], np.diff(points, axis=0)
    text = "".join(f" {dx} {dy}" for dx, dy in steps.tolist())
    return f"M{x} {y}" + ("l" + text[1:] if text else "h0").replace(" -", "-")


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """The points of a line in the units of the data.

    Attributes:
        x_N: Array (N points,) of values on the horizontal axis; NaN where not known.
        y_N: Array (N,) of values on the vertical axis; NaN where not known.
        keep: Indices of points that must not be thinned out.
    """

    x_N: Floats
    y_N: Floats
    keep: Sequence[int] = ()


def broken_lines(frame: Frame, lines: Sequence[Points]) -> list[str]:
    """Return the `d` attributes of thinned lines, which break where a point is not finite.

    Args:
        frame: The position and ranges of the plot.
        lines: The lines.

    Returns:
        The path of each line; '' where none of its points is finite.
    """
    if not lines:
        return []
    x_N, y_N = (np.concatenate([getattr(each, name) for each in lines]) for name in ("x_N", "y_N"))
    ends = np.cumsum([len(each.x_N) for each in lines]).tolist()
    starts = [0, *ends[:-1]]
    finite_N = np.isfinite(x_N) & np.isfinite(y_N)
    keep = [
        start + index
        for start, each in zip(starts, lines, strict=True)
        for index in each.keep
        if finite_N[start + index]
    ]
    # A piece begins where a finite point follows one that is not, or another line.
    begins_N = finite_N.copy()
    begins_N[1:] &= ~finite_N[:-1]
    inner = [start for start in starts if start < len(finite_N)]
    begins_N[inner] = finite_N[inner]
    place_N = np.cumsum(finite_N) - 1  # The place of a point among those that are finite.
    points = frame.place(x_N[finite_N], y_N[finite_N])
    kept = thin(points, place_N[keep].tolist(), place_N[begins_N].tolist())
    kept_N = finite_N.copy()
    kept_N[finite_N] = kept
    paths = []
    for start, end in zip(starts, ends, strict=True):
        firsts = start + np.flatnonzero(begins_N[start:end])
        pieces = itertools.pairwise([*firsts.tolist(), end])
        chosen = (place_N[low:high][kept_N[low:high]] for low, high in pieces)
        paths.append("".join(line(points[each]) for each in chosen))
    return paths


def thin(points: Ints, keep: Sequence[int] = (), begins: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Return which points of lines to keep so that each stays within TOLERANCE plot units.

    The algorithm is Douglas and Peucker's (1973), all stretches of all lines at once: a stretch is
    halved at the point that is farthest from the straight line between its ends.

    Args:
        points: Integer array (N, 2) of the plot coordinates of all lines, one after the other.
        keep: Indices of points that must stay, in addition to the first and the last of a line.
        begins: Indices at which a line begins; the first begins at 0.

    Returns:
        Boolean array (N,).
    """
    kept = np.zeros(len(points), np.bool_)
    if not len(points):
        return kept
    before = [begin - 1 for begin in begins if begin]
    corners = np.array(sorted({0, *keep, *begins, *before, len(points) - 1}), np.int64)
    kept[corners] = True
    first, last = corners[:-1], corners[1:]
    while True:
        # Between the end of a line and the beginning of the next lies no point.
        has_inner = last - first >= 2
        first, last = first[has_inner], last[has_inner]
        if not len(first):
            return kept
        counts = last - first - 1
        offsets = np.cumsum(counts) - counts
        stretch = np.repeat(np.arange(len(first)), counts)
        inner = np.arange(len(stretch)) - np.repeat(offsets - first - 1, counts)
        along = (points[last] - points[first]).astype(np.float64)
        off = (points[inner] - points[first[stretch]]).astype(np.float64)
        length = np.hypot(along[:, 0], along[:, 1])
        across = off[:, 0] * along[stretch, 1] - off[:, 1] * along[stretch, 0]
        distance = np.where(
            length[stretch] > 0,
            np.abs(across) / np.where(length > 0, length, 1.0)[stretch],
            np.hypot(off[:, 0], off[:, 1]),
        )
        farthest = np.maximum.reduceat(distance, offsets)
        at = np.flatnonzero(distance == farthest[stretch])
        middle = inner[at[np.unique(stretch[at], return_index=True)[1]]]
        is_off = farthest > TOLERANCE
        middle = middle[is_off]
        kept[middle] = True
        first, last = (
            np.concatenate([first[is_off], middle]),
            np.concatenate([middle, last[is_off]]),
        )

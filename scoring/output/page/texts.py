"""Numbers and foreign texts as the page shows them. A value that does not exist becomes a dash."""

import json
import math
from collections.abc import Sequence
from typing import Any

from scoring.reading.trials import Target

NONE = "\N{EM DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
LONGEST = 120  # A foreign text with more characters is cut.


def score(value: float) -> str:
    """Return a score to four decimals; a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:.4f}"


def interval(ends: Sequence[float], decimals: int = 3) -> str:
    """Return the two ends of an interval as text; '' where they are not known (NaN)."""
    low, high = ends
    return "" if math.isnan(low) else f"{low:.{decimals}f}\N{EN DASH}{high:.{decimals}f}"


def rank_interval(ends: Sequence[float]) -> str:
    """Return the two ends of an interval of ranks, one number if they are equal; a dash for NaN."""
    low, high = ends
    if math.isnan(low):
        return NONE
    return f"{low:.0f}" if low == high else f"{low:.0f}\N{EN DASH}{high:.0f}"


def probability(value: float) -> str:
    """Return a share of resamples in percent; a dash for NaN.

    Resamples are finitely many, so the text never claims certainty: it is at least '< 0.1 %' and at
    most '> 99.9 %'.
    """
    if math.isnan(value):
        return NONE
    if value < 0.001:
        return "<\N{THIN SPACE}0.1\N{NO-BREAK SPACE}%"
    if value > 0.999:
        return ">\N{THIN SPACE}99.9\N{NO-BREAK SPACE}%"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def factor(value: float) -> str:
    """Return a ratio of times, such as 1.25, with a times sign; a dash where not finite."""
    return NONE if not math.isfinite(value) else f"{value:.2f}{TIMES}"


def tau(value: float) -> str:
    """Return an agreement of two orders to two decimals; a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def range_of(low: float, high: float) -> str:
    """Return the two ends of a range of agreements as text; a dash for NaN."""
    return NONE if math.isnan(low) else f"{tau(low)} to {tau(high)}"


def slowdown(value: float) -> str:
    """Return a slow-down as text; it is infinite where the variant's target was missed."""
    return "\N{INFINITY}" if value == math.inf else factor(value)


def count(value: float) -> str:
    """Return seconds or steps as text; a dash where they are not finite.

    Large numbers are whole, with their digits in groups of three; numbers below 100 have three
    significant digits.
    """
    if not math.isfinite(value):
        return NONE
    if value != 0 and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4g}"


def percent(share: float) -> str:
    """Return the size of a share in percent, without its sign."""
    return f"{100 * abs(share):g}\N{NO-BREAK SPACE}%"


def plural(number: int, noun: str) -> str:
    """Return a number and a noun in the right form: '1 trial', '2 trials'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def fold(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[int], str]:
    """Find the columns of a table that have no value in any row.

    Args:
        head: The names of the columns.
        rows: The cells of each row, as texts.

    Returns:
        The indices of the other columns, and a text about those left out; '' if there are none.
    """
    empty = [
        column
        for column in range(len(head))
        if rows and all(row[column] in ("", NONE) for row in rows)
    ]
    kept = [column for column in range(len(head)) if column not in empty]
    names = "; ".join(head[column] for column in empty)
    return kept, f"Left out, as there is no value: {names}." if empty else ""


def goal(target: Target) -> str:
    """Return a target as an inequality, such as '≥ 0.97', or 'no target'."""
    sign = (
        "\N{GREATER-THAN OR EQUAL TO}" if target.higher_is_better else "\N{LESS-THAN OR EQUAL TO}"
    )
    return "no target" if target.validation is None else f"{sign} {target.validation:g}"


def foreign(value: Any) -> str:
    """Return a value out of somebody's JSON as text of at most LONGEST characters."""
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, default=str)
        except RecursionError:
            text = "nested too deep"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"

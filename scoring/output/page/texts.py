"""How the page writes numbers and foreign texts."""

import json
import math
from collections.abc import Sequence
from typing import Any

from scoring.reading.trials import Target

NONE = "\N{EM DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
LONGEST = 120  # characters of a foreign text; a longer one is cut


def score(value: float) -> str:
    """A score, to four decimals."""
    return NONE if math.isnan(value) else f"{value:.4f}"


def interval(ends: Sequence[float], decimals: int = 3) -> str:
    """Two ends, '' where they are not known."""
    low, high = ends
    return "" if math.isnan(low) else f"{low:.{decimals}f}\N{EN DASH}{high:.{decimals}f}"


def rank_interval(ends: Sequence[float]) -> str:
    """Two places, or the one that both are."""
    low, high = ends
    if math.isnan(low):
        return NONE
    return f"{low:.0f}" if low == high else f"{low:.0f}\N{EN DASH}{high:.0f}"


def probability(value: float) -> str:
    """A share of finitely many resamples in percent: never a certainty."""
    if math.isnan(value):
        return NONE
    if value < 0.001:
        return "<\N{THIN SPACE}0.1\N{NO-BREAK SPACE}%"
    if value > 0.999:
        return ">\N{THIN SPACE}99.9\N{NO-BREAK SPACE}%"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def factor(value: float) -> str:
    """A ratio of times."""
    return NONE if not math.isfinite(value) else f"{value:.2f}{TIMES}"


def slowdown(value: float) -> str:
    """A ratio of times that is infinite where the target was missed."""
    return "\N{INFINITY}" if value == math.inf else factor(value)


def count(value: float) -> str:
    """Seconds or steps: whole and grouped, with decimals where it is small."""
    if not math.isfinite(value):
        return NONE
    if value != 0 and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4g}"


def percent(share: float) -> str:
    """The size of a share."""
    return f"{100 * abs(share):g}\N{NO-BREAK SPACE}%"


def plural(number: int, noun: str) -> str:
    """'1 trial', '2 trials'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def goal(target: Target) -> str:
    """A target as an inequality."""
    sign = (
        "\N{GREATER-THAN OR EQUAL TO}" if target.higher_is_better else "\N{LESS-THAN OR EQUAL TO}"
    )
    return "no target" if target.validation is None else f"{sign} {target.validation:g}"


def foreign(value: Any) -> str:
    """A value out of somebody's JSON as short text."""
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

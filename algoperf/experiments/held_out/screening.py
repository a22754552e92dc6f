"""Decide by its runs whether a draw becomes a variant, and set the target of that variant.

Every run is one of a baseline (nadamw at its defaults, with the learning rate multiplied by a
factor) up to the workload's step hint. Numbers are rounded before they are judged, so that the
last bits of another machine do not change a verdict.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

BASELINE = "nadamw"
# Half a decade apart, and a quarter beside the default: where a factor of 3 already fails, an
# optimum that moves would not be seen in steps of half a decade.
FACTORS = (0.3, 0.55, 1.0, 1.8, 3.0, 10.0)
SCREENING_SEEDS = 2
TARGET_SEEDS = 5  # The number of seeds in each framework.
REGRET = 0.005  # It is a difference of the target metric: half a point of accuracy or of ROUGE.
LOSS_FALLS_TO = 0.8  # It is a share of the loss after the first step.
STEP_SHARE = 0.75  # All but one of the runs reach the target within this share of the step hint.
DIGITS = 3


@dataclasses.dataclass(frozen=True)
class Curve:
    """The curve of one run.

    Attributes:
        steps: The steps of its evaluations.
        values: The target metric at each, with its sign changed where lower is better, so that
            larger is always better.
        losses: The validation loss at each.
        is_finite: Whether the run stayed finite.
    """

    steps: Sequence[int]
    values: Sequence[float]
    losses: Sequence[float]
    is_finite: bool = True

    @property
    def level(self) -> float:
        """The mean of the values, which is larger the sooner they rise.

        It is -inf if the run was not finite.
        """
        return round(statistics.fmean(self.values), 4) if self.is_finite else -math.inf

    @property
    def learns(self) -> bool:
        """Whether the run stays finite and its loss falls clearly below the first one.

        It has to fall to `LOSS_FALLS_TO` times the loss at the first evaluation.
        """
        return self.is_finite and min(self.losses) <= LOSS_FALLS_TO * self.losses[0]

    def best_by(self, step: float) -> float:
        """Return the best value up to a step."""
        return max(value for at, value in zip(self.steps, self.values, strict=True) if at <= step)


Grid = Mapping[float, Sequence[Curve]]  # A curve for each seed, by factor of the learning rate.


def level(curves: Sequence[Curve]) -> float:
    """Return the mean level of runs that differ only in their seed."""
    return statistics.fmean(curve.level for curve in curves)


def best_factor(grid: Grid) -> float:
    """Return the factor of the learning rate whose runs have the highest mean level."""
    return max(grid, key=lambda factor: level(grid[factor]))


def why_not(grid: Grid, base: Grid) -> str | None:
    """Return the reason why a draw does not become a variant, or None.

    A draw becomes a variant if it is trainable and different from the base.

    It is trainable if most seeds learn with its best factor. It is different if three things hold:
    that factor is not the best one of the base; its level is above that of the base's best factor
    in most seeds; and in the mean it is above by at least `REGRET`.

    Args:
        grid: The curves of the draw.
        base: The curves of the base workload.
    """
    best, usual = best_factor(grid), best_factor(base)
    learning = sum(curve.learns for curve in grid[best])
    if 2 * learning <= len(grid[best]):
        return f"not trainable: {learning} of {len(grid[best])} seeds learn"
    if best == usual:
        return f"not different: the base's best learning rate (x {usual:g}) is its best as well"
    above = sum(
        mine.level > other.level for mine, other in zip(grid[best], grid[usual], strict=True)
    )
    if 2 * above <= len(grid[best]):
        return f"not different: x {best:g} beats x {usual:g} in {above} of {len(grid[best])} seeds"
    regret = level(grid[best]) - level(grid[usual])
    if regret < REGRET:
        return (
            f"not different: the base's best learning rate (x {usual:g}) is {regret:.4f} worse "
            f"than x {best:g}, less than {REGRET:g}"
        )
    return None


def why_not_at_once(grid: Grid, base: Grid) -> str | None:
    """Return the reason why the first seed alone rules a draw out, or None if others decide.

    With two seeds a draw is different only if its best factor beats the base's best in both seeds.
    So `why_not` would reject any draw in whose first seed no factor beats the base's best.

    Args:
        grid: The curves of the draw.
        base: The curves of the base workload.
    """
    usual = best_factor(base)
    first = {factor: curves[0] for factor, curves in grid.items()}
    if all(curve.level <= first[usual].level for curve in first.values()):
        return (
            f"not different: in the first seed no learning rate beats the base's best (x {usual:g})"
        )
    return None


def target(curves: Sequence[Curve], step_hint: int) -> float:
    """Return the target of a variant.

    It is the value that all runs but one reach within `STEP_SHARE` of the step hint (with ten runs,
    nine of them), rounded down to `DIGITS` digits.

    Args:
        curves: The curves of the runs.
        step_hint: The workload's step hint.
    """
    second = sorted(curve.best_by(STEP_SHARE * step_hint) for curve in curves)[1]
    return float(math.floor(round(second * 10**DIGITS, 6)) / 10**DIGITS)


def told(grid: Grid) -> dict[str, Any]:
    """Return the grid as a suite's file records it: the levels by factor, one for each seed.

    A run that was not finite has None.
    """
    return {
        f"{factor:g}": [None if math.isinf(curve.level) else curve.level for curve in curves]
        for factor, curves in grid.items()
    }

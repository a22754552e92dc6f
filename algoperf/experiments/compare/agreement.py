"""Measure how far the curves of two frameworks that trained the same thing differ."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from algoperf.experiments.compare.measures import STEP, Rows, Trial

FIRST_STEPS = 20  # The parity test trains as many steps.
Curve = Mapping[int, float]  # Values by step.


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The largest differences between two frameworks, over all pairs of trials with the same seed.

    All differences are relative: |a - b| / max(|a|, |b|). They are None where the two frameworks
    have no step in common.

    Attributes:
        frameworks: The two frameworks.
        pairs: The number of pairs of trials.
        step_0: The difference of the training loss before the first update.
        first_steps: That of the training loss at steps up to `FIRST_STEPS`.
        all_steps: That of the training loss at all recorded steps.
        validation_loss: That of the validation loss at all evaluations.
        metric_last: That of the target metric at the last evaluation.
        same_rows: Whether both frameworks were trained on the same data.
    """

    frameworks: tuple[str, str]
    pairs: int
    step_0: float | None
    first_steps: float | None
    all_steps: float | None
    validation_loss: float | None
    metric_last: float | None
    same_rows: bool


def curve(rows: Rows, column: str) -> dict[int, float]:
    """Return the values of a column by step; rows without the column are left out."""
    return {int(row[STEP]): row[column] for row in rows if column in row}


def relative_difference(first: float, second: float) -> float:
    """Return |a - b| / max(|a|, |b|).

    Returns:
        0 where both values are 0, and infinity where one of them is not finite.
    """
    if not (math.isfinite(first) and math.isfinite(second)):
        return math.inf
    largest = max(abs(first), abs(second))
    return abs(first - second) / largest if largest else 0.0


def relative_differences(first: Curve, second: Curve) -> dict[int, float]:
    """Return the relative difference at each step that both curves have."""
    return {
        step: relative_difference(value, second[step])
        for step, value in first.items()
        if step in second
    }


def of(frameworks: tuple[str, str], pairs: Sequence[tuple[Trial, Trial]]) -> Agreement:
    """Compare the trials of one framework with those of another.

    Args:
        frameworks: The two frameworks.
        pairs: A trial of each, with the same seed.
    """
    training: list[tuple[int, float]] = []
    validation: list[float] = []
    last: list[float] = []
    for one, other in pairs:
        training += relative_differences(
            curve(one.scalars, "loss"), curve(other.scalars, "loss")
        ).items()
        losses = (curve(each.evaluations, "validation/loss") for each in (one, other))
        validation += relative_differences(*losses).values()
        metrics = (curve(each.evaluations, each.metric) for each in (one, other))
        last += list(relative_differences(*metrics).values())[-1:]
    return Agreement(
        frameworks=frameworks,
        pairs=len(pairs),
        step_0=max((each for step, each in training if step == 0), default=None),
        first_steps=max((each for step, each in training if step <= FIRST_STEPS), default=None),
        all_steps=max((each for _, each in training), default=None),
        validation_loss=max(validation, default=None),
        metric_last=max(last, default=None),
        same_rows=all(
            one.flags.get("data_fingerprint") == other.flags.get("data_fingerprint")
            for one, other in pairs
        ),
    )

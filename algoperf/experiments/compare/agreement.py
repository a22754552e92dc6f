"""How far the curves of two frameworks differ that trained the same thing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from algoperf.experiments.compare.measures import STEP, Rows, Trial

FIRST_STEPS = 20  # as many as the parity gate trains
Curve = Mapping[int, float]  # by step


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The largest differences over all pairs of trials with one seed, None where nothing is common
    to both.

    All are relative: |a - b| / max(|a|, |b|). `step_0` is that of the training
    loss before the first update, `first_steps` that of those up to `FIRST_STEPS`, `all_steps` that
    of all recorded ones; `validation_loss` is over all evaluations, `metric_last` of the target
    metric at the last evaluation. `same_rows`: whether both were trained on the same data.
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
    """The values of a column by step."""
    return {int(row[STEP]): row[column] for row in rows if column in row}


def relative_difference(first: float, second: float) -> float:
    """|a - b| / max(|a|, |b|), 0 where both are 0; infinite where one is not finite."""
    if not (math.isfinite(first) and math.isfinite(second)):
        return math.inf
    largest = max(abs(first), abs(second))
    return abs(first - second) / largest if largest else 0.0


def relative_differences(first: Curve, second: Curve) -> dict[int, float]:
    """The relative difference at each step that both curves have."""
    return {
        step: relative_difference(value, second[step])
        for step, value in first.items()
        if step in second
    }


def of(frameworks: tuple[str, str], pairs: Sequence[tuple[Trial, Trial]]) -> Agreement:
    """Set the trials of one framework against those of the other with the same seed."""
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

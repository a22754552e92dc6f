"""What a trial has to reach, and when it evaluates and ends."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Goal:
    """What the trial has to reach; None where the data has no target at this scale."""

    metric: str
    higher_is_better: bool
    validation: float | None
    test: float | None = None
    until: str = "validation"  # or 'test': AlgoPerf's older rule; or 'end': never

    def flags(self) -> dict[str, Any]:
        """The goal as a run's flags have it."""
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "validation": self.validation,
            "test": self.test if self.until == "test" else None,
        }

    def is_met(self, metrics: Mapping[str, float]) -> bool:
        """Whether an evaluation (columns `split/metric`) ends the trial as reached; NaN
        never does.
        """
        if self.until == "end" or not self._meets(metrics, "validation", self.validation):
            return False
        return self.until == "validation" or self._meets(metrics, "test", self.test)

    def _meets(self, metrics: Mapping[str, float], split: str, target: float | None) -> bool:
        value = metrics.get(f"{split}/{self.metric}", math.nan)
        if target is None or math.isnan(value):
            return False
        return value >= target if self.higher_is_better else value <= target

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether one value of the metric beats another."""
        if than is None or math.isnan(than):
            return not math.isnan(value)
        return value > than if self.higher_is_better else value < than


@dataclasses.dataclass(frozen=True)
class Limits:
    """When the trial evaluates and when it ends. Times are seconds of submission time.

    An evaluation follows step 1, and then each time that the clock passes a multiple of
    `eval_every_s`; with `eval_every_steps`, after each multiple of that many steps instead.
    `max_steps` ends the trial as complete. With `keep_going` numbers that are not finite are noted
    and end nothing.
    """

    budget_s: float
    eval_every_s: float
    eval_every_steps: int | None = None
    max_steps: int | None = None
    keep_going: bool = False

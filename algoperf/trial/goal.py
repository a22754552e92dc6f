"""The target that a trial has to reach, and the rules by which it evaluates and ends."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from algoperf.trial.cadence import Cadence

MOST_PERIODS = 3  # The longest time between two evaluations of all rows, where others are probed.


@dataclasses.dataclass(frozen=True)
class Goal:
    """The target that a trial has to reach.

    Attributes:
        metric: The name of the metric.
        higher_is_better: Whether larger values of the metric are better.
        validation: The target on the validation split; None where the data has none at this scale.
        test: The target on the test split, or None.
        until: When the trial counts as reached: at the 'validation' target; when the 'test' target
            is met too, which is AlgoPerf's older rule; or never, at the 'end' of its limits.
    """

    metric: str
    higher_is_better: bool
    validation: float | None
    test: float | None = None
    until: str = "validation"  # It may also be 'test' or 'end'.

    def flags(self) -> dict[str, Any]:
        """Return the goal as the configuration of a trial records it.

        The test target is None where it does not decide.
        """
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "validation": self.validation,
            "test": self.test if self.until == "test" else None,
        }

    def is_met(self, metrics: Mapping[str, float]) -> bool:
        """Return whether an evaluation ends the trial as reached.

        Args:
            metrics: The evaluation's metrics by '<split>/<metric>'. A missing value or NaN meets no
                target.
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
        """Return whether one value of the metric is better than another.

        Args:
            value: The value; NaN is never better.
            than: The other value. Any number is better than None or NaN.
        """
        if than is None or math.isnan(than):
            return not math.isnan(value)
        return value > than if self.higher_is_better else value < than


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a trial evaluates and when it ends. All times are seconds of submission time.

    Attributes:
        budget_s: The time after which the trial ends; infinite for a trial limited in steps.
        eval_every_s: After step 1, an evaluation follows each time that the clock passes a multiple
            of this.
        eval_share: If given, evaluations follow by what they cost instead, steered by probes of a
            few rows: all of them together take at most this share of the submission time.
        eval_every_steps: If given, an evaluation follows each multiple of that many steps instead.
        max_steps: The number of steps after which the trial ends as complete; None sets no limit.
        keep_going: Whether numbers that are not finite are only recorded and do not end the trial.
        exchange_every_steps: If given, an evaluation of all rows follows each multiple of that many
            steps as well: a population compares its members there.
        pause_at_step: The step, one of these, after whose evaluation the trial is saved and left
            for a later process; None for a trial that trains to its end.
        outrun_s: The submission time after which an evaluation that misses the target ends the
            trial: another one of its study has met it by then. Infinite where none has.
        late_s: The submission time after which such an evaluation ends the trial as late: others
            have met the target so much sooner that the workload gives it no credit.
    """

    budget_s: float
    eval_every_s: float
    eval_every_steps: int | None = None
    max_steps: int | None = None
    keep_going: bool = False
    eval_share: float | None = None
    exchange_every_steps: int | None = None
    pause_at_step: int | None = None
    outrun_s: float = math.inf
    late_s: float = math.inf

    def is_exchange(self, step: int) -> bool:
        """Return whether a population compares its members after a step."""
        return self.exchange_every_steps is not None and step % self.exchange_every_steps == 0

    def is_paused_at(self, step: int) -> bool:
        """Return whether the trial is left for a later process once it has made so many steps."""
        return self.pause_at_step is not None and step >= self.pause_at_step

    def is_outrun(self, clock_s: float) -> bool:
        """Return whether a trial can no longer be the first of its study to meet the target."""
        return clock_s >= self.outrun_s

    def is_late(self, clock_s: float) -> bool:
        """Return whether a trial can no longer get credit for the target."""
        return clock_s >= self.late_s

    @property
    def gives_up_s(self) -> float:
        """The submission time after which an evaluation that misses the target ends the trial."""
        return min(self.outrun_s, self.late_s)

    def cadence(self, goal: Goal) -> Cadence | None:
        """Return what decides when a trial evaluates by cost; None where it does by period."""
        if self.eval_share is None or goal.validation is None:
            return None
        longest_s = MOST_PERIODS * self.eval_every_s
        return Cadence(goal.validation, goal.higher_is_better, self.eval_share, longest_s)

    def next_period_s(self, clock_s: float) -> float:
        """Return the first multiple of the period after a submission time."""
        return (math.floor(clock_s / self.eval_every_s) + 1) * self.eval_every_s

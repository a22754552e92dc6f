"""How much slower submissions are on held-out variants than on their base workloads, by axis.

A variant changes its base workload along one axis or several (norm_place, dropout, ...). A variant
of several axes counts for each of them. docs/scoring.md explains the table.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from scoring.analysis.leaderboard import Cell, Leaderboard, Row
from scoring.reading.trials import Changes, changes_told
from scoring.rules.rules import UNFINISHED
from scoring.rules.time_to_target import MISSING, REACHED

ALL_AXES = "all"
NOT_RECORDED = "not recorded"
NOT_REACHED, BASE_NOT_REACHED, NO_LOGS = "not reached", "base not reached", "no logs"


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """The result of one submission on one held-out variant and on its base workload.

    Attributes:
        label: The label of the submission.
        variant: The name of the variant.
        base: The name of its base workload.
        changes: The new value of each axis that the variant changes.
        outcome: 'base not reached', whatever happened on the variant; otherwise how the variant
            ended: 'reached', 'not reached', 'unfinished' or 'no logs'.
        base_time_s: Median seconds to the target of the base workload; inf where it was missed, NaN
            where there is no study.
        time_s: The same for the variant.
        base_steps: Median steps to the target of the base workload; inf and NaN as for times.
        steps: The same for the variant.
    """

    label: str
    variant: str
    base: str
    changes: Changes
    outcome: str
    base_time_s: float
    time_s: float
    base_steps: float
    steps: float

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the variant changes, sorted; 'not recorded' where its runs name none."""
        return tuple(sorted(self.changes)) or (NOT_RECORDED,)

    @property
    def what(self) -> str:
        """The base workload and the changes, such as 'digits with dropout 0.1, norm_place post'."""
        changes = changes_told(self.changes)
        return (
            f"{self.base} with {changes}" if changes else f"{self.base}, its changes not recorded"
        )

    @property
    def slowdown(self) -> float:
        """The time on the variant divided by the time on its base workload.

        It is inf where only the variant was missed, and NaN where the two times cannot be compared.
        """
        return self._over(self.time_s, self.base_time_s)

    @property
    def steps_slowdown(self) -> float:
        """Steps on the variant divided by steps on its base; inf and NaN as in `slowdown`."""
        return self._over(self.steps, self.base_steps)

    def _over(self, own: float, base: float) -> float:
        if self.outcome == NOT_REACHED:
            return math.inf
        known = self.outcome == REACHED and 0 < base < math.inf
        ratio = own / base if known else math.nan
        return ratio if 0 < ratio < math.inf else math.nan


@dataclasses.dataclass(frozen=True)
class AxisResult:
    """The result of one submission on all held-out variants that change one axis.

    Attributes:
        label: The label of the submission.
        axis: The name of the axis; 'all' stands for all variants, each counted once.
        variants: The number of variants of the axis.
        bases_reached: For how many of these the submission reached the base workload.
        reached: For how many it reached both the base workload and the variant.
        slowdown: The geometric mean of the time slow-downs over the reached variants; NaN without
            any.
        steps_slowdown: The same for slow-downs in steps.
    """

    label: str
    axis: str
    variants: int
    bases_reached: int
    reached: int
    slowdown: float
    steps_slowdown: float


@dataclasses.dataclass(frozen=True)
class Robustness:
    """The robustness table of one leaderboard.

    Attributes:
        variants: The results by variant, sorted by base workload and name; submissions best first.
        axes: The results by axis, 'all' first and then by name; only 'all' where no changes are
            recorded.
        unguarded: The base workloads that no counted variant belongs to.
    """

    variants: tuple[VariantResult, ...]
    axes: tuple[AxisResult, ...]
    unguarded: tuple[str, ...]

    @property
    def by_variant(self) -> Mapping[str, Sequence[VariantResult]]:
        """The results of each variant, best submission first."""
        results: dict[str, list[VariantResult]] = {}
        for one in self.variants:
            results.setdefault(one.variant, []).append(one)
        return results


def robustness(board: Leaderboard) -> Robustness:
    """Return the robustness table of a leaderboard, empty where no held-out variant counts."""
    base_of = board.benchmark.variant_of
    order = sorted(base_of, key=lambda name: (base_of[name], name))
    changes = {name: _changes(board, name) for name in order}
    results = [
        _variant_result(row, name, base_of[name], changes[name])
        for name in order
        for row in board.rows
    ]
    names = sorted({axis for each in results for axis in each.axes})
    if names == [NOT_RECORDED]:
        names = []  # This single axis would repeat the one called 'all'.
    axes = [
        _axis_result(label, axis, [each for each in results if each.label == label])
        for axis in ([ALL_AXES, *names] if results else [])
        for label in board.labels
    ]
    bases = board.benchmark.base_workloads if base_of else ()
    unguarded = tuple(sorted(set(bases) - set(base_of.values())))
    return Robustness(tuple(results), tuple(axes), unguarded)


def _changes(board: Leaderboard, variant: str) -> Changes:
    """Return the changes of a variant, as its runs record them.

    The runs agree, since they are of one pool. Where nobody has run the variant, the benchmark
    names its changes.
    """
    runs = (run for run in board.pool.runs if run.workload == variant)
    return next((run.changes for run in runs), board.benchmark.changes.get(variant, {}))


def _variant_result(row: Row, variant: str, base: str, changes: Changes) -> VariantResult:
    of_base, own = row.cells[base], row.cells[variant]
    return VariantResult(
        row.entry.label,
        variant,
        base,
        changes,
        _outcome(of_base, own),
        of_base.median_time_s,
        own.median_time_s,
        of_base.median_steps,
        own.median_steps,
    )


def _outcome(of_base: Cell, own: Cell) -> str:
    if not math.isfinite(of_base.median_time_s):
        return BASE_NOT_REACHED
    if math.isfinite(own.median_time_s):
        return REACHED
    if own.undecided:
        return UNFINISHED
    logged = any(result.outcome != MISSING for result in own.studies)
    return NOT_REACHED if logged else NO_LOGS


def _axis_result(label: str, axis: str, results: Iterable[VariantResult]) -> AxisResult:
    of_axis = [each for each in results if axis == ALL_AXES or axis in each.axes]
    reached = [each for each in of_axis if each.outcome == REACHED]
    return AxisResult(
        label,
        axis,
        len(of_axis),
        sum(each.outcome != BASE_NOT_REACHED for each in of_axis),
        len(reached),
        _geometric_mean([each.slowdown for each in reached]),
        _geometric_mean([each.steps_slowdown for each in reached]),
    )


def _geometric_mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean of the ratios that are not NaN; NaN where there are none."""
    logs = [math.log(ratio) for ratio in ratios if not math.isnan(ratio)]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan

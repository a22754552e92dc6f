"""How much slower a submission is on held-out variants than on their base workloads, by axis.

A variant changes its base along one axis or several (norm_place, dropout, ...). A variant of
several axes counts for each of them. docs/scoring.md explains the table.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from scoring.analysis.leaderboard import Cell, Leaderboard, Row
from scoring.reading.trials import Changes, changes_told
from scoring.rules.time_to_target import MISSING, REACHED

ALL_AXES = "all"
NOT_RECORDED = "not recorded"
NOT_REACHED, BASE_NOT_REACHED, NO_LOGS = "not reached", "base not reached", "no logs"


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """One submission on one held-out variant and on its base workload.

    `outcome` is 'reached', 'not reached', 'no logs' (of the variant) or 'base not reached',
    whatever the variant did. Times (seconds) and steps are medians over studies, inf where the
    target was missed, NaN where there is no study.
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
        """The base and the changes, by axis: 'digits with dropout 0.1, norm_place post'."""
        changes = changes_told(self.changes)
        return (
            f"{self.base} with {changes}" if changes else f"{self.base}, its changes not recorded"
        )

    @property
    def slowdown(self) -> float:
        """Time on the variant over time on the base: inf where only the variant was missed, NaN
        where that says nothing of the variant.
        """
        return self._over(self.time_s, self.base_time_s)

    @property
    def steps_slowdown(self) -> float:
        """The same of steps."""
        return self._over(self.steps, self.base_steps)

    def _over(self, own: float, base: float) -> float:
        if self.outcome == NOT_REACHED:
            return math.inf
        known = self.outcome == REACHED and 0 < base < math.inf
        ratio = own / base if known else math.nan
        return ratio if 0 < ratio < math.inf else math.nan


@dataclasses.dataclass(frozen=True)
class AxisResult:
    """One submission on all variants that change an axis ('all': on every variant, each once).

    `bases_reached` counts those of `variants` whose base it reached; `reached` those that it
    reached beside their base. The slow-downs are geometric means over the reached ones, NaN where
    there is none.
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
    """The table of one leaderboard: submissions best first, variants by base and name, axes by
    name after 'all', which stands alone where no changes are recorded. `unguarded` are the base
    workloads that no variant was counted for.
    """

    variants: tuple[VariantResult, ...]
    axes: tuple[AxisResult, ...]
    unguarded: tuple[str, ...]

    @property
    def by_variant(self) -> Mapping[str, Sequence[VariantResult]]:
        """The results of each variant, in order."""
        results: dict[str, list[VariantResult]] = {}
        for one in self.variants:
            results.setdefault(one.variant, []).append(one)
        return results


def robustness(board: Leaderboard) -> Robustness:
    """The robustness table of a leaderboard; empty where it counts no held-out variant."""
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
        names = []  # the same as all
    axes = [
        _axis_result(label, axis, [each for each in results if each.label == label])
        for axis in ([ALL_AXES, *names] if results else [])
        for label in board.labels
    ]
    bases = board.benchmark.base_workloads if base_of else ()
    unguarded = tuple(sorted(set(bases) - set(base_of.values())))
    return Robustness(tuple(results), tuple(axes), unguarded)


def _changes(board: Leaderboard, variant: str) -> Changes:
    """What a variant changes by its runs, which agree within a pool; by the benchmark where nobody
    has run it.
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
    """Of the ratios that are known; NaN where none is."""
    logs = [math.log(ratio) for ratio in ratios if not math.isnan(ratio)]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan

"""From medians to credit: the two rule sets, as functions of arrays.

docs/scoring.md states both in words. Every function takes leading axes (resamples) before S, so
that a bootstrap is one call.

Legend: S submissions, W workloads (base and held-out), B base workloads, N studies.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from algoperf import errors
from scoring.rules.profiles import TAU_MAX, credit, grid_credit

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Rules:
    """One rule set; each field is one point in which rule sets differ.

    `earliest`: a study's trial is the one with the earliest 'time', or the earliest 'evaluation'
    (ties: the smallest time). `absent_is_missed`: a study without a readable trial counts as
    infinite, or is not there. `budgets`: what is reached after the budget does not count.
    `one_reference`: cut-off and ratio are both relative to the fastest credited submission, or the
    cut-off to the fastest of all. `exact`: the integral itself, or the trapezoid over 100 points.
    """

    name: str
    earliest: str
    absent_is_missed: bool
    budgets: bool
    one_reference: bool
    exact: bool


BY_THE_RULES = Rules("by-the-rules", "time", True, True, True, True)
AS_PUBLISHED = Rules("as-published", "evaluation", False, False, False, False)
RULE_SETS = {rules.name: rules for rules in (BY_THE_RULES, AS_PUBLISHED)}


def find_rules(name: str) -> Rules:
    """The rule set of that name; raises UserError for another."""
    if name not in RULE_SETS:
        raise errors.UserError(f"unknown rules {name!r}; one of: {', '.join(RULE_SETS)}")
    return RULE_SETS[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """What the columns W of an array of times are.

    `base` holds the columns of the B base workloads; -1 for one that nobody has run. `variants`
    holds pairs (column of a held-out variant, its base's place in `base`).
    """

    workloads: tuple[str, ...]
    base: tuple[int, ...]
    variants: tuple[tuple[int, int], ...]

    @property
    def base_names(self) -> tuple[str, ...]:
        """The base workloads, in the order of B (a base that nobody has run has no name)."""
        return tuple(self.workloads[column] if column >= 0 else "" for column in self.base)


def make_layout(
    workloads: Sequence[str], base_workloads: Sequence[str], variant_of: Mapping[str, str]
) -> Layout:
    """The layout of times whose columns are `workloads`."""
    base = tuple(workloads.index(name) if name in workloads else -1 for name in base_workloads)
    variants = tuple(
        (workloads.index(variant), list(base_workloads).index(base))
        for variant, base in sorted(variant_of.items())
        if variant in workloads and base in base_workloads
    )
    return Layout(tuple(workloads), base, variants)


def absent_studies(times: Floats, rules: Rules) -> Floats:
    """What the rules make of studies without a readable trial (NaN): missed (inf), or not there."""
    return np.where(np.isnan(times), np.inf, times) if rules.absent_is_missed else times


def study_array(values: Sequence[Sequence[Sequence[float]]], rules: Rules) -> Floats:
    """S x W x N of lists of studies: absent ones (NaN) as the rules count them, NaN after the last
    study of a workload.
    """
    studies = max((len(cell) for cells in values for cell in cells), default=0)
    workloads = len(values[0]) if values else 0
    array = np.full((len(values), workloads, studies), np.nan)
    for index, cells in enumerate(values):
        for column, cell in enumerate(cells):
            array[index, column, : len(cell)] = absent_studies(np.array(cell, np.float64), rules)
    return array


def median_over_studies(times_SWN: Floats) -> Floats:
    """The median time over studies, (..., S, W); inf is a missed study, NaN is no study.

    The median of no study at all is NaN.
    """
    if times_SWN.shape[-1] == 0:
        return np.full(times_SWN.shape[:-1], np.nan)
    ordered = np.sort(times_SWN, axis=-1)  # NaN last
    count = ordered.shape[-1] - np.isnan(ordered).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0), axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1), axis=-1)
    both = np.where(low == high, low, low / 2 + high / 2)
    return np.where(count > 0, both, np.nan)[..., 0]


def base_columns(times_SW: Floats, layout: Layout) -> Floats:
    """The base workloads' columns, (..., S, B); inf for a workload that nobody has run."""
    never_run = np.full(times_SW.shape[:-1], np.inf)
    columns = [times_SW[..., column] if column >= 0 else never_run for column in layout.base]
    return np.stack(columns, axis=-1) if columns else times_SW[..., :0]


def credited_ratios(medians_SW: Floats, layout: Layout, rules: Rules) -> Floats:
    """Ratios to the fastest credited submission, (..., S, B); inf where there is no credit.

    In order: a held-out variant whose base is not reached counts as not reached; a variant or (by
    the reference's code) a base over 4 times its fastest is cut off; a base whose variant is not
    reached or cut off counts as not reached; ratio to the fastest that remains, 4 at the most.
    """
    times_SW = np.where(np.isnan(medians_SW), np.inf, medians_SW)
    base_SB = base_columns(times_SW, layout)
    credited_SB = base_SB if rules.one_reference else _cut_off(base_SB)
    for column, base in layout.variants:
        passed_S = _passed(times_SW[..., column], base_SB[..., base])
        credited_SB = credited_SB.copy()
        credited_SB[..., base] = np.where(passed_S, credited_SB[..., base], np.inf)
    return _ratios(_cut_off(credited_SB))


def _passed(variant_S: Floats, base_S: Floats) -> NDArray[np.bool_]:
    """Who reached a variant beside its base, within 4 times the fastest that did."""
    both_S1 = np.where(np.isfinite(base_S), variant_S, np.inf)[..., None]
    return np.asarray(np.isfinite(_cut_off(both_S1)[..., 0]))


def _cut_off(times_SW: Floats) -> Floats:
    """Times over 4 times the fastest as inf."""
    fastest_W = times_SW.min(axis=-2, keepdims=True, initial=np.inf)
    return np.where(times_SW <= TAU_MAX * fastest_W, times_SW, np.inf)


def _ratios(times_SB: Floats) -> Floats:
    fastest_B = times_SB.min(axis=-2, keepdims=True, initial=np.inf)
    ratios = np.full(times_SB.shape, np.inf)
    np.divide(times_SB, fastest_B, out=ratios, where=np.isfinite(times_SB) & (fastest_B > 0))
    ratios[(times_SB == fastest_B) & np.isfinite(times_SB)] = 1.0  # a fastest time of 0 included
    return ratios


def credits(ratios_SB: Floats, rules: Rules) -> Floats:
    """What each base workload adds to the score, before the mean over workloads, in [0, 1]."""
    return credit(ratios_SB) if rules.exact else grid_credit(ratios_SB)


def scores(times_SWN: Floats, layout: Layout, rules: Rules) -> Floats:
    """The benchmark scores, (..., S), of times (..., S, W, N); inf: missed, NaN: no study."""
    ratios_SB = credited_ratios(median_over_studies(times_SWN), layout, rules)
    return mean_credit(ratios_SB, rules)


def mean_credit(ratios_SB: Floats, rules: Rules) -> Floats:
    """The mean over base workloads of their credits, (..., S); 0 where there is no workload."""
    if ratios_SB.shape[-1] == 0:
        return np.zeros(ratios_SB.shape[:-1])
    return np.asarray(credits(ratios_SB, rules).mean(axis=-1), np.float64)


def ranks(scores_S: Floats) -> NDArray[np.int64]:
    """Places by score, 1 for the best; equal scores share the better place. Shape (..., S)."""
    better = scores_S[..., None, :] > scores_S[..., :, None]
    return np.asarray(1 + better.sum(axis=-1), np.int64)


CREDITED = "credited"


def credit_reasons(
    medians_SW: Floats, logged_SW: NDArray[np.bool_], layout: Layout, rules: Rules
) -> list[list[str]]:
    """Why each submission has credit on each base workload or not, S lists of B texts.

    'credited', 'no logs', 'target missed (median)', '>4x fastest', and the last three with
    'held-out: ' before them where the base workload alone would have been credited. `logged_SW`
    says where there is any readable trial. Of several variants it is the first that failed.
    """
    times_SW = np.where(np.isnan(medians_SW), np.inf, medians_SW)
    base_SB = base_columns(times_SW, layout)

    def why_not(submission: int, column: int) -> str:
        if column < 0 or not logged_SW[submission, column]:
            return "no logs"
        missed = not np.isfinite(medians_SW[submission, column])
        return "target missed (median)" if missed else ">4x fastest"

    ratios_SB = credited_ratios(medians_SW, layout, rules)
    alone_SB = credited_ratios(medians_SW, dataclasses.replace(layout, variants=()), rules)
    passed_S = {
        column: _passed(times_SW[:, column], base_SB[:, base]) for column, base in layout.variants
    }
    reasons = []
    for submission in range(len(medians_SW)):
        row = []
        for base, column in enumerate(layout.base):
            failed = [
                variant
                for variant, base_column in layout.variants
                if base_column == base and not passed_S[variant][submission]
            ]
            if np.isfinite(ratios_SB[submission, base]):
                row.append(CREDITED)
            elif np.isfinite(alone_SB[submission, base]) and failed:
                row.append(f"held-out: {why_not(submission, failed[0])}")
            else:
                row.append(why_not(submission, column))
        reasons.append(row)
    return reasons

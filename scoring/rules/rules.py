"""From median times to credits and scores, for both rule sets, as functions of arrays.

docs/scoring.md states both rule sets in words. Unless a function says otherwise, its arrays may
have further axes (resamples) before S, so that a bootstrap is a single call.

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
    """One rule set; each field is a point on which rule sets differ.

    Attributes:
        name: The name of the rule set.
        earliest: Which trial stands for its study: the one that reached the target at the earliest
            'time', or at the earliest 'evaluation' (ties: the smallest time).
        absent_is_missed: Whether a study without a readable trial counts as a missed target;
            otherwise as no study at all.
        budgets: Whether a target that was reached after the budget counts as missed.
        one_reference: Whether cut-off and ratio are both relative to the fastest credited
            submission; otherwise the cut-off is relative to the fastest submission of all.
        exact: Whether the profile is integrated exactly; otherwise by the trapezoidal rule on 100
            points.
        interpolates: Whether the time to a target is interpolated between the last evaluation that
            missed it and the first that met it; otherwise it is the latter's.
    """

    name: str
    earliest: str
    absent_is_missed: bool
    budgets: bool
    one_reference: bool
    exact: bool
    interpolates: bool = False


BY_THE_RULES = Rules("by-the-rules", "time", True, True, True, True)
AS_PUBLISHED = Rules("as-published", "evaluation", False, False, False, False)
# By the rules, but for the time to a target: the default for runs of this library.
INTERPOLATED = dataclasses.replace(BY_THE_RULES, name="interpolated", interpolates=True)
RULE_SETS = {rules.name: rules for rules in (INTERPOLATED, BY_THE_RULES, AS_PUBLISHED)}


def find_rules(name: str) -> Rules:
    """Return the rule set with the given name.

    Raises:
        UserError: There is no rule set with that name.
    """
    if name not in RULE_SETS:
        raise errors.UserError(f"unknown rules {name!r}; one of: {', '.join(RULE_SETS)}")
    return RULE_SETS[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """What the columns of an array of times stand for.

    Attributes:
        workloads: The workload of each column W.
        base: The columns of the B base workloads; -1 for a base workload that nobody has run.
        variants: Pairs (column of a held-out variant, index of its base workload in `base`).
    """

    workloads: tuple[str, ...]
    base: tuple[int, ...]
    variants: tuple[tuple[int, int], ...]

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names of the base workloads in the order of `base`; '' where nobody has run one."""
        return tuple(self.workloads[column] if column >= 0 else "" for column in self.base)


def make_layout(
    workloads: Sequence[str], base_workloads: Sequence[str], variant_of: Mapping[str, str]
) -> Layout:
    """Return the layout of an array of times.

    Args:
        workloads: The workload of each column.
        base_workloads: The base workloads that count, whether or not they have a column.
        variant_of: The base workload of each held-out variant that counts. Variants that have no
            column, or whose base does not count, are left out.
    """
    base = tuple(workloads.index(name) if name in workloads else -1 for name in base_workloads)
    variants = tuple(
        (workloads.index(variant), list(base_workloads).index(base))
        for variant, base in sorted(variant_of.items())
        if variant in workloads and base in base_workloads
    )
    return Layout(tuple(workloads), base, variants)


def absent_studies(times: Floats, rules: Rules) -> Floats:
    """Return times in which studies without a readable trial (NaN) count as the rules demand.

    Where `rules.absent_is_missed`, NaN becomes inf, a missed target; otherwise the times stay as
    they are.
    """
    return np.where(np.isnan(times), np.inf, times) if rules.absent_is_missed else times


def study_array(values: Sequence[Sequence[Sequence[float]]], rules: Rules) -> Floats:
    """Return the times of studies as one array, padded where workloads have fewer studies.

    Args:
        values: Times by submission, workload and study: inf where the target was missed, NaN where
            no trial could be read.
        rules: The rule set that decides how NaN counts (see `absent_studies`).

    Returns:
        Array (S submissions, W workloads, N studies), NaN after a workload's last study.
    """
    studies = max((len(cell) for cells in values for cell in cells), default=0)
    workloads = len(values[0]) if values else 0
    array = np.full((len(values), workloads, studies), np.nan)
    for index, cells in enumerate(values):
        for column, cell in enumerate(cells):
            array[index, column, : len(cell)] = absent_studies(np.array(cell, np.float64), rules)
    return array


def median_over_studies(times_SWN: Floats) -> Floats:
    """Return the median time over studies, where a missed study counts as infinitely slow.

    Args:
        times_SWN: Array (..., S submissions, W workloads, N studies) of times; inf is a missed
            study, NaN is no study.

    Returns:
        Array (..., S, W). The median of two middle times is their mean; it is NaN where there is no
        study at all.
    """
    if times_SWN.shape[-1] == 0:
        return np.full(times_SWN.shape[:-1], np.nan)
    ordered = np.sort(times_SWN, axis=-1)  # numpy sorts NaN last.
    studies = ordered.shape[-1]
    if not np.isnan(ordered[..., -1]).any():
        low, high = ordered[..., (studies - 1) // 2], ordered[..., studies // 2]
        return np.asarray(np.where(low == high, low, low / 2 + high / 2), np.float64)
    count = studies - np.isnan(ordered).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0), axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, studies - 1), axis=-1)
    both = np.where(low == high, low, low / 2 + high / 2)
    return np.where(count > 0, both, np.nan)[..., 0]


def base_columns(times_SW: Floats, layout: Layout) -> Floats:
    """Return the columns of the base workloads, in the layout's order.

    Args:
        times_SW: Array (..., S submissions, W workloads).
        layout: The meaning of the columns.

    Returns:
        Array (..., S, B base workloads); inf for a base workload that nobody has run.
    """
    never_run = np.full(times_SW.shape[:-1], np.inf)
    columns = [times_SW[..., column] if column >= 0 else never_run for column in layout.base]
    return np.stack(columns, axis=-1) if columns else times_SW[..., :0]


def credited_ratios(medians_SW: Floats, layout: Layout, rules: Rules) -> Floats:
    """Return each submission's ratio to the fastest credited time, inf where it has no credit.

    In this order: a held-out variant whose base workload was missed counts as missed. A variant
    slower than 4 times its fastest is cut off; unless `rules.one_reference`, so is a base workload
    slower than 4 times its fastest (as in the scoring code of the AlgoPerf benchmark). A base
    workload whose variant was missed or cut off counts as missed. The ratio is to the fastest of
    the times that remain, and at most 4.

    Args:
        medians_SW: Array (..., S submissions, W workloads) of median times; inf where the target
            was missed, NaN where there is no study.
        layout: The meaning of the columns.
        rules: The rule set.

    Returns:
        Array (..., S, B base workloads) of ratios in [1, 4], or inf.
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
    """Return which submissions reached a variant and its base, within 4 times the fastest."""
    both_S1 = np.where(np.isfinite(base_S), variant_S, np.inf)[..., None]
    return np.asarray(np.isfinite(_cut_off(both_S1)[..., 0]))


def _cut_off(times_SW: Floats) -> Floats:
    """Return the times, with inf for each that is more than 4 times the fastest of its column."""
    fastest_W = times_SW.min(axis=-2, keepdims=True, initial=np.inf)
    return np.where(times_SW <= TAU_MAX * fastest_W, times_SW, np.inf)


def _ratios(times_SB: Floats) -> Floats:
    """Return the ratios to the fastest time of each column; inf where a time is not finite."""
    fastest_B = times_SB.min(axis=-2, keepdims=True, initial=np.inf)
    ratios = np.full(times_SB.shape, np.inf)
    np.divide(times_SB, fastest_B, out=ratios, where=np.isfinite(times_SB) & (fastest_B > 0))
    # A fastest time of 0 seconds has the ratio 1 too.
    ratios[(times_SB == fastest_B) & np.isfinite(times_SB)] = 1.0
    return ratios


def credits(ratios_SB: Floats, rules: Rules) -> Floats:
    """Return what each base workload adds to the score before the mean over workloads.

    Args:
        ratios_SB: Array (..., S submissions, B base workloads) of `credited_ratios`.
        rules: The rule set, which says how profiles are integrated.

    Returns:
        Array of the same shape with values in [0, 1].
    """
    return credit(ratios_SB) if rules.exact else grid_credit(ratios_SB)


def scores(times_SWN: Floats, layout: Layout, rules: Rules) -> Floats:
    """Return the benchmark score of each submission.

    Args:
        times_SWN: Array (..., S submissions, W workloads, N studies) of times to target; inf is a
            missed study, NaN is no study.
        layout: The meaning of the columns.
        rules: The rule set.

    Returns:
        Array (..., S) with values in [0, 1]; higher is better.
    """
    ratios_SB = credited_ratios(median_over_studies(times_SWN), layout, rules)
    return mean_credit(ratios_SB, rules)


def mean_credit(ratios_SB: Floats, rules: Rules) -> Floats:
    """Return the mean credit over base workloads, which is the score.

    Args:
        ratios_SB: Array (..., S submissions, B base workloads) of `credited_ratios`.
        rules: The rule set, which says how profiles are integrated.

    Returns:
        Array (..., S) with values in [0, 1]; 0 where there is no base workload.
    """
    if ratios_SB.shape[-1] == 0:
        return np.zeros(ratios_SB.shape[:-1])
    return np.asarray(credits(ratios_SB, rules).mean(axis=-1), np.float64)


def ranks(scores_S: Floats) -> NDArray[np.int64]:
    """Return the rank of each submission by score.

    Args:
        scores_S: Array (..., S submissions) of scores.

    Returns:
        Array of the same shape: 1 for the highest score. Equal scores share the better rank.
    """
    better = scores_S[..., None, :] > scores_S[..., :, None]
    return np.asarray(1 + better.sum(axis=-1), np.int64)


CREDITED, UNFINISHED = "credited", "unfinished"


def credit_reasons(
    medians_SW: Floats, logged_SW: NDArray[np.bool_], layout: Layout, rules: Rules
) -> list[list[str]]:
    """Return why each submission has credit on each base workload, or has none.

    Args:
        medians_SW: Array (S submissions, W workloads) of median times; inf where the target was
            missed, NaN where there is no study.
        logged_SW: Array (S, W): whether the submission has any readable trial of the workload.
        layout: The meaning of the columns.
        rules: The rule set.

    Returns:
        S lists of B texts. A text is 'credited', 'no logs', 'unfinished' (logged, but no study is
        decided), 'target missed (median)' or '>4x fastest'. All but the first begin with
        'held-out: ' where the base workload alone would have been credited; they then tell of the
        first variant that failed.
    """
    times_SW = np.where(np.isnan(medians_SW), np.inf, medians_SW)
    base_SB = base_columns(times_SW, layout)

    def why_not(submission: int, column: int) -> str:
        if column < 0 or not logged_SW[submission, column]:
            return "no logs"
        if np.isnan(medians_SW[submission, column]):
            return UNFINISHED
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

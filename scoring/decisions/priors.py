"""What a forecast assumes before it has seen anything.

A prior says how times scatter: between studies, between submissions, between workloads; how often a
study is lost; how well an earlier stage of a curve tells who is first. These figures are those of
two public boards. From finished boards it also learns how often the target of each workload is
reached. Nothing of it names a submission.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from scoring.decisions.contest import Board, Contest
from scoring.rules.rules import Floats, median_over_studies

# Curves are compared at this share of the time of the faster one.
HALF_WAY = 0.5
LARGEST_LOG_GAP = 3.0
SHORTEST_S = 1e-9


@dataclasses.dataclass(frozen=True)
class Prior:
    """How times to target scatter: natural logarithms of the time as a share of the budget.

    Attributes:
        name: What it was learnt from.
        between_workloads: Standard deviation of log times between workloads, the same for both of a
            pair.
        between_submissions: Standard deviation of the difference of log times that two submissions
            have on all workloads.
        within_workload: Standard deviation of what a submission has on one workload alone.
        between_studies: Standard deviation of log times between studies.
        lost: The share of studies that miss a target which the others of their submission reach.
        curve_slope: The difference of log times per difference of log distances to the target, at
            an earlier time.
        curve_error: The standard deviation of what that leaves open.
        reached: The share of submissions that reach the target, by workload.
        reached_elsewhere: The same for other workloads.
    """

    name: str = "none"
    between_workloads: float = 0.7
    between_submissions: float = 0.5
    within_workload: float = 0.4
    between_studies: float = 0.2
    lost: float = 0.06
    curve_slope: float = 0.5
    curve_error: float = 0.55
    reached: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reached_elsewhere: float = 0.5

    @property
    def spread(self) -> float:
        """Standard deviation of the log time of a study of which nothing is known."""
        parts = (
            self.between_workloads,
            self.between_submissions / 2,
            self.within_workload,
            self.between_studies,
        )
        return math.sqrt(sum(part**2 for part in parts))


NO_PRIOR = Prior()


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """A finished board to learn from.

    Attributes:
        name: What it is called.
        contest: What was compared.
        board: All that came out.
        family_of: The family of each submission; families are left out as a whole.
    """

    name: str
    contest: Contest
    board: Board
    family_of: Mapping[str, str]


def learn(boards: Sequence[Finished], without: Collection[str] = ()) -> Prior:
    """Return the prior that finished boards give: how often the target of each workload is reached.

    How times scatter stays as it is in NO_PRIOR: a few submissions, as are left without a family,
    are too few to tell, and a scatter that is too small makes forecasts too sure (docs/decide.md).

    Args:
        boards: The boards.
        without: Families of submissions to leave out.
    """
    reached: dict[str, list[bool]] = collections.defaultdict(list)
    for one in boards:
        for s, w in itertools.product(_kept(one, without), range(len(one.contest.workloads))):
            hits = np.array([one.board[s, w, n].hit_s for n in range(one.contest.studies)])
            name = one.contest.workloads[w]
            reached[name].append(math.isfinite(float(median_over_studies(hits))))
    every = [hit for hits in reached.values() for hit in hits]
    return dataclasses.replace(
        NO_PRIOR,
        name=" and ".join(one.name for one in boards) or NO_PRIOR.name,
        reached={name: (sum(hits) + 1) / (len(hits) + 2) for name, hits in reached.items()},
        reached_elsewhere=(sum(every) + 1) / (len(every) + 2),
    )


def _kept(one: Finished, without: Collection[str]) -> list[int]:
    """Return the submissions of a board that are of none of some families."""
    names = one.contest.submissions
    return [s for s, name in enumerate(names) if one.family_of[name] not in without]


def scatter(boards: Sequence[Finished]) -> Prior:
    """Return how times scatter on finished boards: where the figures of NO_PRIOR come from.

    Args:
        boards: The boards.
    """
    within, lost, cells = _Ratio(), _Ratio(), _Cells()
    slopes: list[tuple[float, float]] = []
    for number, one in enumerate(boards):
        kept = _kept(one, ())
        for s, w in itertools.product(kept, range(len(one.contest.workloads))):
            hits = np.array([one.board[s, w, n].hit_s for n in range(one.contest.studies)])
            finite = np.isfinite(hits)
            if finite.sum() >= 2:
                logs = np.log(np.maximum(hits[finite], SHORTEST_S))
                within.add(float(((logs - logs.mean()) ** 2).sum()), int(finite.sum()) - 1)
            if 2 * finite.sum() > len(hits):
                lost.add(float((~finite).sum()), len(hits))
            median_s = float(median_over_studies(hits))
            if math.isfinite(median_s):
                share = max(median_s, SHORTEST_S) / one.contest.budgets_s[one.contest.workloads[w]]
                cells.add(math.log(share), (number, w), (number, s))
        slopes += _curve_pairs(one, kept)
    if not cells.values or not slopes:
        return NO_PRIOR
    workloads, submissions, rest = cells.components()
    gaps, times = (np.array(each) for each in zip(*slopes, strict=True))
    slope = float((gaps * times).sum() / (gaps**2).sum())
    return Prior(
        name=" and ".join(one.name for one in boards),
        between_workloads=workloads,
        between_submissions=submissions * math.sqrt(2),
        within_workload=rest,
        between_studies=within.value**0.5,
        lost=lost.value,
        curve_slope=slope,
        curve_error=float(np.sqrt(np.mean((times - slope * gaps) ** 2))),
    )


class _Ratio:
    """A sum over a count."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, amount: float, count: int) -> None:
        self._sum += amount
        self._count += count

    @property
    def value(self) -> float:
        return self._sum / self._count if self._count else 0.0


class _Cells:
    """Log times by workload and submission, of which some are missing."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._rows: list[tuple[int, int]] = []
        self._columns: list[tuple[int, int]] = []

    def add(self, value: float, row: tuple[int, int], column: tuple[int, int]) -> None:
        self.values.append(value)
        self._rows.append(row)
        self._columns.append(column)

    def components(self) -> tuple[float, float, float]:
        """Return standard deviations between rows, between columns, and of the rest.

        Effects of rows and columns are fitted in turn, as in a two-way analysis of variance.
        """
        values = np.array(self.values)
        rows, columns = _numbers(self._rows), _numbers(self._columns)
        row_effects = np.zeros(rows.max() + 1)
        column_effects = np.zeros(columns.max() + 1)
        mean = values.mean()
        for _ in range(50):
            row_effects = _means(values - mean - column_effects[columns], rows)
            column_effects = _means(values - mean - row_effects[rows], columns)
        rest = values - mean - row_effects[rows] - column_effects[columns]
        freedom = max(1, len(values) - len(row_effects) - len(column_effects) + 1)
        left = float(np.sqrt((rest**2).sum() / freedom))
        return float(row_effects.std()), float(column_effects.std()), left


def _numbers(labels: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return labels as whole numbers from 0."""
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([known[label] for label in labels], np.intp)


def _means(values: Floats, numbers: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    return np.asarray(np.bincount(numbers, values) / np.bincount(numbers), np.float64)


def _curve_pairs(one: Finished, kept: Sequence[int]) -> list[tuple[float, float]]:
    """Return what curves told half-way of pairs of studies that both met their target.

    Returns:
        The difference of log distances to the target, and the difference of log times.
    """
    pairs = []
    for w, n in np.ndindex(len(one.contest.workloads), one.contest.studies):
        for a, b in itertools.combinations(kept, 2):
            first, second = one.board[a, w, n], one.board[b, w, n]
            if not (first.has_hit and second.has_hit) or min(first.hit_s, second.hit_s) <= 0:
                continue
            now = HALF_WAY * min(first.hit_s, second.hit_s)
            gaps = first.gap_at(now), second.gap_at(now)
            if gaps[0] is not None and gaps[1] is not None:
                times = math.log(first.hit_s / second.hit_s)
                pairs.append((log_gap(gaps[0], gaps[1]), times))
    return pairs


def log_gap(first: float, second: float) -> float:
    """Return the logarithm of the ratio of two distances to a target, within bounds."""
    return float(np.clip(math.log(first / second), -LARGEST_LOG_GAP, LARGEST_LOG_GAP))

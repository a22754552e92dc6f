"""Statistical intervals: how far scores and ranks would move in another competition.

Estimand. A score rests on n studies per workload, so another competition of the same submissions
and workloads, with n studies again, would give another score. The interval is for the expected
score of such a competition; the probabilities (of a rank, of A beating B) are over such
competitions. docs/scoring.md has the measured coverage.

Two estimators. `pooled` (the default) fits a model to the studies and draws fresh competitions from
the fit; its interval is the score +- t standard deviations of the draws, where t is the 97.5 %
quantile of Student's t at the degrees of freedom of the fit. `percentile` is the plain bootstrap:
it resamples the studies of each cell and takes percentiles of the scores.

Legend: R resamples, S submissions, W workloads, B base workloads, N studies.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from algoperf import errors
from scoring.analysis.pooled_model import StudyModel, fit, t_quantile
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import Layout, Rules

Floats = NDArray[np.float64]

OVER = ("studies", "workloads", "both")
METHODS = ("pooled", "percentile")
RESAMPLES = 10_000
LEVEL = 0.95
MIN_STUDIES, MIN_WORKLOADS = 2, 3
CHUNK_VALUES = 1_000_000  # This is how many times are drawn at once, so that memory stays small.


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """The scores of R resampled competitions beside the scores of the real one.

    Attributes:
        over: What was resampled: 'studies', 'workloads' or 'both'.
        method: 'pooled' or 'percentile'.
        scores_S: Array (S submissions,): the scores of the real competition.
        scores_RS: Array (R resamples, S): the scores of the resampled competitions; empty where not
            estimable.
        quantile: Half the pooled interval is this number times the standard deviation of the
            resamples.
        not_estimable: Why there is no interval, '' where there is one. The intervals are NaN
            without one.
    """

    over: str
    method: str
    scores_S: Floats
    scores_RS: Floats
    quantile: float
    not_estimable: str = ""

    @property
    def score_interval(self) -> Floats:
        """The 95 % interval of the expected score, array (S submissions, 2) within [0, 1]."""
        if self.not_estimable:
            return np.full((len(self.scores_S), 2), np.nan)
        if self.method == "percentile":
            return percentiles(self.scores_RS)
        half = self.quantile * self.scores_RS.std(axis=0, ddof=1)
        ends = np.stack([self.scores_S - half, self.scores_S + half], axis=-1)
        return np.asarray(np.clip(ends, 0.0, 1.0))

    @property
    def ranks(self) -> NDArray[np.int64]:
        """The rank of each submission in each resample, array (R resamples, S submissions)."""
        return scoring_rules.ranks(self.scores_RS)

    @property
    def rank_interval(self) -> Floats:
        """The ranks between which 95 % of the resamples lie, array (S submissions, 2)."""
        if self.not_estimable:
            return np.full((len(self.scores_S), 2), np.nan)
        return percentiles(self.ranks, discrete=True)

    @property
    def p_first(self) -> Floats:
        """The probability that each submission is first, array (S,).

        It is the share of resamples. Those that tie for the first place share it evenly, and nobody
        is first where every score is 0, as all missed.
        """
        if self.not_estimable:
            return np.full(len(self.scores_S), np.nan)
        first_RS = (self.ranks == 1) & (self.scores_RS > 0)
        return np.asarray(
            (first_RS / np.maximum(first_RS.sum(axis=1, keepdims=True), 1)).mean(axis=0), np.float64
        )

    @property
    def p_beats(self) -> Floats:
        """The share of resamples in which the row's score is above the column's, array (S, S)."""
        count = len(self.scores_S)
        if self.not_estimable:
            return np.full((count, count), np.nan)
        columns = [
            (self.scores_RS[:, index, None] > self.scores_RS).mean(axis=0) for index in range(count)
        ]
        return np.array(columns, np.float64).reshape(count, count)


def percentiles(values_RS: NDArray[np.number], *, discrete: bool = False) -> Floats:
    """Return the central 95 % of each column.

    Args:
        values_RS: Array (R resamples, S columns).
        discrete: Whether the ends must be values of the column; otherwise they are interpolated.

    Returns:
        Array (S, 2) of the lower and upper ends.
    """
    tail = 100 * (1 - LEVEL) / 2
    ends = [tail, 100 - tail]
    values_RS = values_RS.astype(np.float64)
    if discrete:
        return np.asarray(np.percentile(values_RS, ends, axis=0, method="inverted_cdf")).T
    return np.asarray(np.percentile(values_RS, ends, axis=0)).T


def bootstrap(
    times_SWN: Floats,
    layout: Layout,
    rules: Rules,
    *,
    over: str = "studies",
    method: str = "pooled",
    resamples: int = RESAMPLES,
    seed: int = 0,
    log_errors_SWN: Floats | None = None,
) -> Bootstrap:
    """Resample a competition many times and score each resample.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times to target; inf is a missed
            study, NaN is no study.
        layout: The meaning of the columns.
        rules: The rule set.
        over: What to resample: the 'studies' of each cell, the base 'workloads' (each with its
            variants), or 'both'.
        method: 'pooled' or 'percentile', for studies. Over workloads or both there is no model to
            fit, so the method is always 'percentile'.
        resamples: The number of competitions to draw.
        seed: The seed of the random draws.
        log_errors_SWN: What the distance between evaluations leaves open in each time (see
            `scoring.analysis.pooled_model.fit`); it widens the pooled intervals.

    Raises:
        UserError: `over` or `method` is unknown.
    """
    for name, value, allowed in (("over", over, OVER), ("method", method, METHODS)):
        if value not in allowed:
            raise errors.UserError(f"unknown {name} {value!r}; one of: {', '.join(allowed)}")
    if over != "studies":
        method = "percentile"
    ratios_SB = scoring_rules.credited_ratios(
        scoring_rules.median_over_studies(times_SWN), layout, rules
    )
    credits_SB = scoring_rules.credits(ratios_SB, rules)
    point_S = scoring_rules.mean_credit(ratios_SB, rules)
    reason = why_not_estimable(times_SWN, layout, over)
    model = fit(times_SWN, log_errors_SWN)
    quantile = t_quantile(model.freedom)
    if reason:
        return Bootstrap(over, method, point_S, np.empty((0, len(point_S))), quantile, reason)
    generator = np.random.default_rng(seed)
    scores = []
    for count in _chunks(resamples, times_SWN.size):
        if over != "workloads":
            if method == "pooled":
                medians_RSW = pooled_medians(model, count, generator)
            else:
                medians_RSW = resampled_medians(times_SWN, count, generator)
            ratios_RSB = scoring_rules.credited_ratios(medians_RSW, layout, rules)
            credits_RSB = scoring_rules.credits(ratios_RSB, rules)
        else:
            credits_RSB = np.broadcast_to(credits_SB, (count, *credits_SB.shape))
        if over != "studies":
            places_RB = generator.integers(0, len(layout.base), (count, len(layout.base)))
            credits_RSB = np.take_along_axis(credits_RSB, places_RB[:, None, :], axis=-1)
        scores.append(credits_RSB.mean(axis=-1))
    return Bootstrap(over, method, point_S, np.concatenate(scores), quantile)


def why_not_estimable(times_SWN: Floats, layout: Layout, over: str) -> str:
    """Return why no interval can be estimated; '' where one can.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times; NaN is no study.
        layout: The meaning of the columns.
        over: What would be resampled. Studies need MIN_STUDIES per scored workload, workloads need
            MIN_WORKLOADS base workloads.
    """
    if not len(times_SWN) or not layout.base:
        return "no submission" if layout.base else "no workload is scored"
    if over != "workloads":
        studies_W = (~np.isnan(times_SWN)).sum(axis=-1).max(axis=0, initial=0)
        columns = [*(column for column in layout.base if column >= 0), *dict(layout.variants)]
        for column in columns:
            if studies_W[column] < MIN_STUDIES:
                studies = "1 study" if studies_W[column] == 1 else "0 studies"
                return f"{layout.workloads[column]} has {studies}; 2 are needed"
    if over != "studies" and len(layout.base) < MIN_WORKLOADS:
        workloads = "workload" if len(layout.base) == 1 else "workloads"
        return f"{len(layout.base)} {workloads}; {MIN_WORKLOADS} are needed"
    return ""


def _chunks(resamples: int, values: int) -> Iterator[int]:
    size = max(1, CHUNK_VALUES // max(1, values))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def resampled_medians(times_SWN: Floats, resamples: int, generator: Generator) -> Floats:
    """Return the medians of studies drawn with replacement from each cell.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times; inf is a missed study,
            NaN is no study.
        resamples: The number R of draws.
        generator: The source of random numbers.

    Returns:
        Array (R, S, W) of median times; NaN for a cell without studies.
    """
    ordered_SWN = np.sort(times_SWN, axis=-1)  # numpy sorts NaN last.
    count_SW = (~np.isnan(times_SWN)).sum(axis=-1)
    medians_RSW = np.full((resamples, *count_SW.shape), np.nan)
    for count in np.unique(count_SW[count_SW > 0]).tolist():
        cells_CN = ordered_SWN[count_SW == count]
        low_RC, high_RC = _middles(count, (resamples, len(cells_CN)), generator)
        cell_C = np.arange(len(cells_CN))
        low, high = cells_CN[cell_C, low_RC], cells_CN[cell_C, high_RC]
        medians_RSW[:, count_SW == count] = np.where(low == high, low, low / 2 + high / 2)
    return medians_RSW


def _middles(
    count: int, shape: tuple[int, int], generator: Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices, among `count` ordered values, of the two middle ones of a resample.

    The resample has `count` values drawn with replacement; there is one for each element of
    `shape`.
    """
    drawn = generator.integers(0, count, (*shape, count))
    drawn.partition(((count - 1) // 2, count // 2), axis=-1)
    return drawn[..., (count - 1) // 2], drawn[..., count // 2]


def pooled_medians(model: StudyModel, resamples: int, generator: Generator) -> Floats:
    """Return the medians of fresh studies drawn from the fitted model.

    Args:
        model: The fitted model of studies.
        resamples: The number R of competitions.
        generator: The source of random numbers.

    Returns:
        Array (R, S submissions, W workloads) of median times in seconds; inf is a miss, NaN is no
        study.
    """
    return scoring_rules.median_over_studies(model.draw(resamples, generator))

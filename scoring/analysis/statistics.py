"""Statistical intervals: how far scores and ranks would move in another competition.

Estimand. A score rests on n studies per workload, so another competition of the same submissions
and workloads, with n studies again, would give another score. The interval is for the expected
score of such a competition; the probabilities (of a rank, of A beating B) are over such
competitions. docs/scoring.md has the measured coverage.

Two estimators. `pooled` (the default) fits a model to the studies, draws its parameters from their
posterior, and fresh competitions from each: the interval holds the central 95 % of the expected
scores at these parameters, less a bias (see `expectations`).
`percentile` is the plain bootstrap: it resamples the studies of each cell and takes percentiles of
the scores. Both refuse an answer from too few studies (see `why_not_estimable`).

Legend: R resamples, P draws of parameters, C competitions of each, S submissions, W workloads, B
base workloads, N studies.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from algoperf import errors
from scoring.analysis.pooled_model import COMPETITIONS, STEADY, StudyModel, fit
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import Layout, Rules

Floats = NDArray[np.float64]

OVER = ("studies", "workloads", "both")
METHODS = ("pooled", "percentile")
RESAMPLES = 10_000
LEVEL = 0.95
MIN_STUDIES, MIN_WORKLOADS = 2, 3
# If studies miss with a chance of 30 %, so many show a miss with a probability of 95 %: it is the
# least n with .7^n <= .05 (Hanley & Lippman-Hand, If nothing goes wrong, is everything all right?,
# JAMA 249, 1983). Fewer without a miss tell too little of what other studies would come to.
HIDDEN_MISSES = 0.3
MIN_STUDIES_IN_ALL = math.ceil(math.log(1 - LEVEL) / math.log(1 - HIDDEN_MISSES))
MIN_FREEDOM = 2  # From here on the posterior of a spread has a finite mean.
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
        expected_PS: Array (P draws of parameters, S): expected scores at parameters drawn from
            their posterior, less their bias; empty for 'percentile' and where not estimable.
        not_estimable: Why there is no interval, '' where there is one. The intervals are NaN
            without one.
    """

    over: str
    method: str
    scores_S: Floats
    scores_RS: Floats
    expected_PS: Floats
    not_estimable: str = ""

    @property
    def score_interval(self) -> Floats:
        """The 95 % interval of the expected score, array (S submissions, 2) within [0, 1]."""
        if self.not_estimable:
            return np.full((len(self.scores_S), 2), np.nan)
        if self.method == "percentile":
            return percentiles(self.scores_RS)
        return np.asarray(np.clip(percentiles(self.expected_PS), 0.0, 1.0))

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
    none = np.empty((0, len(point_S)))
    if reason:
        return Bootstrap(over, method, point_S, none, none, reason)
    generator = np.random.default_rng(seed)

    def score_of(medians_RSW: Floats) -> Floats:
        return scoring_rules.mean_credit(
            scoring_rules.credited_ratios(medians_RSW, layout, rules), rules
        )

    if method == "pooled":
        model = fit(times_SWN, log_errors_SWN)
        drawn_PCS, expected_PS = expectations(model, score_of, resamples, generator)
        scores_RS = drawn_PCS.reshape(-1, len(point_S))[:resamples]
        return Bootstrap(over, method, point_S, scores_RS, expected_PS)
    scores = []
    for count in _chunks(resamples, times_SWN.size):
        if over != "workloads":
            medians_RSW = resampled_medians(times_SWN, count, generator)
            ratios_RSB = scoring_rules.credited_ratios(medians_RSW, layout, rules)
            credits_RSB = scoring_rules.credits(ratios_RSB, rules)
        else:
            credits_RSB = np.broadcast_to(credits_SB, (count, *credits_SB.shape))
        if over != "studies":
            places_RB = generator.integers(0, len(layout.base), (count, len(layout.base)))
            credits_RSB = np.take_along_axis(credits_RSB, places_RB[:, None, :], axis=-1)
        scores.append(credits_RSB.mean(axis=-1))
    return Bootstrap(over, method, point_S, np.concatenate(scores), none)


def expectations(
    model: StudyModel,
    statistic: Callable[[Floats], Floats],
    resamples: int,
    generator: Generator,
) -> tuple[Floats, Floats]:
    """Return a statistic of fresh competitions, and the posterior of its expectation.

    The real statistic is an unbiased estimate of the expectation. But the expectation at parameters
    that are themselves drawn around those of the real competition is off, as its times are
    perturbed twice: the best of several is then too good. So each expectation is shifted by the
    mean difference between competitions with perturbed times and the same ones, miss for miss, with
    the real competition's times.

    Args:
        model: The fitted model of studies.
        statistic: Maps medians, array (..., S, W), to values, array (..., S); NaN where undefined.
        resamples: At least how many competitions to draw.
        generator: The source of random numbers.

    Returns:
        Array (P, C, S) of values of fresh competitions; and array (P, S) of expectations, NaN where
        no competition has a value.
    """
    drawn: list[Floats] = []
    steady: list[Floats] = []
    for count in _chunks(-(-resamples // COMPETITIONS), model.studies_SWN.size * COMPETITIONS):
        for times, into in zip(model.draw(count, generator), (drawn, steady), strict=True):
            into.append(statistic(scoring_rules.median_over_studies(times)))
    drawn_PCS, steady_PCS = np.concatenate(drawn), np.concatenate(steady)
    bias_PCS = drawn_PCS[:, :STEADY] - steady_PCS
    return drawn_PCS, mean_of_known(drawn_PCS, axis=1) - mean_of_known(bias_PCS, axis=(0, 1))


def mean_of_known(values: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Return the mean over an axis of the values that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def why_not_estimable(times_SWN: Floats, layout: Layout, over: str) -> str:
    """Return why no interval can be estimated; '' where one can.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times; NaN is no study.
        layout: The meaning of the columns.
        over: What would be resampled. Studies need MIN_STUDIES per scored workload,
            MIN_STUDIES_IN_ALL of all submissions together and MIN_FREEDOM degrees of freedom of the
            spread of times; workloads need MIN_WORKLOADS base workloads.
    """
    if not len(times_SWN) or not layout.base:
        return "no submission" if layout.base else "no workload is scored"
    if over != "workloads":
        studies_W = (~np.isnan(times_SWN)).sum(axis=-1).max(axis=0, initial=0)
        columns = [*(column for column in layout.base if column >= 0), *dict(layout.variants)]
        for column in columns:
            if studies_W[column] < MIN_STUDIES:
                studies = "1 study" if studies_W[column] == 1 else "0 studies"
                return f"{layout.workloads[column]} has {studies}; {MIN_STUDIES} are needed"
        if reason := _too_little(times_SWN[:, columns]):
            return reason
    if over != "studies" and len(layout.base) < MIN_WORKLOADS:
        workloads = "workload" if len(layout.base) == 1 else "workloads"
        return f"{len(layout.base)} {workloads}; {MIN_WORKLOADS} are needed"
    return ""


def _too_little(times_SWN: Floats) -> str:
    """Return what studies of too few numbers or too few times lack; '' if they suffice."""
    count = int((~np.isnan(times_SWN)).sum())
    if count < MIN_STUDIES_IN_ALL:
        return (
            f"all submissions and workloads have {count} studies together; {MIN_STUDIES_IN_ALL} "
            f"are needed, as fewer may hide that {HIDDEN_MISSES:.0%} would miss the target"
        )
    freedom = fit(times_SWN).freedom
    if freedom < MIN_FREEDOM:
        return (
            f"the spread of times has {freedom} degree{'' if freedom == 1 else 's'} of freedom "
            f"(targets reached again in another study); {MIN_FREEDOM} are needed"
        )
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
    """Return the medians of fresh studies drawn from the fitted model and its uncertainty.

    Args:
        model: The fitted model of studies.
        resamples: The number R of competitions.
        generator: The source of random numbers.

    Returns:
        Array (R, S submissions, W workloads) of median times in seconds; inf is a miss, NaN is no
        study.
    """
    times, _ = model.draw(-(-resamples // COMPETITIONS), generator)
    medians_PCSW = scoring_rules.median_over_studies(times)
    return medians_PCSW.reshape(-1, *medians_PCSW.shape[2:])[:resamples]

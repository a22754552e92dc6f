"""How far scores and ranks would move in another competition.

Estimand. A score rests on n studies a workload, so another competition of the same submissions,
workloads and n would give another. The interval is for the expected score of such a competition;
the probabilities (of a rank, of A beating B) are over such competitions. docs/scoring.md has the
measured coverage.

Two estimators. `pooled` (the default) fits the studies and draws fresh competitions from the fit;
its interval is the score +- t standard deviations of the draws, t the 97.5 % quantile of Student's
t at the degrees of freedom of the fit. `percentile` is the plain
bootstrap: it resamples the studies of each cell and takes percentiles of the scores.

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
CHUNK_VALUES = 1_000_000  # times drawn at once, so that memory stays small


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """The scores of R resampled competitions beside those of the real one.

    `quantile` times the standard deviation of the draws is half the pooled interval.
    `not_estimable` says why there is no answer, '' where there is one; then `scores_RS` is empty
    and the intervals are NaN.
    """

    over: str
    method: str
    scores_S: Floats
    scores_RS: Floats
    quantile: float
    not_estimable: str = ""

    @property
    def score_interval(self) -> Floats:
        """95 % interval of the expected score, (S, 2), inside [0, 1]."""
        if self.not_estimable:
            return np.full((len(self.scores_S), 2), np.nan)
        if self.method == "percentile":
            return percentiles(self.scores_RS)
        half = self.quantile * self.scores_RS.std(axis=0, ddof=1)
        ends = np.stack([self.scores_S - half, self.scores_S + half], axis=-1)
        return np.asarray(np.clip(ends, 0.0, 1.0))

    @property
    def ranks(self) -> NDArray[np.int64]:
        """The place of each submission in each resample, (R, S)."""
        return scoring_rules.ranks(self.scores_RS)

    @property
    def rank_interval(self) -> Floats:
        """The places between which 95 % of the resamples lie, (S, 2)."""
        if self.not_estimable:
            return np.full((len(self.scores_S), 2), np.nan)
        return percentiles(self.ranks, discrete=True)

    @property
    def p_first(self) -> Floats:
        """In which share of the resamples each submission is first (or ties for it), (S,)."""
        if self.not_estimable:
            return np.full(len(self.scores_S), np.nan)
        return np.asarray((self.ranks == 1).mean(axis=0), np.float64)

    @property
    def p_beats(self) -> Floats:
        """In which share of the resamples the row's score is above the column's, (S, S)."""
        count = len(self.scores_S)
        if self.not_estimable:
            return np.full((count, count), np.nan)
        columns = [
            (self.scores_RS[:, index, None] > self.scores_RS).mean(axis=0) for index in range(count)
        ]
        return np.array(columns, np.float64).reshape(count, count)


def percentiles(values_RS: NDArray[np.number], *, discrete: bool = False) -> Floats:
    """The central 95 % of each column, (S, 2); `discrete`: ends that are values themselves."""
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
) -> Bootstrap:
    """Resample a competition; `times_SWN` as in `rules.scores`.

    `over`: the studies of every cell, the base workloads (each with its variant), or both. Over
    workloads alone there is nothing to fit: resampling it is, and percentiles. Raises UserError for
    another `over` or `method`.
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
    model = fit(times_SWN)
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
    """What is missing for an interval, '' where nothing is."""
    if not len(times_SWN) or not layout.base:
        return "no submission" if layout.base else "no workload is scored"
    if over != "workloads":
        studies_W = (~np.isnan(times_SWN)).sum(axis=-1).max(axis=0, initial=0)
        columns = [*(column for column in layout.base if column >= 0), *dict(layout.variants)]
        for column in columns:
            if studies_W[column] < MIN_STUDIES:
                return f"{layout.workloads[column]} has {studies_W[column]} study; 2 are needed"
    if over != "studies" and len(layout.base) < MIN_WORKLOADS:
        return f"{len(layout.base)} workloads; {MIN_WORKLOADS} are needed"
    return ""


def _chunks(resamples: int, values: int) -> Iterator[int]:
    size = max(1, CHUNK_VALUES // max(1, values))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def resampled_medians(times_SWN: Floats, resamples: int, generator: Generator) -> Floats:
    """Medians of studies drawn with replacement from each cell, (R, S, W)."""
    ordered_SWN = np.sort(times_SWN, axis=-1)  # NaN last
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
    """Which of `count` ordered values are the two middle ones of a draw with replacement."""
    drawn = generator.integers(0, count, (*shape, count))
    drawn.partition(((count - 1) // 2, count // 2), axis=-1)
    return drawn[..., (count - 1) // 2], drawn[..., count // 2]


def pooled_medians(model: StudyModel, resamples: int, generator: Generator) -> Floats:
    """Medians of fresh studies drawn from the fit, (R, S, W)."""
    return scoring_rules.median_over_studies(model.draw(resamples, generator))

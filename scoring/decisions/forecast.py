"""A forecast of the difference between the scores of two submissions, from what is known so far.

The logarithm of the time to target of submission s in study n of workload w, as a share of the
budget, is taken to be

    a[w] + q[s] + e[s, w] + v[s, w, n]

with independent normal terms: what the workload takes, what the submission takes on all workloads,
what it takes on this one, and the study; a time over the budget is a miss, and a study may be lost
at any speed. The standard deviations are those of a prior (scoring.decisions.priors). What is known
conditions it:

- a time to target is the sum itself;
- a study without a hit at its clock, or at its end, has a time above it, or is lost;
- where both of a pair run and neither has met the target, the logarithm of the ratio of their
  distances to it tells the difference of their log times, with an error.

The difference q of the two submissions is taken at a few points (Gauss-Hermite); given q, workloads
are independent. For each, draws from the prior are conditioned on what is exact (Matheron's rule)
and weighted by the rest, their medians over studies are scored by the rules, and mean and variance
of the difference of credits are added over workloads. The draws are the same every time, so the
same evidence gives the same forecast.

Legend: Q points of q, M draws, N studies, W workloads of a group (a base and its variants).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from scoring.decisions.contest import Board, Contest, Seen
from scoring.decisions.priors import Prior, log_gap
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import BY_THE_RULES, Floats, make_layout, median_over_studies

POINTS = 7
DRAWS = 200
# A time is known to this variance of its logarithm.
EXACT = 1e-6
SHORTEST_S = 1e-9
# A row of coefficients of log times, the value of their sum, and the variance of its error.
Observation = tuple[Floats, float, float]


@dataclasses.dataclass(frozen=True)
class Lead:
    """What is forecast of the score of the first of a pair minus that of the second.

    Attributes:
        probability: The probability that it is above 0.
        mean: Its mean.
        deviation: Its standard deviation.
        open_by_workload: For each base workload, the variance of its difference of credits: what is
            still open about it.
        small: The probability that its size is below the difference that the caller named.
    """

    probability: float
    mean: float
    deviation: float
    open_by_workload: tuple[float, ...]
    small: float = 0.0


class Forecast:
    """The forecast of one pair; workloads are updated one at a time as evidence comes."""

    def __init__(
        self,
        contest: Contest,
        pair: tuple[int, int],
        prior: Prior,
        *,
        curves: bool = True,
        small: float = 0.0,
    ) -> None:
        """Start from nothing.

        Args:
            contest: What is compared.
            pair: The submissions compared.
            prior: How times scatter.
            curves: Whether distances to the target count as evidence.
            small: The size of a difference of scores that `Lead.small` is about.
        """
        self._contest, self._pair, self._prior = contest, pair, prior
        self._curves, self._small = curves, small
        points, weights = np.polynomial.hermite_e.hermegauss(POINTS)
        self._q_Q = points * prior.between_submissions
        self._log_weights_Q = np.log(weights / weights.sum())
        count = 2 * contest.studies
        covariance = np.full((count, count), prior.between_workloads**2)
        for half in (slice(0, contest.studies), slice(contest.studies, count)):
            covariance[half, half] += prior.within_workload**2
        self._covariance = covariance + np.eye(count) * prior.between_studies**2
        self._log_likelihoods: dict[int, Floats] = {}
        self._medians: dict[int, Floats] = {}
        self._groups = contest.groups
        self._differences: dict[int, tuple[Floats, Floats]] = {}

    def update(self, board: Board, w: int) -> None:
        """Take in what is known of one workload."""
        likelihoods_Q, medians_QM2 = self._condition(board, w)
        self._log_likelihoods[w], self._medians[w] = likelihoods_Q, medians_QM2
        for number, group in enumerate(self._groups):
            if w in group:
                self._differences.pop(number, None)

    def lead(self) -> Lead:
        """Return the forecast; every workload has to have been updated once."""
        log_weights_Q = self._log_weights_Q + sum(self._log_likelihoods.values())
        weights_Q = np.exp(log_weights_Q - log_weights_Q.max())
        weights_Q /= weights_Q.sum()
        count = len(self._groups)
        mean_Q, variance_Q = np.zeros(POINTS), np.zeros(POINTS)
        still_open = []
        for number, group in enumerate(self._groups):
            if number not in self._differences:
                self._differences[number] = self._difference(group)
            means_Q, variances_Q = self._differences[number]
            mean_Q, variance_Q = mean_Q + means_Q, variance_Q + variances_Q
            overall = float((weights_Q * means_Q).sum())
            still_open.append(float((weights_Q * (variances_Q + (means_Q - overall) ** 2)).sum()))
        mean_Q, variance_Q = mean_Q / count, variance_Q / count**2
        deviation_Q = np.sqrt(variance_Q + 1e-8)
        mean = float((weights_Q * mean_Q).sum())
        variance = float((weights_Q * (variance_Q + (mean_Q - mean) ** 2)).sum())
        within_Q = ndtr((self._small - mean_Q) / deviation_Q) - ndtr(
            (-self._small - mean_Q) / deviation_Q
        )
        return Lead(
            float((weights_Q * ndtr(mean_Q / deviation_Q)).sum()),
            mean,
            math.sqrt(variance),
            tuple(still_open),
            float((weights_Q * within_Q).sum()),
        )

    def _center(self, w: int) -> float:
        """Return the mean log time of a workload, by how often its target is reached."""
        name = self._contest.workloads[w]
        share = self._prior.reached.get(name, self._prior.reached_elsewhere)
        return float(-self._prior.spread * ndtri(share))

    def _draws(self, w: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return draws (M, 2 N) of log times, without q, and which studies are lost."""
        generator, prior = np.random.default_rng(w), self._prior
        shape = DRAWS, 2, self._contest.studies
        drawn = (
            self._center(w)
            + generator.standard_normal((DRAWS, 1, 1)) * prior.between_workloads
            + generator.standard_normal((DRAWS, 2, 1)) * prior.within_workload
            + generator.standard_normal(shape) * prior.between_studies
        )
        lost = generator.random(shape) < prior.lost
        return drawn.reshape(DRAWS, -1), lost

    def _observed(self, cells: Sequence[Sequence[Seen]], budget_s: float) -> list[Observation]:
        """Return what is exactly or nearly known of sums of log times: a hit, or a curve."""
        studies = self._contest.studies
        observed = []
        for side, cell in enumerate(cells):
            for n, seen in enumerate(cell):
                if seen.has_hit:
                    row = np.zeros(2 * studies)
                    row[side * studies + n] = 1.0
                    log_time = math.log(max(seen.hit_s, SHORTEST_S) / budget_s)
                    observed.append((row, log_time, EXACT))
        for n in range(studies) if self._curves else ():
            first, second = cells[0][n], cells[1][n]
            if first.has_hit or second.has_hit:
                continue
            now = min(first.clock_s, second.clock_s)
            gaps = first.gap_at(now), second.gap_at(now)
            if gaps[0] is not None and gaps[1] is not None:
                row = np.zeros(2 * studies)
                row[n], row[studies + n] = 1.0, -1.0
                expected = self._prior.curve_slope * log_gap(gaps[0], gaps[1])
                observed.append((row, expected, self._prior.curve_error**2))
        return observed

    def _condition(self, board: Board, w: int) -> tuple[Floats, Floats]:
        """Return log likelihoods (Q,) and median times (Q, M, 2) as shares of the budget."""
        studies = self._contest.studies
        budget_s = self._contest.budgets_s[self._contest.workloads[w]]
        cells = [[board[s, w, n] for n in range(studies)] for s in self._pair]
        sides = np.repeat([0.5, -0.5], studies)
        shift_Q = np.outer(self._q_Q, sides)
        drawn, lost = self._draws(w)
        logs = drawn[None] + shift_Q[:, None, :]
        likelihood_Q = np.zeros(POINTS)
        observed = self._observed(cells, budget_s)
        if observed:
            rows, values, variances = (np.array(each) for each in zip(*observed, strict=True))
            told_by = self._covariance @ rows.T
            inverse = np.linalg.inv(rows @ told_by + np.diag(variances))
            noise = np.random.default_rng(10**6 + w).standard_normal((DRAWS, len(values)))
            off = values - logs @ rows.T - noise * np.sqrt(variances)
            logs = logs + off @ (told_by @ inverse).T
            off_Q = values - (self._center(w) * np.ones(2 * studies) + shift_Q) @ rows.T
            likelihood_Q = -0.5 * np.einsum("qi,ij,qj->q", off_Q, inverse, off_Q)
        logs = logs.reshape(POINTS, DRAWS, 2, studies)
        weights = np.ones((POINTS, DRAWS))
        shares = np.where(lost | (logs > 0), np.inf, np.exp(np.minimum(logs, 0.0)))
        for side, cell in enumerate(cells):
            for n, seen in enumerate(cell):
                here = side, n
                if seen.has_hit:
                    shares[..., *here] = seen.hit_s / budget_s
                elif seen.is_over:
                    shares[..., *here] = np.inf
                    weights = weights * np.where(logs[..., *here] > 0, 1.0, self._prior.lost)
                elif seen.clock_s > 0:
                    so_far = seen.clock_s / budget_s
                    is_above = logs[..., *here] > math.log(so_far)
                    weights = weights * np.where(is_above, 1.0, self._prior.lost)
                    is_past = shares[..., *here] <= so_far
                    shares[..., *here] = np.where(is_past, np.inf, shares[..., *here])
        likelihood_Q = likelihood_Q + np.log(weights.mean(axis=1) + 1e-12)
        medians_QM2 = median_over_studies(shares)
        return likelihood_Q, _resampled(medians_QM2, weights, w)

    def _difference(self, group: Sequence[int]) -> tuple[Floats, Floats]:
        """Return mean and variance (Q,) of the difference of credits on one base workload."""
        times_QMSW = np.stack([self._medians[w] for w in group], axis=-1)
        names = [self._contest.workloads[w] for w in group]
        layout = make_layout(names, names[:1], dict.fromkeys(names[1:], names[0]))
        ratios = scoring_rules.credited_ratios(times_QMSW, layout, BY_THE_RULES)
        credits_QMS = scoring_rules.credits(ratios, BY_THE_RULES)[..., 0]
        difference_QM = credits_QMS[..., 0] - credits_QMS[..., 1]
        return difference_QM.mean(axis=1), difference_QM.var(axis=1)


def _resampled(medians_QM2: Floats, weights_QM: Floats, w: int) -> Floats:
    """Return as many draws of equal weight, systematically, in an order of the workload's own.

    Draws of a base and of its variants are put together by their places, so that they are
    independent.
    """
    shares = np.cumsum(weights_QM, axis=1)
    shares /= shares[:, -1:]
    steps = (np.arange(DRAWS) + 0.5) / DRAWS
    taken = np.stack([np.searchsorted(each, steps).clip(0, DRAWS - 1) for each in shares])
    order = np.random.default_rng(2 * 10**6 + w).permutation(DRAWS)
    return np.take_along_axis(medians_QM2, taken[:, :, None], axis=1)[:, order]

"""A statistical model of studies: how a cell might come out if its study were run again.

A cell is one submission on one workload. A study misses its target with a probability of the cell's
own; otherwise the logarithm of its time is normal around the cell's mean. Three to five studies
determine neither well, so cells lend strength to each other, and what remains unknown is drawn too:
fresh competitions come from parameters drawn from their posterior, not from the fit alone.

Spreads: the variances of cells have a scaled inverse chi-squared distribution with
PRIOR_STUDIES degrees of freedom around a common scale, whose logarithm has a flat prior (Gelman et
al., Bayesian Data Analysis, 3rd ed. 2013, section 3.2 for one variance; Smyth, Linear models and
empirical Bayes methods for assessing differential expression in microarray experiments,
Statistical Applications in Genetics and Molecular Biology 3(1), 2004, section 6, for many). The
mean of a cell with n times is then normal around theirs with n-th of the variance. A time that was
read between two evaluations has an error of its own. Its studies share it where their evaluations
come at the same steps, so that they seem more alike than they are: no variance drawn for a cell is
below the mean square of the errors in it.

Misses: the probabilities of cells are beta with a common mean (Jeffreys' prior) and a correlation
between studies of a cell (a flat prior), each on a grid, and what the cell itself showed updates
them. Where no study missed, none is drawn; MIN_STUDIES_IN_ALL in `scoring.analysis.statistics` says
what that takes. Where nearly every cell always or never misses, as in real leaderboards, the
correlation is near one and leaves the cells apart.

A time of exactly 0 seconds has no logarithm: a study that reaches its target takes 0 seconds with
the share that it did in its cell, and only positive times are fitted.

Legend: P draws of parameters, C competitions of each, S submissions, W workloads, N studies.
"""

import dataclasses

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# An inverse chi-squared variance of 2 degrees of freedom has a logarithm of standard deviation
# sqrt(trigamma(1)) = 1.28. In AlgoPerf's logs the 90th percentile of the cells' standard deviations
# is 19 / 8 of the median: 2 ln(19 / 8) / 1.2816 = 1.35 (Smyth 2004 matches them the same way).
PRIOR_STUDIES = 2.0
COMPETITIONS = 20  # Competitions per draw of the parameters; their mean is the expected score.
STEADY = 4  # Of these, how many are drawn a second time without the spread of times.
SCALE_SPAN, SCALES = 12.0, 240  # The grid of the common log variance, around the pooled one.
MEANS, CORRELATIONS = 40, 25  # The sizes of the grids of the misses' prior.
# Times of a cell that agree to ten digits tell of a coarse clock and nothing of the common scale.
LEAST_SQUARES = 1e-20
LONGEST_LOG = 700.0  # A logarithm of a time that is still finite.


@dataclasses.dataclass(frozen=True, eq=False)
class StudyModel:
    """What a competition tells of the distribution of each cell's time to target.

    Attributes:
        log_time_SW: Array (S submissions, W workloads): mean of the logarithm of the time in
            seconds.
        timed_SW: Array (S, W): the number of studies that reached the target in a positive time.
        squares_SW: Array (S, W): the sum of squared deviations of the log times from their mean.
        least_variance_SW: Array (S, W): the mean square of the errors that the log times have, as
            each lies between two evaluations.
        misses_SW: Array (S, W): the number of studies that missed.
        p_zero_SW: Array (S, W): the probability that a study which reaches its target takes exactly
            0 seconds.
        hopeless_SW: Array (S, W): the cells that always miss, as nothing tells of their time.
        studies_SWN: Array (S, W, N studies): which studies a fresh competition has.
    """

    log_time_SW: Floats
    timed_SW: NDArray[np.int64]
    squares_SW: Floats
    least_variance_SW: Floats
    misses_SW: NDArray[np.int64]
    p_zero_SW: Floats
    hopeless_SW: NDArray[np.bool_]
    studies_SWN: NDArray[np.bool_]

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the pooled variance."""
        return int(np.maximum(self.timed_SW - 1, 0).sum())

    def draw(self, count: int, generator: Generator) -> tuple[Floats, Floats]:
        """Draw parameters from their posterior, and competitions from each.

        Args:
            count: The number P of draws of the parameters.
            generator: The source of random numbers.

        Returns:
            Times in seconds of all competitions, array (P, C, S, W, N), where inf is a missed study
            and NaN is no study; and of the first STEADY of them, with the same misses, had every
            study that reaches its target taken the time that is typical of its cell in the real
            competition.
        """
        spread_PSW = self.draw_spreads(count, generator)
        noise_PSW = generator.standard_normal(spread_PSW.shape)
        mean_PSW = self.log_time_SW + spread_PSW / np.sqrt(np.maximum(self.timed_SW, 1)) * noise_PSW
        shape = (count, COMPETITIONS, *self.studies_SWN.shape)
        times = generator.standard_normal(shape)
        times *= spread_PSW[:, None, ..., None]
        times += mean_PSW[:, None, ..., None]
        np.clip(times, -LONGEST_LOG, LONGEST_LOG, out=times)
        np.exp(times, out=times)
        steady = np.broadcast_to(
            np.exp(self.log_time_SW)[..., None], (count, STEADY, *shape[2:])
        ).copy()
        # Zeros and misses are drawn only where there are any.
        if self.p_zero_SW.any():
            _put(0.0, generator.random(shape) < self.p_zero_SW[..., None], times, steady)
        if self.misses_SW.any() or self.hopeless_SW.any():
            p_miss_PSW = self.draw_miss_probabilities(count, generator)
            _put(np.inf, generator.random(shape) < p_miss_PSW[:, None, ..., None], times, steady)
        _put(np.nan, np.broadcast_to(~self.studies_SWN, shape), times, steady)
        return times, steady

    def draw_spreads(self, count: int, generator: Generator) -> Floats:
        """Draw the standard deviation of each cell's log time, array (P, S, W)."""
        freedom_SW = np.maximum(self.timed_SW - 1, 0)
        shape = (count, *freedom_SW.shape)
        told_SW = (freedom_SW > 0) & (self.squares_SW > LEAST_SQUARES)
        if not told_SW.any():
            return np.broadcast_to(np.sqrt(self.least_variance_SW), shape)
        counts, squares = freedom_SW[told_SW], self.squares_SW[told_SW]
        pooled = squares.sum() / counts.sum()
        width = 2 * SCALE_SPAN / SCALES
        log_scales = np.log(pooled) - SCALE_SPAN + width * (np.arange(SCALES) + 0.5)
        prior = PRIOR_STUDIES * np.exp(log_scales)[:, None]
        # The density of a cell's squares given the scale, with the cell's variance integrated out.
        log_density = PRIOR_STUDIES / 2 * np.log(prior)
        log_density = log_density - (counts + PRIOR_STUDIES) / 2 * np.log(prior + squares)
        picked = generator.choice(SCALES, count, p=_shares(log_density.sum(axis=-1)))
        within = generator.uniform(-width / 2, width / 2, count)
        scale_P11 = np.exp(log_scales[picked] + within)[:, None, None]
        squares_PSW = PRIOR_STUDIES * scale_P11 + self.squares_SW
        variance_PSW = squares_PSW / generator.chisquare(PRIOR_STUDIES + freedom_SW, shape)
        return np.asarray(np.sqrt(np.maximum(variance_PSW, self.least_variance_SW)), np.float64)

    def draw_miss_probabilities(self, count: int, generator: Generator) -> Floats:
        """Draw the probability that a study of each cell misses, array (P, S, W)."""
        studies_SW = self.studies_SWN.sum(axis=-1)
        shape = (count, *studies_SW.shape)
        if not self.misses_SW.any():
            return np.broadcast_to(np.where(self.hopeless_SW, 1.0, 0.0), shape)
        mean_M1 = ((np.arange(MEANS) + 0.5) / MEANS)[:, None]
        correlation_C = (np.arange(CORRELATIONS) + 0.5) / CORRELATIONS
        strength_C = (1 - correlation_C) / correlation_C
        miss_MC, hit_MC = mean_M1 * strength_C, (1 - mean_M1) * strength_C
        log_density = -0.5 * np.log(mean_M1 * (1 - mean_M1)) + np.zeros(miss_MC.shape)
        pairs = np.stack([self.misses_SW, studies_SW - self.misses_SW], axis=-1).reshape(-1, 2)
        for (misses, hits), cells in zip(
            *np.unique(pairs, axis=0, return_counts=True), strict=True
        ):
            # The beta function at whole steps apart is a product, and needs no library.
            log_density += cells * (
                _log_rising(miss_MC, misses)
                + _log_rising(hit_MC, hits)
                - _log_rising(miss_MC + hit_MC, misses + hits)
            )
        picked = generator.choice(log_density.size, count, p=_shares(log_density.ravel()))
        miss_P11, hit_P11 = (
            part_MC.ravel()[picked][:, None, None] for part_MC in (miss_MC, hit_MC)
        )
        drawn = generator.beta(miss_P11 + self.misses_SW, hit_P11 + studies_SW - self.misses_SW)
        return np.where(self.hopeless_SW, 1.0, drawn)


def _log_rising(start: Floats, count: int) -> Floats:
    """Return the logarithm of start (start + 1) ... (start + count - 1)."""
    return np.asarray(sum((np.log(start + step) for step in range(count)), np.zeros_like(start)))


def fit(times_SWN: Floats, log_errors_SWN: Floats | None = None) -> StudyModel:
    """Fit the model of studies to a competition.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times in seconds; inf is a
            missed study, NaN is no study.
        log_errors_SWN: Array (S, W, N): the standard deviation of the error in the logarithm of
            each time, as the time lies between two evaluations. None is no error.
    """
    present_SWN = ~np.isnan(times_SWN)
    hits_SW = np.isfinite(times_SWN).sum(axis=-1)
    timed_SWN = np.isfinite(times_SWN) & (times_SWN > 0)
    timed_SW = timed_SWN.sum(axis=-1)
    log_SWN = np.log(np.where(timed_SWN, times_SWN, 1.0))
    mean_SW = log_SWN.sum(axis=-1) / np.maximum(timed_SW, 1)
    squares_SW = np.where(timed_SWN, (log_SWN - mean_SW[..., None]) ** 2, 0.0).sum(axis=-1)
    errors_SWN = np.zeros(times_SWN.shape) if log_errors_SWN is None else log_errors_SWN
    squared_errors_SW = np.where(timed_SWN, errors_SWN**2, 0.0).sum(axis=-1)
    least_variance_SW = squared_errors_SW / np.maximum(timed_SW, 1)
    log_time_SW, known_SW = _fill(mean_SW, timed_SW > 0)
    p_zero_SW = (hits_SW - timed_SW) / np.maximum(hits_SW, 1)
    misses_SW = present_SWN.sum(axis=-1) - hits_SW
    hopeless_SW = ~known_SW & (hits_SW == 0)
    return StudyModel(
        log_time_SW,
        timed_SW,
        squares_SW,
        least_variance_SW,
        misses_SW,
        p_zero_SW,
        hopeless_SW,
        present_SWN,
    )


def _shares(log_weights: Floats) -> Floats:
    """Return weights that add up to one from their logarithms."""
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def _put(value: float, where: NDArray[np.bool_], times: Floats, steady: Floats) -> None:
    """Set `value` in times, and in the steady ones where the competitions are the same."""
    times[where] = value
    steady[where[:, :STEADY]] = value


def _fill(mean_SW: Floats, reached_SW: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """Fill in the log times of cells without a positive time, from effects of row and column.

    A cell in whose row or whose column nobody has a positive time stays unknown: it always misses,
    unless it reached in 0 seconds itself. The second array says which cells are known.
    """
    count_W = np.maximum(reached_SW.sum(axis=0), 1)
    workload_W = np.where(reached_SW, mean_SW, 0.0).sum(axis=0) / count_W
    residual_SW = np.where(reached_SW, mean_SW - workload_W, 0.0)
    submission_S = residual_SW.sum(axis=1) / np.maximum(reached_SW.sum(axis=1), 1)
    known_SW = reached_SW.any(axis=1, keepdims=True) & reached_SW.any(axis=0, keepdims=True)
    return np.where(reached_SW, mean_SW, workload_W + submission_S[:, None]), np.asarray(known_SW)

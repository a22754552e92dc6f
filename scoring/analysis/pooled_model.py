"""A statistical model of studies: how a cell might come out if its study were run again.

A cell is one submission on one workload. A study misses its target with a probability of the cell's
own; otherwise the logarithm of its time is normal around the cell's mean. Three to five studies
determine neither well, so cells lend strength to each other: the probabilities are beta-binomial,
with a prior fitted to all cells by the method of moments, and the variances are shrunk towards the
pooled variance, which weighs as much as PRIOR_STUDIES degrees of freedom. Where nearly every cell
always or never misses, as in real leaderboards, the fitted prior leaves the cells apart. A time of
exactly 0 seconds has no logarithm: a study that reaches its target takes 0 seconds with the share
that it did in its cell, and only positive times are fitted.

Legend: R resamples, S submissions, W workloads, N studies.
"""

import dataclasses

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR_STUDIES = 4.0
# These bounds on the intra-class correlation of misses keep the prior finite.
CORRELATION = (0.02, 0.98)


@dataclasses.dataclass(frozen=True, eq=False)
class StudyModel:
    """The fitted distribution of each cell's time to target.

    Attributes:
        log_time_SW: Array (S submissions, W workloads): mean of the logarithm of the time in
            seconds.
        spread_SW: Array (S, W): standard deviation of the logarithm of the time.
        p_miss_SW: Array (S, W): the probability that a study misses its target.
        p_zero_SW: Array (S, W): the probability that a study which reaches its target takes exactly
            0 seconds.
        studies_SWN: Array (S, W, N studies): which studies a fresh competition has.
        freedom: The degrees of freedom of the pooled variance.
    """

    log_time_SW: Floats
    spread_SW: Floats
    p_miss_SW: Floats
    p_zero_SW: Floats
    studies_SWN: NDArray[np.bool_]
    freedom: int

    def draw(self, resamples: int, generator: Generator) -> Floats:
        """Draw the times of fresh competitions.

        Args:
            resamples: The number R of competitions.
            generator: The source of random numbers.

        Returns:
            Array (R, S, W, N) of times in seconds; inf is a missed study, NaN is no study.
        """
        shape = (resamples, *self.studies_SWN.shape)
        times = generator.standard_normal(shape)
        times *= self.spread_SW[..., None]
        times += self.log_time_SW[..., None]
        np.exp(times, out=times)
        # Zeros are drawn only where there are any, so that other draws stay the same.
        if self.p_zero_SW.any():
            times[generator.random(shape) < self.p_zero_SW[..., None]] = 0.0
        times[generator.random(shape) < self.p_miss_SW[..., None]] = np.inf
        times[:, ~self.studies_SWN] = np.nan
        return times


def fit(times_SWN: Floats, log_errors_SWN: Floats | None = None) -> StudyModel:
    """Fit the model of studies to a competition.

    Args:
        times_SWN: Array (S submissions, W workloads, N studies) of times in seconds; inf is a
            missed study, NaN is no study.
        log_errors_SWN: The standard deviation of the error of each log time; None is no error. The
            variance of a cell is at least the mean of their squares: studies that were evaluated
            far apart may look more alike than they are.
    """
    present_SWN = ~np.isnan(times_SWN)
    hits_SW = np.isfinite(times_SWN).sum(axis=-1)
    timed_SWN = np.isfinite(times_SWN) & (times_SWN > 0)
    timed_SW = timed_SWN.sum(axis=-1)
    log_SWN = np.log(np.where(timed_SWN, times_SWN, 1.0))
    mean_SW = log_SWN.sum(axis=-1) / np.maximum(timed_SW, 1)
    squares_SW = np.where(timed_SWN, (log_SWN - mean_SW[..., None]) ** 2, 0.0).sum(axis=-1)
    freedom_SW = np.maximum(timed_SW - 1, 0)
    pooled = squares_SW.sum() / max(1, freedom_SW.sum())
    variance_SW = (squares_SW + PRIOR_STUDIES * pooled) / (freedom_SW + PRIOR_STUDIES)
    if log_errors_SWN is not None:
        squared_SWN = np.where(timed_SWN, log_errors_SWN**2, 0.0)
        variance_SW = np.maximum(variance_SW, squared_SWN.sum(axis=-1) / np.maximum(timed_SW, 1))
    log_time_SW, known_SW = _fill(mean_SW, timed_SW > 0)
    p_miss_SW = _miss_probabilities(present_SWN.sum(axis=-1), hits_SW)
    p_miss_SW = np.where(known_SW | (hits_SW > 0), p_miss_SW, 1.0)
    p_zero_SW = (hits_SW - timed_SW) / np.maximum(hits_SW, 1)
    spread_SW, freedom = np.sqrt(variance_SW), int(freedom_SW.sum())
    return StudyModel(log_time_SW, spread_SW, p_miss_SW, p_zero_SW, present_SWN, freedom)


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    Args:
        freedom: The degrees of freedom. Fewer than 3 count as 3; they would make an interval that
            says nothing, wider than any speed-up seen.
    """
    from scipy.special import stdtrit

    return float(stdtrit(max(3, freedom), 0.975))


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


def _miss_probabilities(studies_SW: NDArray[np.int64], hits_SW: NDArray[np.int64]) -> Floats:
    """Return the posterior mean of each cell's probability to miss, under a fitted beta prior.

    The prior's mean m is the share of missed studies; its correlation rho solves, over cells of n
    studies, var(share missed) = m (1 - m) (1 / n + (1 - 1 / n) rho).
    """
    present = studies_SW > 0
    misses_SW = studies_SW - hits_SW
    total = studies_SW.sum()
    m = float(misses_SW.sum() / total) if total else 0.0
    if m in (0.0, 1.0):
        return np.full(studies_SW.shape, m)
    n = float(studies_SW[present].mean())
    share = misses_SW[present] / studies_SW[present]
    spread = float(((share - m) ** 2).mean()) / (m * (1 - m))
    rho = float(np.clip((spread - 1 / n) / (1 - 1 / n) if n > 1 else 1.0, *CORRELATION))
    strength = (1 - rho) / rho
    return np.asarray((misses_SW + strength * m) / (studies_SW + strength), np.float64)

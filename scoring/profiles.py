"""Performance profiles and the benchmark score.

Performance profiles: Dolan & More, Benchmarking optimization software with performance profiles,
Mathematical Programming 91 (2002). The score, their normalised integral over [1, 4]: Dahl et al.,
Benchmarking Neural Network Training Algorithms (2023), section 4.2.

Legend: S submissions, W workloads, T values of tau.
"""

import numpy as np
from numpy.typing import NDArray

TAU_MAX = 4.0

Floats = NDArray[np.float64]


def ratios_to_fastest(times_SW: Floats) -> Floats:
    """Each time over its workload's fastest; inf where the target was missed (time inf or NaN)."""
    times_SW = np.where(np.isnan(times_SW), np.inf, times_SW)
    fastest_W = times_SW.min(axis=0, initial=np.inf)
    ratios_SW = np.full(times_SW.shape, np.inf)
    np.divide(times_SW, fastest_W, out=ratios_SW, where=np.isfinite(times_SW) & (fastest_W > 0))
    ratios_SW[(times_SW == fastest_W) & np.isfinite(times_SW)] = 1.0  # a fastest time of 0 included
    return ratios_SW


def performance_profile(ratios_SW: Floats, taus_T: Floats) -> Floats:
    """rho_s(tau), shape (S, T): the share of workloads with a ratio of at most tau."""
    within_STW = ratios_SW[:, None, :] <= taus_T[None, :, None]
    return np.asarray(within_STW.sum(axis=2) / max(1, ratios_SW.shape[1]), np.float64)


def profile_taus(ratios_SW: Floats, tau_max: float = TAU_MAX) -> Floats:
    """The values of tau in [1, tau_max] where some profile can step, both ends included."""
    steps = ratios_SW[(ratios_SW > 1) & (ratios_SW < tau_max)]
    return np.unique(np.concatenate([[1.0], steps, [tau_max]]))


def benchmark_score(ratios_SW: Floats, tau_max: float = TAU_MAX) -> Floats:
    """The exact integral of each profile over [1, tau_max] over tau_max - 1, hence in [0, 1].

    A profile is a sum of steps at the ratios r, so this is the mean over workloads of
    max(0, tau_max - r) / (tau_max - 1); a workload that nobody reaches gives 0 to all.
    """
    credit_SW = np.maximum(0.0, tau_max - ratios_SW) / (tau_max - 1)
    return np.asarray(credit_SW.mean(axis=1), np.float64)

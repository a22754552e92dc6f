"""Performance profiles, and the credit that a workload contributes to a score.

Performance profiles: Dolan & More, Benchmarking optimization software with performance profiles,
Mathematical Programming 91 (2002). The score, their normalised integral over [1, 4]: Dahl et al.,
Benchmarking Neural Network Training Algorithms (2023), section 4.2.

Legend: S submissions, B base workloads, T values of tau.
"""

import numpy as np
from numpy.typing import NDArray

TAU_MAX = 4.0
GRID_POINTS = 100  # The scoring code of the AlgoPerf benchmark uses this grid.

Floats = NDArray[np.float64]


def performance_profile(ratios_SB: Floats, taus_T: Floats) -> Floats:
    """Return the performance profile of each submission at each value of tau.

    Args:
        ratios_SB: Array (..., submissions, base workloads): a submission's time to target divided
            by the fastest one; inf where it has no credit.
        taus_T: The values of tau at which to evaluate the profiles.

    Returns:
        Array (..., submissions, values of tau): rho_s(tau), the share of base workloads whose ratio
        is at most tau.
    """
    within = np.asarray(ratios_SB)[..., :, None, :] <= np.asarray(taus_T)[:, None]
    return np.asarray(within.sum(axis=-1) / max(1, np.shape(ratios_SB)[-1]), np.float64)


def profile_taus(ratios_SB: Floats, tau_max: float = TAU_MAX) -> Floats:
    """Return the values of tau at which some profile steps, in ascending order.

    Args:
        ratios_SB: Array (submissions, base workloads) of ratios to the fastest time.
        tau_max: The right end of the interval [1, tau_max].

    Returns:
        The end 1, the distinct ratios inside the interval, and the end tau_max.
    """
    steps = ratios_SB[(ratios_SB > 1) & (ratios_SB < tau_max)]
    return np.unique(np.concatenate([[1.0], steps, [tau_max]]))


def credit(ratios: Floats, tau_max: float = TAU_MAX) -> Floats:
    """Return each workload's credit, its share in the exact integral of a performance profile.

    A profile is a sum of steps at the ratios. The mean over workloads of max(0, tau_max - ratio) /
    (tau_max - 1) is therefore the integral of the profile over [1, tau_max], normalised to [0, 1].

    Args:
        ratios: Ratios to the fastest time, of any shape; inf where there is no credit.
        tau_max: The right end of the interval of integration.

    Returns:
        Array of the same shape: 1 for the fastest time, 0 from the ratio tau_max on.
    """
    return np.asarray(np.maximum(0.0, tau_max - ratios) / (tau_max - 1), np.float64)


def grid_credit(ratios: Floats, tau_max: float = TAU_MAX, points: int = GRID_POINTS) -> Floats:
    """Return the same credit as `credit`, integrated by the trapezoidal rule on a grid of taus.

    Args:
        ratios: Ratios to the fastest time, of any shape; inf where there is no credit.
        tau_max: The right end of the interval of integration.
        points: The number of evenly spaced points of [1, tau_max]; the scoring code of the AlgoPerf
            benchmark has 100.

    Returns:
        Array of the same shape with values in [0, 1].
    """
    taus = np.linspace(1.0, tau_max, points)
    widths = np.diff(taus)
    weights = np.concatenate([widths, [0.0]]) / 2 + np.concatenate([[0.0], widths]) / 2
    from_here_on = np.concatenate([np.cumsum(weights[::-1])[::-1], [0.0]])
    return np.asarray(from_here_on[np.searchsorted(taus, ratios)] / (tau_max - 1), np.float64)

"""Performance profiles and the credit of a ratio.

Performance profiles: Dolan & More, Benchmarking optimization software with performance profiles,
Mathematical Programming 91 (2002). The score, their normalised integral over [1, 4]: Dahl et al.,
Benchmarking Neural Network Training Algorithms (2023), section 4.2.

Legend: S submissions, B base workloads, T values of tau.
"""

import numpy as np
from numpy.typing import NDArray

TAU_MAX = 4.0
GRID_POINTS = 100  # of the reference's scoring code

Floats = NDArray[np.float64]


def performance_profile(ratios_SB: Floats, taus_T: Floats) -> Floats:
    """rho_s(tau), shape (..., S, T): the share of workloads with a ratio of at most tau."""
    within = np.asarray(ratios_SB)[..., :, None, :] <= np.asarray(taus_T)[:, None]
    return np.asarray(within.sum(axis=-1) / max(1, np.shape(ratios_SB)[-1]), np.float64)


def profile_taus(ratios_SB: Floats, tau_max: float = TAU_MAX) -> Floats:
    """The values of tau in [1, tau_max] where some profile can step, both ends included."""
    steps = ratios_SB[(ratios_SB > 1) & (ratios_SB < tau_max)]
    return np.unique(np.concatenate([[1.0], steps, [tau_max]]))


def credit(ratios: Floats, tau_max: float = TAU_MAX) -> Floats:
    """What a workload of this ratio adds to the integral: max(0, tau_max - r) / (tau_max - 1).

    A profile is a sum of steps at the ratios, so the mean of these over workloads is the exact
    integral of the profile over [1, tau_max], normalised to [0, 1].
    """
    return np.asarray(np.maximum(0.0, tau_max - ratios) / (tau_max - 1), np.float64)


def grid_credit(ratios: Floats, tau_max: float = TAU_MAX, points: int = GRID_POINTS) -> Floats:
    """The same integral by the trapezoidal rule on even points of [1, tau_max]."""
    taus = np.linspace(1.0, tau_max, points)
    widths = np.diff(taus)
    weights = np.concatenate([widths, [0.0]]) / 2 + np.concatenate([[0.0], widths]) / 2
    from_here_on = np.concatenate([np.cumsum(weights[::-1])[::-1], [0.0]])
    return np.asarray(from_here_on[np.searchsorted(taus, ratios)] / (tau_max - 1), np.float64)

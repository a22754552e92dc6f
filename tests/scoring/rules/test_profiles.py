"""Numbers worked out by hand."""

import numpy as np
import pytest

from scoring import performance_profile
from scoring.rules.profiles import credit, grid_credit, profile_taus

INF = np.inf
# Times in seconds, three submissions (rows) on three workloads (columns):
#        W0   W1   W2
#   A    10   40   30     fastest on W0 and W2
#   B    15   20  inf     fastest on W1
#   C    40   90   75
# Ratios to the fastest (10, 20, 30):
#   A  10/10 = 1    40/20 = 2    30/30 = 1
#   B  15/10 = 1.5  20/20 = 1    inf
#   C  40/10 = 4    90/20 = 4.5  75/30 = 2.5
RATIOS = np.array([[1.0, 2.0, 1.0], [1.5, 1.0, INF], [4.0, 4.5, 2.5]])


def test_profile_of_three_by_three():
    # Shares of the three workloads with ratio <= tau; steps sit at the ratio itself (closed).
    #   tau        1    1.49  1.5   2    2.5   3.99  4
    #   A         2/3   2/3   2/3   1    1     1     1
    #   B         1/3   1/3   2/3  2/3  2/3   2/3   2/3
    #   C          0     0     0    0   1/3   1/3   2/3    (4 counts, 4.5 does not)
    taus = np.array([1, 1.49, 1.5, 2, 2.5, 3.99, 4])
    thirds = [[2, 2, 2, 3, 3, 3, 3], [1, 1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 1, 1, 2]]
    np.testing.assert_allclose(performance_profile(RATIOS, taus), np.array(thirds) / 3, rtol=1e-15)


def test_score_of_three_by_three():
    # Mean over workloads of max(0, 4 - r) / 3:
    #   A  (3 + 2 + 3) / 3 / 3 = 8/9
    #   B  (2.5 + 3 + 0) / 9 = 5.5/9 = 11/18
    #   C  (0 + 0 + 1.5) / 9 = 1/6
    np.testing.assert_allclose(credit(RATIOS).mean(axis=1), [8 / 9, 11 / 18, 1 / 6], rtol=1e-15)


def test_score_is_the_area_under_the_profile():
    taus = profile_taus(RATIOS)
    np.testing.assert_array_equal(taus, [1, 1.5, 2, 2.5, 4])
    shares = performance_profile(RATIOS, taus)
    # Between two breakpoints a profile is flat at its left value.
    area = (shares[:, :-1] * np.diff(taus)).sum(axis=1) / 3
    np.testing.assert_allclose(credit(RATIOS).mean(axis=1), area, rtol=1e-14)


def test_the_reference_integrates_on_a_hundred_points():
    # The trapezoid over the profile at the points themselves, as numpy does it.
    taus = np.linspace(1, 4, 100)
    ratios = np.array([1.0, 1.0 + 1e-9, 1.5, taus[17], np.nextafter(taus[17], 9), 3.999, 4.0, INF])
    area = np.trapezoid((ratios[:, None] <= taus).astype(float), taus, axis=1) / 3
    np.testing.assert_allclose(grid_credit(ratios), area, rtol=0, atol=1e-14)
    assert grid_credit(np.array([4.0])) == pytest.approx(1 / 198)  # half a width of 1/33, over 3
    assert grid_credit(np.array([INF])) == 0

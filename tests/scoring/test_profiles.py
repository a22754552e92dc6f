"""Numbers worked out by hand."""

import numpy as np
import pytest

from scoring import benchmark_score, performance_profile, ratios_to_fastest
from scoring.profiles import profile_taus

INF = np.inf
# Times in seconds, three submissions (rows) on three workloads (columns):
#        W0   W1   W2
#   A    10   40   30     fastest on W0 and W2
#   B    15   20  inf     fastest on W1
#   C    40   90   75
TIMES = np.array([[10.0, 40.0, 30.0], [15.0, 20.0, INF], [40.0, 90.0, 75.0]])
# Ratios to the fastest (10, 20, 30):
#   A  10/10 = 1    40/20 = 2    30/30 = 1
#   B  15/10 = 1.5  20/20 = 1    inf
#   C  40/10 = 4    90/20 = 4.5  75/30 = 2.5
RATIOS = np.array([[1.0, 2.0, 1.0], [1.5, 1.0, INF], [4.0, 4.5, 2.5]])


def test_ratios_of_three_by_three():
    np.testing.assert_array_equal(ratios_to_fastest(TIMES), RATIOS)


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
    np.testing.assert_allclose(benchmark_score(RATIOS), [8 / 9, 11 / 18, 1 / 6], rtol=1e-15)


def test_score_is_the_area_under_the_profile():
    taus = profile_taus(RATIOS)
    np.testing.assert_array_equal(taus, [1, 1.5, 2, 2.5, 4])
    shares = performance_profile(RATIOS, taus)
    # Between two breakpoints a profile is flat at its left value.
    area = (shares[:, :-1] * np.diff(taus)).sum(axis=1) / 3
    np.testing.assert_allclose(benchmark_score(RATIOS), area, rtol=1e-14)


def test_a_workload_that_nobody_reaches_gives_nothing_to_all():
    # One of two workloads is reached by both at 5 s: (3/3 + 0) / 2 = 1/2 each.
    ratios = ratios_to_fastest(np.array([[5.0, INF], [5.0, np.nan]]))
    np.testing.assert_array_equal(ratios, [[1, INF], [1, INF]])
    np.testing.assert_array_equal(benchmark_score(ratios), [0.5, 0.5])


def test_a_fastest_time_of_zero_is_ratio_one():
    np.testing.assert_array_equal(ratios_to_fastest(np.array([[0.0], [2.0]])), [[1], [INF]])


@pytest.mark.parametrize("factor", [0.001, 3.0, 1e6])
def test_score_does_not_depend_on_the_unit_of_time(factor):
    np.testing.assert_allclose(
        benchmark_score(ratios_to_fastest(TIMES * factor)), [8 / 9, 11 / 18, 1 / 6], rtol=1e-12
    )

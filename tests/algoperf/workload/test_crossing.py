"""Where a target is met between two evaluations, with and without probes between them."""

import math

import pytest

from algoperf.workload.crossing import Crossing, Point, crossing

MISS, HIT = Point(10.0, 100, 0.80), Point(20.0, 200, 0.96)
# The few rows are 0.10 below all at the miss, 0.06 at the hit: 0.084 at 14 s, 0.068 at 18 s.
FEW = (
    Point(10.0, 100, 0.70),
    Point(14.0, 140, 0.82),
    Point(18.0, 180, 0.81),
    Point(20.0, 200, 0.9),
)


def of(target, probes, miss=MISS, hit=HIT, higher=True):
    return crossing(miss, hit, target, higher_is_better=higher, probes=probes)


def test_the_way_goes_by_the_probes():
    """Corrected they are 0.904 at 14 s and 0.878 at 18 s."""
    assert of(0.9, ()) == pytest.approx(Crossing(16.25, 162.5, 10.0, 20.0))
    met_s = 10 + 4 * 0.1 / 0.104
    assert of(0.9, FEW) == pytest.approx(Crossing(met_s, 10 * met_s, 10.0, 14.0))
    # From 0.878 at 18 s to 0.96 at 20 s:
    met_s = 18 + 2 * (0.92 - 0.878) / (0.96 - 0.878)
    assert of(0.92, FEW) == pytest.approx(Crossing(met_s, 10 * met_s, 18.0, 20.0))


def test_of_a_metric_that_falls_logarithms_are_corrected():
    """All rows say half of the few at the miss and as much at the hit, and 1 / sqrt(2) of it in the
    middle: 2.83 of 4. From 8 there, 4 is two thirds of the way.
    """
    miss, hit = Point(10.0, 100, 8.0), Point(20.0, 200, 2.0)
    probes = (Point(10.0, 100, 16.0), Point(15.0, 150, 4.0), Point(20.0, 200, 2.0))
    found = of(4.0, probes, miss, hit, higher=False)
    assert found == pytest.approx(Crossing(10 + 10 / 3, 100 + 100 / 3, 10.0, 15.0))


def test_the_result_never_leaves_the_bracket():
    above = (FEW[0], Point(10.5, 105, 5.0), *FEW[1:])
    below = tuple(probe._replace(value=-9.0) if 10 < probe.time_s < 20 else probe for probe in FEW)
    assert 10 < of(0.9, above).time_s < 10.5
    assert 18 < of(0.9, below).time_s < 20


@pytest.mark.parametrize(
    "probes",
    [
        FEW[1:],  # not from the miss,
        FEW[:-1],  # not to the hit,
        (FEW[0], FEW[-1]),  # nothing between,
        (FEW[0], FEW[2], FEW[1], FEW[3]),  # the clock goes back,
        (FEW[0], FEW[1]._replace(value=math.nan), FEW[3]),
        (FEW[0]._replace(step=99), *FEW[1:]),  # of another evaluation
    ],
)
def test_probes_of_something_else_are_not_used(probes):
    assert of(0.9, probes) == of(0.9, ())


@pytest.mark.parametrize(
    ("miss", "hit"),
    [
        (MISS._replace(value=math.nan), HIT),
        (MISS, HIT._replace(value=0.9)),  # the target itself
        (MISS, HIT._replace(time_s=9.0)),
    ],
)
def test_where_nothing_lies_between_there_is_no_crossing(miss, hit):
    assert of(0.9, (), miss, hit) is None

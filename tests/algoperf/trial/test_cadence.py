"""When to probe, when to evaluate all rows; what it all may cost."""

import dataclasses
import json
import math

import numpy as np
import pytest

from algoperf.trial.cadence import UNASKED_SHARE, Cadence
from algoperf.workload.crossing import Point


def begun(target=0.9, higher=True, few=0.1, whole=0.12, **settings):
    """At 2 s, step 1: a probe that took 0.1 s and an evaluation that took 1 s."""
    cadence = Cadence(target, higher, 0.25, **settings)
    cadence.probed(Point(2.0, 1, few), 0.1)
    assert cadence.wants_all()
    cadence.evaluated(Point(2.0, 1, whole), 1.0)
    return cadence


def test_the_first_probe_leaves_room_for_itself_and_for_the_evaluation_that_will_meet_the_target():
    """(1.1 s spent + 0.1 s + 1 s) / 0.25 = 8.8 s."""
    assert begun().next_due_s() == pytest.approx(8.8)


@pytest.mark.parametrize(
    ("target", "higher", "first", "below", "above"),
    [
        # All rows were 0.02 above the few: 0.88 is where they are predicted to meet 0.9.
        (0.9, True, (0.1, 0.12), 0.8799, 0.8801),
        # They were 1.1 times as high: 10 / 1.1 = 9.0909.
        (10.0, False, (20.0, 22.0), 9.0910, 9.0908),
        # No logarithm of a target below 0: they were 1 above, so -6.
        (-5.0, False, (2.0, 3.0), -5.999, -6.001),
    ],
)
def test_all_rows_are_evaluated_where_the_corrected_probe_meets_the_target(
    target, higher, first, below, above
):
    cadence = begun(target, higher, *first)
    assert cadence.offset == 0.0  # Initial parameters say nothing.
    cadence.probed(Point(3.0, 10, first[0]), 0.1)
    cadence.evaluated(Point(3.0, 10, first[1]), 1.0)
    cadence.probed(Point(9.0, 70, below), 0.1)
    assert not cadence.wants_all()
    cadence.probed(Point(10.0, 80, above), 0.1)
    assert cadence.wants_all()


def test_what_a_probe_predicts():
    """All rows 0.02 above the few; of a metric that falls, 1.1 times as high."""
    for (target, higher), few, whole, predicted in (
        ((0.9, True), 0.5, 0.52, 0.62),
        ((10.0, False), 20.0, 22.0, 0.66),
    ):
        cadence = begun(target, higher, few, whole)
        cadence.probed(Point(3.0, 10, few), 0.1)
        cadence.evaluated(Point(3.0, 10, whole), 1.0)
        assert cadence.predicted == pytest.approx(whole)
        cadence.probed(Point(4.0, 20, 0.6), 0.1)
        assert cadence.predicted == pytest.approx(predicted)
    assert Cadence(0.9, True, 0.25).predicted is None


def test_a_miss_begins_the_bracket_anew_and_a_hit_closes_it():
    cadence = begun()
    for time_s, few in ((9.0, 0.5), (10.0, 0.89)):
        cadence.probed(Point(time_s, 10 * time_s, few), 0.1)
    cadence.evaluated(Point(10.0, 100, 0.87), 1.0)  # all rows are 0.02 below the few, now
    assert cadence.probes == [Point(10.0, 100, 0.89)]
    cadence.probed(Point(18.0, 180, 0.9199), 0.1)
    assert not cadence.wants_all()
    cadence.probed(Point(19.0, 190, 0.9201), 0.1)
    assert cadence.wants_all()
    cadence.evaluated(Point(19.0, 190, 0.9), 1.0)
    assert cadence.met
    assert [probe.step for probe in cadence.probes] == [100, 180, 190]


def at_20_s(few):
    """1.2 s spent at 20 s, 18 s after the first step: 0.25 * 20 - 1.2 - 1 = 2.8 s are saved, and
    are to last 1.8 s.
    """
    cadence = begun()
    cadence.probed(Point(20.0, 200, few), 0.1)
    return cadence.next_due_s() - 20.0


def test_near_the_target_probes_are_as_close_as_can_be_afforded():
    """Half of the way by the slope since the first probe, 0.1 at 2 s; a tenth of 18 s at most."""
    assert at_20_s(0.3) == pytest.approx(1.8)
    assert at_20_s(0.88) == pytest.approx(0.5 * 0.02 / (0.78 / 18))
    assert at_20_s(0.8999) == pytest.approx(0.1 / (0.25 + 2.8 / 1.8))


def test_where_the_metric_wanders_probes_are_closer():
    """It goes to and fro by 0.06 a second: each change differs from the next by 0.12, which has the
    variance of two seconds, 0.0072 each. 0.2 are left: a tenth of 0.04 / 0.0072 s.
    """
    cadence = begun(whole=0.1)
    for second, few in enumerate((0.64, 0.7) * 6, 10):
        cadence.probed(Point(float(second), 10 * second, few), 0.001)
    cadence.recent = cadence.recent[1:]  # Without the first rise.
    assert cadence.next_due_s() - 21.0 == pytest.approx(0.1 * 0.04 / 0.0072)


def test_the_more_probes_the_further_apart():
    """They cost next to nothing; the second is 1 / 20,000 of the clock after the first, the 400th a
    hundredth.
    """
    cadence = begun()
    cadence.probed(Point(20.0, 200, 0.89999), 1e-9)
    assert cadence.next_due_s() == pytest.approx(20.0 * (1 + 2 / 40_000))
    cadence.count = 400
    assert cadence.next_due_s() == pytest.approx(20.2)


def test_without_probes_or_with_the_target_met_evaluations_come_by_their_share():
    """Two evaluations of 1 s and one probe: (2.1 + 1) / 0.25; a longest time comes first."""
    cadence = begun()
    cadence.probed(Point(9.0, 90, 0.9), 0.1)
    cadence.evaluated(Point(9.0, 90, 0.91), 1.0)
    assert cadence.next_due_s() == pytest.approx((2.2 + 1) / 0.25)
    soon = dataclasses.replace(cadence, longest_s=3.0)
    assert soon.next_due_s() == 12.0


def test_evaluations_that_nothing_asked_for():
    """2 s at 0.03 are due at 66.7 s; or after the longest time, 30 s after the first at 2 s."""
    cadence = begun()
    cadence.probed(Point(2.0 / UNASKED_SHARE - 0.01, 1, 0.1), 0.1)
    assert not cadence.wants_all()
    cadence.probed(Point(2.0 / UNASKED_SHARE + 0.01, 1, 0.1), 0.1)
    assert cadence.wants_all()
    soon = begun(longest_s=30.0)
    soon.probed(Point(31.9, 1, 0.1), 0.1)
    assert not soon.wants_all()
    assert soon.next_due_s() <= 32.0
    soon.probed(Point(32.0, 1, 0.1), 0.1)
    assert soon.wants_all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_for_an_evaluation_to_judge(value):
    cadence = begun()
    cadence.probed(Point(9.0, 90, value), 0.1)
    assert cadence.wants_all()
    cadence.evaluated(Point(9.0, 90, value), 1.0)
    cadence.probed(Point(10.0, 100, 0.5), 0.1)
    assert cadence.offset == 0.0
    assert cadence.next_due_s() > 10.0


def test_another_process_goes_on_as_this_one_would():
    cadence = begun()
    for second in range(9, 14):
        cadence.probed(Point(float(second), 10 * second, 0.05 * second), 0.1)
    saved = json.loads(json.dumps(cadence.position()))
    other = Cadence(0.9, True, 0.25)
    other.go_on(saved)
    assert other == cadence
    assert other.next_due_s() == cadence.next_due_s()


@pytest.mark.parametrize("seed", range(5))
def test_probes_and_evaluations_keep_to_their_share(seed):
    """A noisy plateau below the target, where much is asked for: one evaluation over it at most."""
    generator = np.random.default_rng(seed)
    cadence = Cadence(0.9, True, 0.2)
    step, count = 1, 0
    while step < 1_000:
        time_s = 2.0 + 0.1 * (step - 1)
        few = 0.89 * (1 - math.exp(-step / 100)) + generator.normal(0, 0.01)
        cadence.probed(Point(time_s, step, few), 0.08)
        if cadence.wants_all():
            whole = min(few - generator.normal(0.005, 0.01), 0.899)
            cadence.evaluated(Point(time_s, step, whole), 1.0)
            count += 1
        if step > 1:
            assert cadence.spent_s <= 0.2 * time_s + 1.0 + 1e-9
        step = max(step + 1, math.ceil((cadence.next_due_s() - 2.0) / 0.1 - 1e-9) + 1)
    assert count > 1
    assert cadence.spent_s >= 0.15 * time_s  # and most of what may be spent is spent

"""The two rule sets on numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from algoperf import errors
from scoring.rules.rules import (
    AS_PUBLISHED,
    BY_THE_RULES,
    INTERPOLATED,
    absent_studies,
    credit_reasons,
    credited_ratios,
    find_rules,
    make_layout,
    mean_credit,
    median_over_studies,
    ranks,
    scores,
)

INF, NAN = np.inf, np.nan
PLAIN = make_layout(("W0", "W1", "W2"), ("W0", "W1", "W2"), {})
#        W0   W1   W2
#   A    10   40   30     fastest on W0 and W2
#   B    15   20  inf     fastest on W1
#   C    40   90   75
TIMES = np.array([[10.0, 40.0, 30.0], [15.0, 20.0, INF], [40.0, 90.0, 75.0]])
# Ratios to the fastest (10, 20, 30); 4 is within the cut-off, 90/20 = 4.5 is not.
RATIOS = np.array([[1.0, 2.0, 1.0], [1.5, 1.0, INF], [4.0, INF, 2.5]])
BOTH = pytest.mark.parametrize("rules", [BY_THE_RULES, AS_PUBLISHED], ids=lambda rules: rules.name)


@BOTH
def test_ratios_of_three_by_three(rules):
    np.testing.assert_array_equal(credited_ratios(TIMES, PLAIN, rules), RATIOS)


def test_scores_of_three_by_three():
    # Mean over workloads of max(0, 4 - r) / 3:
    #   A  (3 + 2 + 3) / 9 = 8/9    B  (2.5 + 3 + 0) / 9 = 11/18    C  (0 + 0 + 1.5) / 9 = 1/6
    found = scores(TIMES[..., None], PLAIN, BY_THE_RULES)
    np.testing.assert_allclose(found, [8 / 9, 11 / 18, 1 / 6], rtol=1e-15)
    # On the grid of 1, 1 + 1/33, ..., 4 a step at tau_k counts from half an interval before it,
    # one between two points from the middle of them:
    #   1 -> 1; 1.5 lies between 1 + 16/33 and 1 + 17/33, so from 1.5; 2 = tau_33 from 2 - 1/66;
    #   2.5 between tau_49 and tau_50 from 2.5; 4 from 4 - 1/66.
    grid = [1, (2 + 1 / 66) / 3, 1], [2.5 / 3, 1, 0], [1 / 66 / 3, 0, 1.5 / 3]
    found = scores(TIMES[..., None], PLAIN, AS_PUBLISHED)
    np.testing.assert_allclose(found, np.mean(grid, axis=1), rtol=1e-13)


@pytest.mark.parametrize("factor", [0.001, 3.0, 1e6])
def test_score_does_not_depend_on_the_unit_of_time(factor):
    found = scores(TIMES[..., None] * factor, PLAIN, BY_THE_RULES)
    np.testing.assert_allclose(found, [8 / 9, 11 / 18, 1 / 6], rtol=1e-12)


@BOTH
def test_a_workload_that_nobody_reaches_or_runs_gives_nothing_to_all(rules):
    layout = make_layout(("W0", "W1"), ("W0", "W1", "never run"), {})
    ratios = credited_ratios(np.array([[5.0, INF], [5.0, NAN]]), layout, rules)
    np.testing.assert_array_equal(ratios, [[1, INF, INF], [1, INF, INF]])
    np.testing.assert_allclose(mean_credit(ratios, rules), [1 / 3, 1 / 3])


def test_a_fastest_time_of_zero_is_ratio_one():
    layout = make_layout(("W0",), ("W0",), {})
    ratios = credited_ratios(np.array([[0.0], [2.0]]), layout, BY_THE_RULES)
    np.testing.assert_array_equal(ratios, [[1], [INF]])


def test_median_over_studies():
    times = [[1, 3, 2, NAN], [1, INF, INF, NAN], [1, 3, INF, 2], [5, INF, NAN, NAN], [NAN] * 4]
    # Present only: 2; inf; (2 + 3) / 2; (5 + inf) / 2; nothing.
    np.testing.assert_array_equal(median_over_studies(np.array(times)), [2, INF, 2.5, INF, NAN])


def test_an_absent_study_is_infinite_by_the_rules_and_not_there_as_published():
    times = np.array([1.0, 5.0, NAN, NAN])
    by_the_rules = median_over_studies(absent_studies(times, BY_THE_RULES))
    as_published = median_over_studies(absent_studies(times, AS_PUBLISHED))
    assert (by_the_rules, as_published) == (INF, 3.0)


VARIANTS = make_layout(("W", "W_v"), ("W",), {"W_v": "W"})


@BOTH
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # A base whose variant is not reached counts as not reached.
        ([[10, INF], [20, 5]], [[INF], [1]]),
        # So it does without logs of the variant.
        ([[10, NAN], [20, 5]], [[INF], [1]]),
        # A variant over 4 times the fastest is cut off (4 times is within).
        ([[10, 20.1], [20, 5]], [[INF], [1]]),
        ([[10, 20.0], [20, 5]], [[1], [2]]),
        # The fastest on the variant counts only where it reached the base.
        ([[10, 20.1], [20, 5.1], [INF, 1]], [[1], [2], [INF]]),
        ([[10, 20.1], [20, 5.1], [NAN, 1]], [[1], [2], [INF]]),
    ],
)
def test_held_out_variants(rules, times, expected):
    found = credited_ratios(np.array(times, float), VARIANTS, rules)
    np.testing.assert_array_equal(found, expected)


def test_the_reference_of_cut_off_and_ratio():
    # A is fastest but fails the variant; C takes 4.5 times as long as A and 1.5 times B.
    times = np.array([[10, INF], [30, 5], [45, 5]], float)
    published = credited_ratios(times, VARIANTS, AS_PUBLISHED)
    np.testing.assert_array_equal(published, [[INF], [1], [INF]])  # cut off by A, who has no credit
    np.testing.assert_array_equal(
        credited_ratios(times, VARIANTS, BY_THE_RULES), [[INF], [1], [1.5]]
    )


def test_resamples_are_scored_as_if_alone():
    generator = np.random.default_rng(0)
    many = generator.lognormal(size=(20, 4, 3, 5))
    many[generator.random(many.shape) < 0.3] = INF
    for rules in (BY_THE_RULES, AS_PUBLISHED):
        together = scores(many, PLAIN, rules)
        alone = [scores(one, PLAIN, rules) for one in many]
        np.testing.assert_array_equal(together, alone)


def test_reasons():
    layout = make_layout(("W", "W_v", "X"), ("W", "X"), {"W_v": "W"})
    medians = np.array(
        [
            [10, 5, 10],  # credited on both
            [20, INF, 41],  # held-out missed; cut off
            [20, 21, INF],  # held-out cut off; missed
            [41, INF, 10],  # cut off, whatever its variant did
            [20, NAN, NAN],  # no logs of the variant, nor of X
            [NAN, NAN, 40],
        ]
    )
    logged = ~np.isnan(medians)
    found = credit_reasons(medians, logged, layout, AS_PUBLISHED)
    assert found == [
        ["credited", "credited"],
        ["held-out: target missed (median)", ">4x fastest"],
        ["held-out: >4x fastest", "target missed (median)"],
        [">4x fastest", "credited"],
        ["held-out: no logs", "no logs"],
        ["no logs", "credited"],
    ]


def test_the_reason_is_the_variant_that_failed():
    layout = make_layout(("W", "W_a", "W_b"), ("W",), {"W_a": "W", "W_b": "W"})
    cases = [
        ([10, 10, 10], "credited"),
        ([10, INF, 10], "held-out: target missed (median)"),
        ([10, 10, INF], "held-out: target missed (median)"),
        ([10, 10, 50], "held-out: >4x fastest"),
        ([10, NAN, 50], "held-out: no logs"),
    ]
    medians = np.array([times for times, _ in cases])
    found = credit_reasons(medians, ~np.isnan(medians), layout, BY_THE_RULES)
    assert found == [[told] for _, told in cases]


def test_ranks_share_the_better_place():
    np.testing.assert_array_equal(
        ranks(np.array([[0.5, 1, 0.5, 0], [0, 0, 0, 0]])), [[2, 1, 2, 4], [1] * 4]
    )


def test_rule_sets_by_name():
    assert find_rules("as-published") is AS_PUBLISHED
    with pytest.raises(
        errors.UserError, match="unknown rules 'fair'; one of: interpolated, by-the-rules, as-pub"
    ):
        find_rules("fair")
    own = {"name", "interpolates"}
    fields = {field.name for field in dataclasses.fields(BY_THE_RULES)} - own
    assert all(getattr(BY_THE_RULES, f) != getattr(AS_PUBLISHED, f) for f in fields)
    named = dataclasses.replace(INTERPOLATED, name="by-the-rules", interpolates=False)
    assert named == BY_THE_RULES

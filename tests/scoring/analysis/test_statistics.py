"""Intervals: against exact enumeration, the published ones, and cases worked out by hand."""

import itertools

import interval_coverage
import numpy as np
import pytest

from algoperf import errors
from scoring.analysis.pooled_model import COMPETITIONS, STEADY, fit
from scoring.analysis.statistics import (
    MIN_STUDIES_IN_ALL,
    bootstrap,
    expectations,
    percentiles,
    pooled_medians,
    resampled_medians,
)
from scoring.rules.rules import AS_PUBLISHED, BY_THE_RULES, INTERPOLATED, make_layout, scores

INF, NAN = np.inf, np.nan
ONE = make_layout(("W",), ("W",), {})
THREE = make_layout(("W0", "W1", "W2"), ("W0", "W1", "W2"), {})


@pytest.mark.parametrize("studies", [1, 2, 3, 4, 5])
def test_resampled_medians_have_the_bootstrap_distribution(studies):
    times = np.array([3.0, 1.0, INF, 2.0, 5.0])[:studies]
    exact = [
        np.median(draw)
        if not np.isinf(np.sort(draw)[(studies - 1) // 2 : studies // 2 + 1]).any()
        else INF
        for draw in itertools.product(times, repeat=studies)
    ]
    values, counts = np.unique(exact, return_counts=True)
    shares = dict(zip(values.tolist(), (counts / len(exact)).tolist(), strict=True))
    count = 40_000
    drawn = resampled_medians(times[None, None], count, np.random.default_rng(1)).ravel()
    found = {value: (drawn == value).mean() for value in np.unique(drawn)}
    assert set(found) == set(shares)
    for value, share in shares.items():
        assert found[value] == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_resampled_medians_leave_absent_studies_out():
    times = np.array([[[7.0, NAN, NAN], [NAN, NAN, NAN]]])
    drawn = resampled_medians(times, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[:, 0, 0], 7.0)
    assert np.isnan(drawn[:, 0, 1]).all()


def test_percentiles_and_ranks_of_two_submissions():
    # A takes 10 or 20 s in its two studies, B always 15 s. The median of two draws is 10 (1/4), 15
    # (1/2) or 20 (1/4): A's ratios 1, 1, 4/3, scores 1, 1, 8/9; B's ratios 1.5, 1, 1: 5/6, 1, 1.
    # Three that miss everything make the 10 studies without which there is no interval.
    times = np.array([[[10.0, 20.0]], [[15.0, 15.0]], *[[[INF, INF]]] * 3])
    one = bootstrap(times, ONE, BY_THE_RULES, method="percentile", resamples=20_000)
    np.testing.assert_allclose(one.scores_S, [1, 1, 0, 0, 0])
    np.testing.assert_allclose(one.score_interval[:2], [[8 / 9, 1], [5 / 6, 1]])
    np.testing.assert_array_equal(one.rank_interval[:2], [[1, 2], [1, 2]])
    # Each is first alone with 1/4; the half in which they tie counts half for each.
    np.testing.assert_allclose(one.p_first, [0.5, 0.5, 0, 0, 0], atol=0.015)
    np.testing.assert_allclose(one.p_beats[:2, :2], [[0, 0.25], [0.25, 0]], atol=0.015)


def test_over_workloads_resamples_credits():
    # Credits of A are 1, 1, 0: the mean of three draws is k/3 with k binomial(3, 2/3):
    # 0 with 1/27 = .037 > .025, 1 with 8/27.
    times = np.array([[[1.0], [1.0], [INF]], [[INF], [INF], [1.0]]])
    one = bootstrap(times, THREE, BY_THE_RULES, over="workloads", resamples=20_000)
    assert one.method == "percentile"
    np.testing.assert_allclose(one.score_interval, [[0, 1], [0, 1]], atol=1e-12)
    assert (one.scores_RS[:, 0] == 0).mean() == pytest.approx(1 / 27, abs=0.006)
    np.testing.assert_allclose(one.scores_RS.sum(axis=1), 1)  # both see the same workloads


@pytest.mark.parametrize(
    ("shape", "over", "reason"),
    [
        ((2, 3, 1), "studies", "W0 has 1 study; 2 are needed"),
        ((2, 3, 1), "both", "W0 has 1 study; 2 are needed"),
        ((2, 2, 5), "workloads", "2 workloads; 3 are needed"),
        ((2, 2, 5), "both", "2 workloads; 3 are needed"),
        ((2, 1, 5), "both", "1 workload; 3 are needed"),
    ],
)
def test_not_estimable_is_an_answer(shape, over, reason):
    names = ("W0", "W1", "W2")[: shape[1]]
    one = bootstrap(np.ones(shape), make_layout(names, names, {}), BY_THE_RULES, over=over)
    assert one.not_estimable == reason
    for value in (one.score_interval, one.rank_interval, one.p_first, one.p_beats):
        assert np.isnan(value).all()
    np.testing.assert_array_equal(one.scores_S, [1, 1])


def test_one_study_of_one_workload_is_not_estimable_though_others_have_three():
    times = np.ones((2, 3, 3))
    times[:, 1, 1:] = NAN
    assert bootstrap(times, THREE, BY_THE_RULES).not_estimable == "W1 has 1 study; 2 are needed"


def test_no_scored_workload_and_no_submission():
    undecided = bootstrap(np.full((2, 3, 2), NAN), THREE, BY_THE_RULES)
    assert undecided.not_estimable == "W0 has 0 studies; 2 are needed"
    assert bootstrap(np.ones((2, 1, 3)), make_layout(("W",), (), {}), BY_THE_RULES).not_estimable
    assert bootstrap(np.ones((0, 3, 3)), THREE, BY_THE_RULES).not_estimable == "no submission"


def test_unknown_names():
    with pytest.raises(errors.UserError, match="unknown over 'seeds'; one of: studies, workloads"):
        bootstrap(np.ones((2, 3, 3)), THREE, BY_THE_RULES, over="seeds")
    with pytest.raises(errors.UserError, match="unknown method 'bca'; one of: pooled, percentile"):
        bootstrap(np.ones((2, 3, 3)), THREE, BY_THE_RULES, method="bca")


@pytest.mark.parametrize("method", ["pooled", "percentile"])
def test_same_seed_same_interval(method):
    times = np.random.default_rng(3).lognormal(size=(3, 3, 3))
    draw = [
        bootstrap(times, THREE, AS_PUBLISHED, method=method, resamples=500, seed=seed).scores_RS
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert (draw[0] != draw[2]).any()


def test_discrete_percentiles_are_values():
    values = np.array([[1.0]] * 97 + [[2.0]] * 3)
    np.testing.assert_array_equal(percentiles(values, discrete=True), [[1, 2]])


def test_too_few_studies_are_refused_as_they_may_hide_misses():
    # .7^8 = .058 and .7^9 = .040: eight studies without a miss do not exclude a chance of 30 %.
    assert 0.7 ** (MIN_STUDIES_IN_ALL - 1) > 0.05 >= 0.7**MIN_STUDIES_IN_ALL
    two = make_layout(("W0", "W1"), ("W0", "W1"), {})
    times = np.random.default_rng(0).lognormal(size=(2, 2, 2))
    why = "all submissions and workloads have 8 studies together; 9 are needed, as fewer may hide"
    for method in ("pooled", "percentile"):
        one = bootstrap(times, two, BY_THE_RULES, method=method)
        assert one.not_estimable == f"{why} that 30% would miss the target"
        for value in (one.score_interval, one.rank_interval, one.p_first):
            assert np.isnan(value).all()
    nine = np.concatenate([times, np.full((2, 2, 1), NAN)], axis=-1)
    nine[0, 0, 2] = 1.0
    assert not bootstrap(nine, two, BY_THE_RULES, resamples=20).not_estimable


@pytest.mark.parametrize(("again", "told"), [(0, "0 degrees"), (1, "1 degree"), (2, "")])
def test_too_few_times_to_know_their_spread_are_refused(again, told):
    times = np.full((2, 3, 2), INF)
    times[0, :, 0] = times[1, 0, 0] = 5.0  # Reached once, in a study of each of four cells.
    times[0, :again, 1] = 6.0
    why = bootstrap(times, THREE, BY_THE_RULES, resamples=20).not_estimable
    needed = f"the spread of times has {told} of freedom (targets reached again in another study)"
    assert why == (f"{needed}; 2 are needed" if told else "")


def test_pooled_fit():
    # Log times: cell 0 has -1, 0, 1 (mean 0, squares 2, 2 degrees of freedom), cell 1 has 2, 2 and
    # a miss (1 degree).
    times = np.exp(np.array([[[-1.0, 0.0, 1.0], [2.0, 2.0, INF]]]))
    model = fit(times)
    np.testing.assert_allclose(model.log_time_SW, [[0, 2]], atol=1e-15)
    np.testing.assert_allclose(model.squares_SW, [[2, 0]], atol=1e-15)
    np.testing.assert_array_equal(model.misses_SW, [[0, 1]])
    assert model.freedom == 3


def test_the_spread_of_a_lone_cell_is_chi_squared_and_its_mean_student_t():
    # With a flat prior of the logarithm of the scale, integrating the scale out leaves the flat
    # prior of the logarithm of the cell's variance: squares / variance is chi-squared with 2
    # degrees of freedom (median 1.386, 95 % 5.991), the mean t: 4.303 of the error of the mean.
    model = fit(np.exp(np.array([[[-1.0, 0.0, 1.0]]])))
    spread_P = model.draw_spreads(40_000, np.random.default_rng(0))[:, 0, 0]
    assert np.quantile(2 / spread_P**2, [0.5, 0.95]) == pytest.approx([1.386, 5.991], rel=0.03)
    times, _ = model.draw(20_000, np.random.default_rng(0))
    # One fresh study: t with 2 degrees of freedom times sqrt(1 + 1/3), of the standard deviation 1.
    logs = np.log(times[:, 0, 0, 0, 0])
    assert np.quantile(logs, 0.975) == pytest.approx(4.303 * (4 / 3) ** 0.5, rel=0.06)


def test_spreads_are_shrunk_towards_each_other():
    # Squares 8 and 2 of 2 degrees of freedom each: 4 times, of which the prior takes some back.
    model = fit(np.exp(np.array([[[-2.0, 0.0, 2.0], [1.0, 2.0, 3.0]]])))
    first, second = np.median(model.draw_spreads(20_000, np.random.default_rng(0)), axis=0)[0]
    assert 0.5 * first < second < 0.8 * first


def test_equal_times_do_not_make_the_other_cells_sure():
    # Two cells of equal times, as a coarse clock gives: the scale is that of the others alone.
    others = [[-1.0, 0.0, 1.0], [1.0, 2.0, 3.0]]
    alone = fit(np.exp(np.array([others])))
    beside = fit(np.exp(np.array([[*others, [2.0] * 3, [3.0] * 3]])))
    spreads = [
        np.median(model.draw_spreads(20_000, np.random.default_rng(0))[:, 0], axis=0)
        for model in (alone, beside)
    ]
    np.testing.assert_allclose(spreads[1][:2], spreads[0], rtol=0.03)
    assert (spreads[1][2:] > 0.2 * spreads[0][0]).all()
    equal = fit(np.full((2, 2, 3), 7.0)).draw_spreads(5, np.random.default_rng(0))
    np.testing.assert_array_equal(equal, 0)


def test_pooled_misses_are_those_of_a_beta_binomial_model():
    # Against the same posterior on a grid of its own, with scipy's probabilities.
    from scipy.stats import betabinom

    misses, studies = np.array([0, 2, 4, 2]), 4
    mean, correlation = np.meshgrid(np.arange(1, 200) / 200, np.arange(1, 100) / 100)
    a, b = (part * (1 - correlation) / correlation for part in (mean, 1 - mean))
    weight = (mean * (1 - mean)) ** -0.5
    for count in misses:
        weight = weight * betabinom.pmf(count, studies, a, b)
    expected = [(weight * (a + k) / (a + b + studies)).sum() / weight.sum() for k in misses]
    hit, half, missed = [1.0] * 4, [1.0, 1.0, INF, INF], [INF] * 4
    model = fit(np.array([[hit, half], [missed, half]]))
    drawn = model.draw_miss_probabilities(40_000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0).ravel(), expected, atol=0.01)


def test_where_no_study_missed_none_is_drawn():
    model = fit(np.random.default_rng(0).lognormal(size=(2, 3, 3)))
    times, steady = model.draw(10, np.random.default_rng(0))
    assert np.isfinite(times).all()
    assert np.isfinite(steady).all()


def test_a_submission_that_never_reaches_anything_stays_there():
    times = np.array([[[1.0, 2.0]] * 3, [[INF, INF]] * 3])
    drawn = fit(times).draw_miss_probabilities(5, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[:, 1], 1)
    one = bootstrap(times, THREE, BY_THE_RULES, resamples=200)
    np.testing.assert_array_equal(one.score_interval[1], [0, 0])


def test_an_unreached_cell_borrows_its_time_from_row_and_column():
    # Log times: A 0 and 1, B 2 and unknown; B is 2 above A on W0 (mean 1, so +1 and -1).
    # W1's mean is 1 (A alone, its effect 0 there): A's effect (-1 + 0) / 2, B's +1: 1 + 1 = 2.
    times = np.exp(np.array([[[0.0, 0.0], [1.0, 1.0]], [[2.0, 2.0], [INF, INF]]]))
    np.testing.assert_allclose(fit(times).log_time_SW, [[0, 1], [2, 2]], atol=1e-15)


def test_pooled_draws_have_the_studies_of_the_competition():
    times = np.array([[[9.0, NAN, NAN], [5.0, INF, 5.5]]])
    drawn, steady = fit(times).draw(5, np.random.default_rng(0))
    assert drawn.shape == (5, COMPETITIONS, 1, 2, 3)
    for every in (drawn, steady):
        expected = np.isnan(times) | np.zeros(every.shape, bool)
        np.testing.assert_array_equal(np.isnan(every), expected)
    # The steady competitions have the misses of the first ones, and typical times.
    np.testing.assert_array_equal(np.isinf(steady), np.isinf(drawn[:, :STEADY]))
    reached = np.isfinite(steady[..., 1, :])
    np.testing.assert_allclose(steady[..., 1, :][reached], (5.0 * 5.5) ** 0.5)
    assert pooled_medians(fit(times), 7, np.random.default_rng(0)).shape == (7, 1, 2)


def test_draws_differ_between_parameters_more_than_within():
    # The cell's mean is one of 3 studies: means of fresh studies vary by 1/3 + 1/3 of the variance,
    # and by 1/3 for one draw of the parameters.
    times = np.random.default_rng(1).lognormal(0, 0.1, size=(6, 6, 3))
    logs = np.log(fit(times).draw(500, np.random.default_rng(0))[0]).mean(axis=-1)
    within = logs.var(axis=1, ddof=1).mean()
    total = logs.reshape(-1, 6, 6).var(axis=0, ddof=1).mean()
    assert total / within == pytest.approx(2, rel=0.1)


def test_the_pooled_interval_is_centred_at_the_score_though_draws_are_perturbed_twice():
    # Two submissions alike on seven workloads: whoever is slower by chance loses credit, so scores
    # at parameters that are drawn around what was seen are too low on average.
    times = np.random.default_rng(5).lognormal(0, 0.2, size=(2, 7, 3))
    seven = make_layout(tuple("abcdefg"), tuple("abcdefg"), {})
    typical = np.exp(np.log(times).mean(axis=-1, keepdims=True))
    one = bootstrap(times, seven, BY_THE_RULES, resamples=8_000)
    expected = scores(typical, seven, BY_THE_RULES)
    np.testing.assert_allclose(one.expected_PS.mean(axis=0), expected, atol=0.004)
    assert (one.scores_RS.mean(axis=0) < expected - 0.02).all()
    # The interval is of the expectation, and narrower than where fresh competitions lie.
    widths = [np.ptp(percentiles(drawn), axis=1) for drawn in (one.expected_PS, one.scores_RS)]
    assert (widths[0] < 0.85 * widths[1]).all()
    low, high = one.score_interval.T
    np.testing.assert_allclose(low, percentiles(one.expected_PS)[:, 0], rtol=1e-12)
    assert ((low < one.scores_S) & (one.scores_S < high)).all()


def test_expectations_of_a_statistic_that_is_not_always_defined():
    times = np.random.default_rng(2).lognormal(0, 0.1, size=(2, 3, 3))
    _, expected = expectations(
        fit(times),
        lambda medians: np.full((*medians.shape[:-2], 1), NAN),
        40,
        np.random.default_rng(0),
    )
    assert expected.shape == (2, 1)
    assert np.isnan(expected).all()


def test_small_boards_are_covered_or_refused(tmp_path):
    # Before, 3 x 3 without a miss was covered in 92 % and called one of two equals first in 11 %.
    words = ["--boards", "150", "--competitions", "300", "--resamples", "1000"]
    options = interval_coverage.parse([*words, "--out", str(tmp_path / "kept.jsonl")])
    kept = {}
    for size in ("1x2", "1x3", "2x2"):
        assert interval_coverage.row(size, 0.3, options, kept)[3] == "100.0 %"
    for miss in (0.0, 0.3):
        differ, same = interval_coverage.measure("3x3", miss, options, kept)
        assert differ["known"] >= 145
        for sums in (differ, same):  # 300 pairs: two standard errors are 3 %
            assert 0.91 <= sums["held"] / sums["pairs"] <= 0.995
        assert same["sure"] / same["known"] <= 0.06
        assert 0.92 <= differ["speedup_held"] / differ["speedups"] <= 1
    # Finished blocks are kept: nothing is made again.
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 20
    assert interval_coverage.measure("3x3", 0.0, options, dict(kept)) == interval_coverage.measure(
        "3x3", 0.0, options, kept
    )


def test_chunks_do_not_change_what_is_drawn_over(monkeypatch):
    times = np.random.default_rng(6).lognormal(0, 0.2, size=(3, 3, 5))
    monkeypatch.setattr("scoring.analysis.statistics.CHUNK_VALUES", 100)
    one = bootstrap(times, THREE, BY_THE_RULES, resamples=11)
    assert one.scores_RS.shape == (11, 3)


@pytest.mark.parametrize("method", ["pooled", "percentile"])
def test_who_reaches_in_exactly_0_seconds_is_first(method):
    times = np.array([[[0.0] * 3] * 3, [[5.0, 6.0, 7.0]] * 3])
    one = bootstrap(times, THREE, BY_THE_RULES, method=method, resamples=200)
    np.testing.assert_array_equal(one.scores_S, [1, 0])
    np.testing.assert_array_equal(one.score_interval, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(one.rank_interval, [[1, 1], [2, 2]])
    np.testing.assert_array_equal(one.p_first, [1, 0])


def test_a_share_of_the_draws_of_a_cell_is_0_seconds_as_of_its_studies():
    times = np.array([[[0.0, 8.0, 8.0, INF]], [[9.0, 9.0, 9.0, 9.0]]])
    model = fit(times)
    np.testing.assert_allclose(model.p_zero_SW, [[1 / 3], [0]])
    assert model.log_time_SW[0, 0] == pytest.approx(np.log(8))
    drawn = model.draw(2_000, np.random.default_rng(0))[0][:, :, 0, 0]
    hits = drawn[np.isfinite(drawn)]
    assert (hits == 0).mean() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("method", ["pooled", "percentile"])
def test_where_all_missed_nothing_is_estimable(method):
    one = bootstrap(np.full((3, 3, 2), INF), THREE, BY_THE_RULES, method=method, resamples=50)
    assert one.not_estimable.startswith("the spread of times has 0 degrees of freedom")
    np.testing.assert_array_equal(one.scores_S, [0, 0, 0])


def test_nobody_is_first_in_a_competition_that_all_miss():
    # A reaches the only workload in 3 of 5 studies, B never: some fresh medians are misses.
    times = np.full((2, 1, 5), INF)
    times[0, 0] = [INF, INF, 2.0, 2.1, 2.2]
    one = bootstrap(times, ONE, BY_THE_RULES, resamples=2_000)
    zero = (one.scores_RS == 0).all(axis=1).mean()
    assert zero > 0.1
    np.testing.assert_allclose(one.p_first, [1 - zero, 0])


def test_ties_share_the_probability_of_being_first():
    times = np.array([[[2.0] * 2] * 3, [[2.0] * 2] * 3, [[INF] * 2] * 3])
    one = bootstrap(times, THREE, BY_THE_RULES, method="percentile", resamples=50)
    np.testing.assert_array_equal(one.p_first, [0.5, 0.5, 0])


def test_a_wide_bracket_widens_the_interval():
    """Studies that look alike, evaluated far apart, are not known to be alike."""
    times = np.array([[[10.0] * 5], [[15.0] * 5]])
    errors_SWN = np.full(times.shape, 0.1)
    sharp = bootstrap(times, ONE, INTERPOLATED)
    vague = bootstrap(times, ONE, INTERPOLATED, log_errors_SWN=errors_SWN)
    assert np.ptp(sharp.score_interval[1]) < 1e-9
    # The second scores (4 - r) / 3 with r = 1.5. Each mean of five has a log deviation of
    # 0.1 / sqrt(5) and each expectation, of 20 medians of five, 0.0536 / sqrt(20) more: the ratio
    # sqrt(2 * (0.0447^2 + 0.0120^2)) = 0.0655, the score 1.5 * 0.0655 / 3 = 0.0327.
    assert np.ptp(vague.score_interval[1]) == pytest.approx(2 * 1.96 * 0.0327, rel=0.12)


def test_what_the_bracket_leaves_open_is_no_second_spread():
    """Times that differ by more than the bracket show that error, too: it is not added again."""
    times = np.exp(np.array([[[-1.0, 0.0, 1.0], [1.0, 3.0, NAN]]]))
    narrow = fit(times, np.full(times.shape, 1e-6))
    wide = fit(times, np.array([[[0.1] * 3, [3.0, 4.0, 9.0]]]))
    np.testing.assert_allclose(wide.least_variance_SW, [[0.01, 12.5]])
    plain, same, floored = (
        model.draw_spreads(2_000, np.random.default_rng(0)) for model in (fit(times), narrow, wide)
    )
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_array_equal(np.maximum(plain, np.sqrt([[0.01, 12.5]])), floored)

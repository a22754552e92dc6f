"""Intervals: against exact enumeration, the published ones, and cases worked out by hand."""

import itertools

import numpy as np
import pytest

from algoperf import errors
from scoring.analysis.pooled_model import fit, t_quantile
from scoring.analysis.statistics import bootstrap, percentiles, pooled_medians, resampled_medians
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
    times = np.array([[[10.0, 20.0]], [[15.0, 15.0]]])
    one = bootstrap(times, ONE, BY_THE_RULES, method="percentile", resamples=20_000)
    np.testing.assert_allclose(one.scores_S, [1, 1])
    np.testing.assert_allclose(one.score_interval, [[8 / 9, 1], [5 / 6, 1]])
    np.testing.assert_array_equal(one.rank_interval, [[1, 2], [1, 2]])
    # Each is first alone with 1/4; the half in which they tie counts half for each.
    np.testing.assert_allclose(one.p_first, [0.5, 0.5], atol=0.015)
    np.testing.assert_allclose(one.p_beats, [[0, 0.25], [0.25, 0]], atol=0.015)


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


def test_pooled_fit():
    # Log times: cell 0 has -1, 0, 1 (mean 0, squares 2, 2 degrees of freedom), cell 1 has 2, 2, 2.
    # Pooled variance 2 / 4 = 1/2; shrunk (2 + 4 / 2) / 6 = 2/3 and (0 + 2) / 6 = 1/3.
    times = np.exp(np.array([[[-1.0, 0.0, 1.0], [2.0, 2.0, 2.0]]]))
    model = fit(times)
    np.testing.assert_allclose(model.log_time_SW, [[0, 2]], atol=1e-15)
    np.testing.assert_allclose(model.spread_SW**2, [[2 / 3, 1 / 3]])
    np.testing.assert_array_equal(model.p_miss_SW, 0)


def test_pooled_misses():
    # Shares missed of 4 studies: 0, 1/2, 1, 1/2: mean 1/2, variance 1/8, so (1/8) / (1/4) = 1/2 =
    # 1/4 + 3/4 rho, rho = 1/3, prior of strength (1 - rho) / rho = 2: (k + 1) / (4 + 2).
    hit, half, missed = [1.0] * 4, [1.0, 1.0, INF, INF], [INF] * 4
    model = fit(np.array([[hit, half], [missed, half]]))
    np.testing.assert_allclose(model.p_miss_SW, [[1 / 6, 1 / 2], [5 / 6, 1 / 2]])


def test_a_submission_that_never_reaches_anything_stays_there():
    times = np.array([[[1.0, 2.0]] * 3, [[INF, INF]] * 3])
    model = fit(times)
    np.testing.assert_array_equal(model.p_miss_SW[1], 1)
    one = bootstrap(times, THREE, BY_THE_RULES, resamples=200)
    np.testing.assert_array_equal(one.score_interval[1], [0, 0])


def test_an_unreached_cell_borrows_its_time_from_row_and_column():
    # Log times: A 0 and 1, B 2 and unknown; B is 2 above A on W0 (mean 1, so +1 and -1).
    # W1's mean is 1 (A alone, its effect 0 there): A's effect (-1 + 0) / 2, B's +1: 1 + 1 = 2.
    times = np.exp(np.array([[[0.0, 0.0], [1.0, 1.0]], [[2.0, 2.0], [INF, INF]]]))
    np.testing.assert_allclose(fit(times).log_time_SW, [[0, 1], [2, 2]], atol=1e-15)


def test_pooled_draws_follow_the_fit():
    times = np.array([[[9.0, 10.0, 11.0], [5.0, INF, 5.0]]])
    model = fit(times)
    drawn = model.draw(20_000, np.random.default_rng(0))
    finite = np.isfinite(drawn)
    np.testing.assert_allclose(1 - finite.mean(axis=(0, 3)), model.p_miss_SW, atol=0.01)
    logs = np.log(drawn[:, 0, 0][finite[:, 0, 0]])
    assert logs.mean() == pytest.approx(model.log_time_SW[0, 0], abs=0.005)
    assert logs.std() == pytest.approx(model.spread_SW[0, 0], rel=0.02)


def test_pooled_draws_have_the_studies_of_the_competition():
    times = np.array([[[9.0, NAN, NAN], [5.0, INF, 5.0]]])
    drawn = fit(times).draw(5, np.random.default_rng(0))
    np.testing.assert_array_equal(np.isnan(drawn).any(axis=0), np.isnan(times))
    assert pooled_medians(fit(times), 7, np.random.default_rng(0)).shape == (7, 1, 2)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(3, 3.182), (5, 2.571), (18, 2.101), (120, 1.980)]
)
def test_student_quantiles(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, rel=3e-4)  # tables have three decimals


def test_the_pooled_interval_is_the_score_plus_minus_t_deviations():
    times = np.random.default_rng(5).lognormal(0, 0.2, size=(3, 3, 3))
    one = bootstrap(times, THREE, BY_THE_RULES, resamples=2_000)
    half = 2.101 * one.scores_RS.std(axis=0, ddof=1)  # 9 cells of 2 degrees of freedom
    score = scores(times, THREE, BY_THE_RULES)
    expected = np.clip(np.stack([score - half, score + half], axis=1), 0, 1)
    np.testing.assert_allclose(one.score_interval, expected, rtol=1e-4)


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
    drawn = model.draw(20_000, np.random.default_rng(0))[:, 0, 0]
    hits = drawn[np.isfinite(drawn)]
    assert (hits == 0).mean() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("method", ["pooled", "percentile"])
def test_where_all_missed_nobody_is_first(method):
    one = bootstrap(np.full((3, 3, 2), INF), THREE, BY_THE_RULES, method=method, resamples=50)
    np.testing.assert_array_equal(one.p_first, [0, 0, 0])


def test_ties_share_the_probability_of_being_first():
    times = np.array([[[2.0] * 2] * 3, [[2.0] * 2] * 3, [[INF] * 2] * 3])
    one = bootstrap(times, THREE, BY_THE_RULES, method="percentile", resamples=50)
    np.testing.assert_array_equal(one.p_first, [0.5, 0.5, 0])


def test_a_wide_bracket_widens_the_interval():
    """Studies that look alike, evaluated far apart, are not known to be alike."""
    times = np.array([[[10.0, 10.0, 10.0]], [[15.0, 15.0, 15.0]]])
    layout = make_layout(("W0",), ("W0",), {})
    sharp = bootstrap(times, layout, INTERPOLATED, resamples=2_000)
    vague = bootstrap(
        times, layout, INTERPOLATED, resamples=2_000, log_errors_SWN=np.full(times.shape, 0.1)
    )
    assert np.ptp(sharp.score_interval[1]) < 1e-9
    # The score of the second is (4 - r) / 3, r = 1.5 with a log deviation of 0.1 times sqrt(2) and
    # 0.67 of it for a median of three: 1.5 * 0.0947 / 3 = 0.047, and t (4 degrees) is 2.776.
    assert np.ptp(vague.score_interval[1]) == pytest.approx(2 * 2.776 * 0.047, rel=0.15)

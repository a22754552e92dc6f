"""Speed-ups over a reference, worked out by hand."""

import numpy as np
import pytest

from algoperf import errors
from scoring.analysis.speedup import _ends, choose_reference, speedups


@pytest.fixture
def board(reach, miss, boards):
    """Budget 100 s; A is the reference.

             W0    W1    W2    W3
        a    10    40    inf   inf
        b    5     inf   50    inf

    b: 10/5 = 2; at most 40/100; at least 100/50 = 2; W3 left out. (2 x 0.4 x 2)^(1/3) = 1.6^(1/3).
    """
    for submission, times in {"a": (10, 40, None, None), "b": (5, None, 50, None)}.items():
        for workload, time_s in enumerate(times):
            for study in (0, 1):
                facts = {"submission": submission, "workload": f"W{workload}", "study": study}
                if time_s is None:
                    miss(**facts)
                else:
                    reach(float(time_s), **facts)
    return boards()[0]["mini-builtin"]


def test_geometric_mean_with_misses_at_the_budget(board):
    found = speedups(board, "a")
    b, a = board.labels.index("b"), board.labels.index("a")
    np.testing.assert_allclose(found.by_workload_SB[b], [2, 0.4, 2, np.nan])
    assert found.mean_S[b] == pytest.approx(1.6 ** (1 / 3))
    assert found.censored_SB[b] == ("", "<=", ">=", "")
    assert found.note(b) == "1 missed by it, 1 missed by a, 1 left out"
    np.testing.assert_allclose(found.by_workload_SB[a], [1, 1, np.nan, np.nan])
    assert found.mean_S[a] == 1
    assert speedups(board, "b").mean_S[a] == pytest.approx(1.6 ** (-1 / 3))


def test_a_miss_counts_where_its_own_late_trials_were_ended(board, miss, boards):
    for label, workload in (("b", "W1"), ("a", "W2"), ("c", "W0"), ("c", "W1")):
        late = {"submission": label, "workload": workload, "trial": 2, "status": "late"}
        for study, clock_s in enumerate((70.0, 80.0)):
            clock_s = 60.0 if label == "c" else clock_s
            miss(**late, study=study, result={"ledger": {"submission_s": clock_s}})
    board = boards()[0]["mini-builtin"]
    a, b, c = map(board.labels.index, "abc")
    found = speedups(board, "a")
    np.testing.assert_allclose(found.by_workload_SB[b], [2, 40 / 70, 70 / 50, np.nan])
    assert found.censored_SB[b] == ("", "<=", ">=", "")
    np.testing.assert_allclose(found.by_workload_SB[c], [10 / 60, 40 / 60, np.nan, np.nan])
    np.testing.assert_allclose(speedups(board, "c").by_workload_SB[a], [6, 60 / 40, np.nan, np.nan])


def test_another_submission_does_not_move_it(board, reach, boards):
    before = speedups(board, "a").mean_S[board.labels.index("b")]
    reach(0.1, submission="fast", workload="W0", study=0)
    reach(0.1, submission="fast", workload="W0", study=1)
    after = boards()[0]["mini-builtin"]
    assert speedups(after, "a").mean_S[after.labels.index("b")] == pytest.approx(before)


def test_0_seconds_have_the_ratio_1_to_0_seconds_and_none_to_others(make_trial, boards):
    for submission, times_s in {"a": (0.0, 0.0), "b": (0.0, 10.0)}.items():
        for workload, time_s in enumerate(times_s):
            make_trial([(time_s, 1, 0.9)], submission=submission, workload=f"W{workload}")
    found = speedups(boards()[0]["mini-builtin"], "a")
    np.testing.assert_array_equal(found.by_workload_SB, [[1, 1], [1, np.nan]])
    np.testing.assert_array_equal(found.mean_S, [1, 1])
    assert found.note(1) == "1 left out"


def test_interval_holds_the_mean_and_is_not_estimable_from_one_study(board, reach, boards):
    found = speedups(board, "a")
    low, high = found.interval[board.labels.index("b")]
    assert low <= found.mean_S[board.labels.index("b")] <= high
    reach(3.0, submission="a", workload="W4")
    single = boards()[0]["mini-builtin"]
    assert np.isnan(speedups(single, "a").interval).all()


def test_interval_is_that_of_the_log_of_the_ratio(reach, boards):
    # Log times of a: 0, .1, .2, .3, .4; of b 1 more. Both have squares .1 and 4 degrees of freedom:
    # variance .025, that of the difference of two means .025 * 2 / 5, its root .1. Student's t of
    # 8 degrees of freedom has the quantile 2.306, of 4, did they lend nothing to each other, 2.776.
    for submission, more in {"a": 0.0, "b": 1.0}.items():
        for study in range(5):
            reach(10.0 * np.exp(0.1 * study + more), submission=submission, study=study)
    board = boards()[0]["mini-builtin"]
    index = board.labels.index("b")
    found = speedups(board, "a")
    low, high = np.log(found.interval[index])
    # Medians are those of times, and of fresh studies: the means of logarithms differ by little.
    assert (low + high) / 2 == pytest.approx(-1, abs=0.04)
    assert 0.9 * 0.2306 < (high - low) / 2 < 1.1 * 0.2776
    np.testing.assert_array_equal(found.interval[1 - index], [1, 1])


def test_the_interval_knows_how_far_apart_evaluations_were(make_trial, boards):
    """Five studies that agree to the last digit, each interpolated in a bracket of 10 to 20 s."""
    for study in range(5):
        for submission, hit in (("a", 1.0), ("b", 2.0)):
            rows = [(10.0, 100, 0.8), (20.0, 200, hit)]
            make_trial(rows, submission=submission, study=study)
    (board,) = boards()[0].values()
    found = speedups(board, "a")
    low, high = np.log(found.interval[board.labels.index("b")])
    # Each log time has a deviation of 0.3 ln 2 = 0.2079, the difference of two means of five of
    # 0.2079 sqrt(2 / 5) = 0.1315, and of twenty drawn medians of five a little more.
    assert high - low == pytest.approx(2 * 1.96 * 0.1315, rel=0.2)


def test_no_interval_where_most_competitions_compare_nothing(reach, miss, boards):
    # Both submissions reach W0 in 2 of 6 studies: most medians are misses of both.
    for submission in ("a", "b"):
        for study in range(6):
            facts = {"submission": submission, "workload": "W0", "study": study}
            if study < 2:
                reach(10.0 + study, **facts)
            else:
                miss(**facts)
    found = speedups(boards()[0]["mini-builtin"], "a")
    assert np.isnan(found.mean_S).all()
    assert np.isnan(found.interval).all()


def test_ends_are_of_the_known_draws_unless_too_many_are_not_known():
    columns = np.tile(np.linspace(0, 1, 101)[:, None], (1, 2))
    columns[-4:, 0] = columns[-6:, 1] = np.nan  # 4 and 6 % of the draws
    ends = _ends(columns)
    np.testing.assert_allclose(ends[0], [0.025 * 0.96, 0.975 * 0.96])
    assert np.isnan(ends[1]).all()


def test_choice_of_the_reference():
    assert choose_reference(["x", "nadamw", "baseline"], None) == "baseline"
    assert choose_reference(["x", "nadamw"], None) == "nadamw"
    assert choose_reference(["x", "y"], None) == "x"
    assert choose_reference(["x", "y"], "y") == "y"
    with pytest.raises(errors.UserError, match="no submission 'z' to refer to; one of: x, y"):
        choose_reference(["x", "y"], "z")

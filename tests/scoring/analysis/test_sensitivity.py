"""Scores under other choices, worked out by hand."""

import itertools

import numpy as np
import pytest

from scoring.analysis import sensitivity
from scoring.analysis.leaderboard import build_leaderboard
from scoring.rules.rules import AS_PUBLISHED, BY_THE_RULES, make_layout


def by_label(board, scores):
    return dict(zip(board.labels, np.round(scores, 12).tolist(), strict=True))


@pytest.fixture
def board(reach, miss, boards):
    """Three studies; per study two trials on W0.

             W0 (trial 1; trial 2)          W1
        a    10; miss    20; miss   60; 30   30  30  30
        b    20; 20      20; 20     20; 20   60  60  miss

    Best of two: a 10, 20, 30; b 20, 20, 20 on W0.
    """
    for study, (first, second) in enumerate([(10.0, None), (20.0, None), (60.0, 30.0)]):
        reach(first, submission="a", workload="W0", study=study, trial=1)
        if second is None:
            miss(submission="a", workload="W0", study=study, trial=2)
        else:
            reach(second, submission="a", workload="W0", study=study, trial=2)
        for trial in (1, 2):
            reach(20.0, submission="b", workload="W0", study=study, trial=trial)
        reach(30.0, submission="a", workload="W1", study=study)
        if study < 2:
            reach(60.0, submission="b", workload="W1", study=study)
        else:
            miss(submission="b", workload="W1", study=study)
    return boards()[0]["mini-builtin"]


def test_leave_one_workload_out(board):
    # W0: both 20, ratio 1. W1: 30 and 60, ratio 2, credit 2/3.
    found = sensitivity.leave_one_workload_out(board)
    assert by_label(board, found["W0"]) == pytest.approx({"a": 1, "b": 2 / 3})
    assert by_label(board, found["W1"]) == pytest.approx({"a": 1, "b": 1})


def test_leaving_a_base_out_takes_its_variant_along():
    layout = make_layout(("V", "V_v", "W", "W_v"), ("V", "W"), {"V_v": "V", "W_v": "W"})
    left = sensitivity.without_base(layout, 0)
    assert (left.base, left.variants) == ((2,), ((3, 0),))
    left = sensitivity.without_base(layout, 1)
    assert (left.base, left.variants) == ((0,), ((1, 0),))


def test_leave_one_submission_out(board):
    found = sensitivity.leave_one_submission_out(board)
    a, b = board.labels.index("a"), board.labels.index("b")
    assert found[a, b] == 1  # alone, b is the fastest everywhere
    assert np.isnan(found[a, a])


def test_median_mean_and_best_over_studies(board):
    found = {name: by_label(board, s) for name, s in sensitivity.aggregations(board).items()}
    assert found["median"] == pytest.approx({"a": 1, "b": 5 / 6})
    # Mean: W0 20 and 20; W1 30 and inf.
    assert found["mean"] == pytest.approx({"a": 1, "b": 1 / 2})
    # Best: W0 10 and 20, ratio 2; W1 30 and 60, ratio 2.
    assert found["best"] == pytest.approx({"a": 1, "b": 2 / 3})


def test_expected_best_of_k_trials(board):
    # k = 1 on W0: a takes 10 or inf, 20 or inf, 60 or 30, each with 1/2; b always 20. Medians of a:
    #   10 20 -> 20 (2/8); 10 inf 30 -> 30, 10 inf 60 -> 60; inf 20 30 -> 30, inf 20 60 -> 60;
    #   inf inf -> inf (2/8). Ratios to min(a, 20): a 1, 1.5 (2/8), 3 (2/8), inf (2/8); b always 1.
    # a on W0: (1 + 2.5/3 + 1/3 + 0) / 4 = 13/24; W1 as before: a 1, b 2/3.
    found = sensitivity.trials_needed(board, draws=4_000)
    one = dict(zip(board.labels, found[0], strict=True))
    assert one["a"] == pytest.approx((13 / 24 + 1) / 2, abs=0.01)
    assert one["b"] == pytest.approx(5 / 6)
    assert by_label(board, found[1]) == pytest.approx({"a": 1, "b": 5 / 6})


def test_changed_targets(make_trial, boards):
    # Target 0.9. a crosses 0.8 at 1 s, 0.9 at 2 s; b 0.88 at 3 s, 0.9 at 4 s, then goes on to 0.95.
    for study in (0, 1):
        make_trial([(1, 10, 0.8), (2, 20, 0.9)], submission="a", study=study)
        rows = [(3, 30, 0.88), (4, 40, 0.9), (95, 50, 0.95)]
        make_trial(rows, submission="b", study=study)
    board = boards()[0]["mini-builtin"]
    sweep = sensitivity.target_sweep(board, (-0.2, 0.0, 0.05))
    scores = [by_label(board, scores) for scores in sweep.scores_CS]
    # 0.72: a 1 s, b 3 s, ratio 3, credit 1/3; 0.9: 2 and 4 s, credit 2/3; 0.945: b alone.
    assert scores[0] == pytest.approx({"a": 1, "b": 1 / 3})
    assert scores[1] == pytest.approx({"a": 1, "b": 2 / 3})
    assert scores[2] == pytest.approx({"a": 0, "b": 1})
    assert sweep.unknown == (0, 0, 2)  # a's two trials stopped at their target


def test_lower_is_better_is_changed_the_other_way(make_trial, boards):
    loss = {"metric": "loss", "higher_is_better": False, "validation": 0.5}
    for study in (0, 1):
        make_trial([(1, 10, 0.6), (2, 20, 0.5), (90, 30, 0.46)], study=study, target=loss)
    board = boards()[0]["mini-builtin"]
    sweep = sensitivity.target_sweep(board, (-0.2, 0.1, 0.2))
    np.testing.assert_array_equal(sweep.scores_CS[:, 0], [1, 0, 0])  # 0.6, 0.45, 0.4
    assert sweep.unknown == (0, 0, 0)  # 90 of 100 s: the trials ran on


@pytest.mark.parametrize("rules", [BY_THE_RULES, AS_PUBLISHED], ids=lambda rules: rules.name)
def test_all_targets_at_once_are_the_targets_one_by_one(make_trial, boards, rules):
    """Random curves that go up and down, some over the budget, some not ended, some unreadable."""
    generator = np.random.default_rng(0)
    for submission, workload, study, trial in itertools.product("ab", "vw", range(3), (1, 2)):
        count = int(generator.integers(1, 9))
        times_s = np.cumsum(generator.uniform(1, 30, count))
        values = [*generator.uniform(0.8, 1.0, count - 1).tolist(), 0.5]
        rows = [(t, step, v) for step, (t, v) in enumerate(zip(times_s, values, strict=True))]
        if (submission, study) == ("b", 2) and workload == "v":
            rows = []
        status = None if generator.random() < 0.3 else "complete"
        place = {"submission": submission, "workload": workload, "study": study, "trial": trial}
        make_trial(rows, status=status, **place)
    board, _ = build_leaderboard(boards()[0]["mini-builtin"].pool, rules)
    changes = (-0.05, -0.01, 0.0, 0.02, 0.05, 0.2)
    times_CSWN, unknown = sensitivity._sweep(board, changes)
    expected_CSWN, expected_unknown = sensitivity._sweep_one_by_one(board, changes)
    np.testing.assert_array_equal(times_CSWN, expected_CSWN)
    assert unknown == expected_unknown
    assert np.isnan(times_CSWN).any()
    assert np.isinf(times_CSWN).any()

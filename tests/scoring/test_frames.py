"""The Python API of a notebook."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

import scoring
from algoperf import errors


@pytest.fixture
def runs(tmp_path, reach, miss):
    """Two submissions; digits over three studies, lm over two (b misses one of them)."""
    for study, time_s in enumerate([10.0, 30.0, 20.0]):
        reach(time_s, submission="a", study=study)
        reach(2 * time_s, submission="b", study=study)
    for study in (0, 1):
        reach(40.0, submission="a", study=study, workload="lm")
    reach(20.0, submission="b", study=0, workload="lm")
    miss(submission="b", study=1, workload="lm")
    return scoring.load_runs(tmp_path / "runs")


def test_one_row_a_trial_with_the_documented_columns(runs):
    assert len(runs) == 10
    for column in runs.columns:
        assert column in inspect.getdoc(scoring.load_runs)
    row = runs[(runs.submission == "b") & (runs.workload == "lm") & (runs.study == 1)].iloc[0]
    facts = ("framework", "trial", "metric", "target", "budget_s", "status", "scoreable", "best")
    assert [row[name] for name in facts] == [
        "jax", 1, "accuracy", 0.9, 100.0, "complete", True, 0.6,
    ]  # fmt: skip
    assert (row.evaluations, row.last_time_s, row.last_step) == (2, 2.0, 20)
    assert row.rows["validation/accuracy"].tolist() == [0.5, 0.6]
    assert row.hyperparameters == {"learning_rate": 0.1}
    assert runs.attrs["findings"] == []


def test_from_runs_to_scores(runs):
    times = scoring.time_to_target(runs)
    assert len(times) == 2 * (3 + 2)
    b = times[(times.submission == "b") & (times.workload == "lm")]
    assert b.time_s.tolist() == [20.0, np.inf]
    assert b.outcome.tolist() == ["reached", "not reached"]
    # digits: medians 20 and 40, ratio 2. lm: a 40; b (20 + inf) / 2 = inf.
    scores = scoring.score(times)
    assert scores.submission.tolist() == ["a", "b"]
    assert scores.score.tolist() == pytest.approx([1, 1 / 3])
    assert scores["rank"].tolist() == [1, 2]
    ratios = scoring.ratios(times)
    assert ratios.columns.tolist() == ["digits", "lm"]
    assert ratios.loc[("mini-builtin", "b")].tolist() == [2.0, np.inf]
    profile = scoring.performance_profile(ratios.to_numpy(), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(profile, [[1, 1], [0, 0.5]])


def test_rows_and_columns_can_be_changed(runs):
    easier = scoring.time_to_target(runs.assign(target=0.55), rules="by-the-rules")
    assert easier[(easier.submission == "b") & (easier.study == 1)].time_s.tolist() == [60.0, 2.0]
    without = scoring.time_to_target(runs[runs.workload == "digits"])
    assert scoring.score(without).score.tolist() == pytest.approx([1, 2 / 3])
    short = scoring.time_to_target(runs.assign(budget_s=25.0), rules="by-the-rules")
    assert "budget" in set(short.outcome)
    assert "budget" not in set(scoring.time_to_target(runs, rules="as-published").outcome)


def test_times_are_interpolated_and_the_bracket_is_beside(runs):
    """0.5 at 30 s, 0.9 at 60 s: 0.6 is met a quarter of the way there."""
    easier = scoring.time_to_target(runs[runs.workload == "digits"].assign(target=0.6))
    row = easier[(easier.submission == "b") & (easier.study == 1)].iloc[0]
    assert (row.time_s, row.steps) == pytest.approx((37.5, 375))
    bracket = (row.last_miss_time_s, row.last_miss_steps, row.hit_time_s, row.hit_steps)
    assert bracket == (30.0, 300.0, 60.0, 600.0)


def test_steps_in_place_of_times(runs):
    times = scoring.time_to_target(runs)
    by_steps = scoring.score(times.assign(time_s=times.steps))
    assert by_steps.score.tolist() == pytest.approx([1, 1 / 3])


def test_an_absent_study_counts_as_the_rules_say(runs):
    absent = runs[~((runs.submission == "b") & (runs.study == 1) & (runs.workload == "lm"))]
    times = scoring.time_to_target(absent)
    assert np.isnan(
        times[(times.submission == "b") & (times.workload == "lm")].time_s
    ).tolist() == [
        False,
        True,
    ]
    assert scoring.score(times).score.tolist() == pytest.approx([1, 1 / 3])
    published = scoring.score(times, rules="as-published")  # b is then fastest on lm, a at 2
    assert published.score.tolist() == pytest.approx([(1 + 2 / 3) / 2] * 2, abs=0.01)


def test_bootstrap_of_frames(runs):
    times = scoring.time_to_target(runs)
    found = scoring.bootstrap(times, resamples=500)
    assert found.submission.tolist() == ["a", "b"]
    assert (found.score_low <= found.score).all()
    assert (found.score <= found.score_high).all()
    assert found.not_estimable.tolist() == ["", ""]
    over = scoring.bootstrap(times, over="workloads")
    assert over.not_estimable.tolist() == ["2 workloads; 3 are needed"] * 2
    assert over.score_low.isna().all()
    one = scoring.bootstrap(times[times.study == 0])
    assert set(one.not_estimable) == {"digits has 1 study; 2 are needed"}


def test_targets_of_a_file(runs, tmp_path):
    path = tmp_path / "targets.json"
    path.write_text('{"workloads": {"digits": {"metric": "accuracy", "validation": 0.5}}}')
    times = scoring.time_to_target(runs, targets=path)
    assert set(times.workload) == {"digits"}
    assert times[times.submission == "a"].time_s.tolist() == [5.0, 15.0, 10.0]
    assert times.attrs["findings"]


def test_nothing_in_nothing_out(tmp_path):
    runs = scoring.load_runs(tmp_path)
    times = scoring.time_to_target(runs)
    assert (len(runs), len(times), len(scoring.score(times)), len(scoring.bootstrap(times))) == (
        0, 0, 0, 0,
    )  # fmt: skip
    with pytest.raises(errors.UserError, match="unknown rules"):
        scoring.score(times, rules="fair")


def test_import_is_light():
    code = (
        "import sys, scoring; heavy = {'jax', 'torch', 'pandas', 'matplotlib', 'rich', 'scipy',"
        "'jinja2'}; sys.exit(' '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_trial_that_has_not_ended_is_no_miss_in_frames_either(tmp_path, reach, miss):
    reach(20.0, submission="a", study=0)
    miss(submission="a", study=1, status=None)
    for study in (0, 1):
        reach(10.0, submission="b", study=study)
    runs = scoring.load_runs(tmp_path / "runs")
    assert runs["unfinished"].dropna().to_dict() == {1: "interrupted"}
    times = scoring.time_to_target(runs)
    assert sorted(times["outcome"]) == ["interrupted", *["reached"] * 3]
    # The median of a is that of study 0, so its ratio is 2: (4 - 2) / 3. As a miss it were inf.
    scores = scoring.score(times).set_index("submission")["score"]
    assert scores.to_dict() == pytest.approx({"a": 2 / 3, "b": 1.0})
    counted = scoring.time_to_target(runs.assign(unfinished=None))
    assert scoring.score(counted).set_index("submission")["score"]["a"] == 0

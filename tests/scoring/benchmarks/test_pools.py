"""What may be compared, and under which name."""

import pytest

LOSS = {"metric": "loss", "higher_is_better": False, "validation": 0.5}
POOL = {"scale": "mini", "data": "builtin", "precision": "float32", "tuning_ruleset": "none"}


def labels(board):
    return [row.entry.label for row in board.rows]


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"scale": "full"}, ["full-builtin", "mini-builtin"]),
        ({"data": "folder"}, ["mini-builtin", "mini-folder"]),
        ({"precision": "bfloat16"}, ["mini-builtin", "mini-builtin-bfloat16"]),
        ({"tuning_ruleset": "external"}, ["mini-builtin", "mini-builtin-external tuning"]),
        (
            {"validation_commitment": "0123456789abcdef" * 4},
            ["mini-builtin", "mini-builtin-validation-0123456789ab"],
        ),
        (
            {"eval_every_steps": 50},
            ["mini-builtin (eval_every_steps=50)", "mini-builtin (eval_every_steps=None)"],
        ),
        (
            {"versions": {"jax": "0.10", "numpy": "2"}, "eval_every_steps": None},
            ["mini-builtin", "mini-builtin (versions.jax=0.10, versions.numpy=2)"],
        ),
    ],
)
def test_pools_are_never_pooled(reach, boards, other, names):
    reach(10.0, submission="adamw", pool=POOL | {"eval_every_steps": None})
    reach(90.0, submission="slow", pool=POOL | {"eval_every_steps": None} | other)
    built, _ = boards()
    assert sorted(built) == sorted(names)
    # Alone in its pool, the slow one is the fastest.
    assert [[row.score for row in board.rows] for board in built.values()] == [[1.0], [1.0]]


def test_studies_of_another_pool_are_not_expected(reach, boards):
    reach(10.0, study=0)
    reach(10.0, study=1, pool=POOL | {"scale": "full"})
    built, _ = boards()
    assert [len(board.rows[0].cells["digits"].studies) for board in built.values()] == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "f2"},
        {"flags": {"workload_hash": "w2"}},
        {"budget_s": 50.0},
        {"target": {"metric": "accuracy", "higher_is_better": True, "validation": 0.8}},
    ],
)
def test_workload_that_disagrees_is_set_apart(reach, boards, other):
    for submission, time_s in [("a", 10.0), ("b", 20.0)]:
        reach(time_s, submission=submission, workload="ag_news")
    reach(10.0, submission="a")
    reach(20.0, submission="b", **other)
    built, findings = boards()
    apart = [name for name in built if name.startswith("mini-builtin, digits apart (")]
    assert len(apart) == 2
    assert sorted(built) == sorted([*apart, "mini-builtin"])
    assert sorted(labels(built[name])[0] for name in apart) == ["a", "b"]
    # The rest goes on: b at ratio 2 on the one workload left, (4 - 2) / 3.
    rest = built["mini-builtin"]
    assert list(rest.targets) == ["ag_news"]
    assert [row.score for row in rest.rows] == pytest.approx([1.0, 2 / 3])
    assert sum("runs of digits disagree, each version is scored apart" in f for f in findings) == 1


def test_not_scoreable_runs_are_left_out_and_named(reach, boards):
    reach(10.0, submission="a")
    reach(1.0, submission="b", result={"scoreable": False}, fingerprint="f2")
    reach(1.0, submission="b", result={"scoreable": False}, trial=2, workload="ag_news")
    built, findings = boards()
    assert labels(built["mini-builtin"]) == ["a"]
    assert list(built["mini-builtin"].targets) == ["digits"]
    assert len(findings) == 1
    assert findings[0].endswith("b: 2 trials (ag_news, digits) marked not scoreable: left out")


def test_two_frameworks_are_two_entries(reach, boards):
    reach(10.0, framework="jax")
    reach(20.0, framework="pytorch")
    reach(5.0, framework="pytorch", submission="other")
    board = boards()[0]["mini-builtin"]
    assert labels(board) == ["other", "adamw (jax)", "adamw (pytorch)"]
    assert [row.cells["digits"].ratio for row in board.rows] == [1, 2, 4]


def test_frameworks_on_different_workloads_are_not_mixed_either(reach, boards):
    reach(10.0, workload="digits", framework="jax")
    reach(10.0, workload="ag_news", framework="pytorch")
    board = boards()[0]["mini-builtin"]
    assert [(row.entry.label, row.score) for row in board.rows] == [
        ("adamw (jax)", 0.5),
        ("adamw (pytorch)", 0.5),
    ]


def test_one_name_in_two_experiments_is_two_entries(reach, boards):
    reach(10.0, experiment="monday", study=0)
    reach(20.0, experiment="tuesday", study=0)
    reach(40.0, experiment="tuesday", study=0, submission="sgd")
    board = boards()[0]["mini-builtin"]
    assert labels(board) == ["monday/adamw", "tuesday/adamw", "sgd"]


def test_one_name_and_experiment_in_two_folders_is_two_entries(tmp_path, reach, boards):
    reach(10.0)
    (tmp_path / "runs").rename(tmp_path / "first")
    reach(20.0)
    board = boards(tmp_path / "first", tmp_path / "runs")[0]["mini-builtin"]
    expected = [str(tmp_path / name / "mini-builtin" / "adamw") for name in ("first", "runs")]
    assert labels(board) == expected


def test_runs_without_settings_are_a_pool_of_their_own(reach, boards):
    reach(10.0)
    reach(20.0, submission="b", pool={})
    built, findings = boards()
    assert sorted(built) == ["mini-builtin", "settings not recorded"]
    assert sum("b: records no settings" in finding for finding in findings) == 1


def test_a_folder_without_settings_is_one_submission_in_the_framework_of_most(reach, boards):
    for workload in ("digits", "ag_news"):
        reach(10.0, submission="a", pool={}, workload=workload, framework="pytorch")
    reach(1.0, submission="a", pool={}, framework="jax")
    built, findings = boards()
    (row,) = built["settings not recorded"].rows
    assert (row.entry.label, row.entry.framework) == ("a", "pytorch")
    assert row.cells["digits"].median_time_s == 10.0
    told = "a: is a pytorch submission by most of its workloads; left out: digits_jax"
    assert any(finding.endswith(told) for finding in findings)


def test_a_folder_without_settings_in_two_frameworks_alike_is_two_entries(reach, boards):
    for framework in ("jax", "pytorch"):
        reach(10.0, submission="a", pool={}, framework=framework)
    built, findings = boards()
    assert labels(built["settings not recorded"]) == ["a (jax)", "a (pytorch)"]
    assert any("scored as two entries" in finding for finding in findings)


def test_rulesets_of_algoperf_are_never_pooled(reach, boards):
    for experiment, time_s in [("self_tuning", 30.0), ("external_tuning", 10.0)]:
        for workload in ("digits", "lm"):
            reach(time_s, experiment=experiment, workload=workload, pool={}, budget_s=time_s + 1)
    built, _ = boards()
    assert {name: [row.score for row in board.rows] for name, board in built.items()} == {
        "external_tuning": [1.0],
        "self_tuning": [1.0],
    }

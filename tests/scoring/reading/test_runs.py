"""Reading folders, whole and damaged."""

import json
import math

import numpy as np
import pytest

from algoperf import errors
from algoperf.run_folder import run_log
from scoring.reading.runs import check_metrics, find_submissions, read_runs
from scoring.reading.trials import Target
from scoring.rules.time_to_target import time_to_target


def test_everything_of_a_trial(tmp_path, make_trial):
    folder = make_trial([(1.5, 10, 0.4), (3.0, 20, 0.95)], study=2, trial=3, status="reached")
    (run,), findings = read_runs(tmp_path)
    assert findings == []
    assert (run.submission, run.experiment, run.workload) == ("adamw", "mini-builtin", "digits")
    assert (run.framework, run.study, run.trial, run.path) == ("jax", 2, 3, folder)
    assert run.target == Target("accuracy", higher_is_better=True, validation=0.9)
    assert (run.budget_s, run.status, run.scoreable) == (100.0, "reached", True)
    assert (run.data_fingerprint, run.pool["scale"]) == ("f1", "mini")
    assert dict(run.hyperparameters) == {"learning_rate": 0.1}
    np.testing.assert_array_equal(run.rows["accumulated_submission_time"], [1.5, 3.0])
    np.testing.assert_array_equal(run.rows["validation/accuracy"], [0.4, 0.95])


def test_any_folder_above_the_studies_will_do_and_none_is_read_twice(tmp_path, miss, monkeypatch):
    miss(experiment="a")
    miss(experiment="b")
    submission = tmp_path / "runs" / "a" / "adamw"
    for path, count in [(tmp_path, 2), (submission.parent, 1), (submission, 1)]:
        assert len(read_runs(path)[0]) == count
    assert len(read_runs(tmp_path, submission, submission.parent)[0]) == 2
    monkeypatch.chdir(submission)
    (run,), findings = read_runs(".")
    assert (run.submission, run.experiment, findings) == ("adamw", "a", [])


def test_byte_order_marks_hide_nothing(tmp_path, reach):
    """As an editor or a spreadsheet puts them before a file that it saves."""
    folder = reach(10.0)
    before, _ = read_runs(tmp_path)
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (run,), findings = read_runs(tmp_path)
    assert findings == check_metrics([run]) == []
    assert run.rows.keys() == before[0].rows.keys()
    assert (run.target, run.status) == (before[0].target, before[0].status)
    assert run.hyperparameters == before[0].hyperparameters
    assert run_log.read_result(folder)["status"] == run.status
    assert run_log.evaluations(folder)[1]["accumulated_submission_time"] == 10.0


def test_times_below_0_never_meet_a_target_and_are_told(tmp_path, make_trial):
    make_trial([(-1.0, 1, 0.95), (0.0, 2, 0.4), (3.0, 3, 0.95)])
    (run,), _ = read_runs(tmp_path)
    assert time_to_target(run.rows, run.target).time_s == 3.0
    (finding,) = check_metrics([run])
    assert finding.message == "has 1 of 3 times below 0: such a time never meets a target"


def test_a_link_back_up_ends(tmp_path, miss):
    miss()
    (tmp_path / "runs" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_submissions(tmp_path)) == 1


def test_a_path_that_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="nowhere does not exist; give a folder of runs"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(errors.UserError, match="file: no file that `algoperf pack` wrote"):
        read_runs(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "left", "message"),
    [
        (lambda text: None, 0, "is missing: no evaluation"),
        (lambda text: "", 0, "is empty: no evaluation"),
        (lambda text: text.split("\n")[0] + "\n", 0, "has no complete row: no evaluation"),
        # The torn number still reads as a number: 0.9 of 0.95.
        (lambda text: text[:-2], 1, "ends in a torn line, which is left out"),
        (lambda text: text + "4.5,3", 2, "ends in a torn line, which is left out"),
        (lambda text: text + "4.5\n", 2, "1 line does not have 3 fields and is left out"),
        (lambda text: text.replace("0.4", "o.4"), 2, "has 1 value that is no number"),
        (lambda text: text.replace("0.4", '"0.4'), 2, None),
        (lambda text: text.replace("0.4", ""), 2, None),
        (lambda text: text.replace("\n", "\r\n"), 2, None),
        (lambda text: text.replace("global_step", "x"), 2, "has no column global_step"),
        (
            lambda text: text.replace("global_step", "accumulated_submission_time"),
            2,
            "has column accumulated_submission_time twice",
        ),
    ],
)
def test_damaged_evaluations(tmp_path, make_trial, change, left, message):
    file = make_trial([(1.5, 10, 0.4), (3.0, 20, 0.95)]) / "eval_measurements.csv"
    text = change(file.read_text())
    file.unlink() if text is None else file.write_bytes(text.encode())
    (run,), findings = read_runs(tmp_path)
    assert len(run.rows.get("accumulated_submission_time", ())) == left
    if message is None:
        assert findings == []
    else:
        assert any(message in finding.message and finding.path == file for finding in findings)


def test_nan_and_empty_fields_are_nan(tmp_path, make_trial):
    make_trial([(1.0, 10, "nan"), (2.0, 20, ""), (3.0, 30, "NaN"), (4.0, 40, "  ")])
    (run,), findings = read_runs(tmp_path)
    assert np.isnan(run.rows["validation/accuracy"]).all()
    assert findings == []


def test_binary_rubbish(tmp_path, make_trial):
    folder = make_trial([(1.0, 10, 0.9)])
    for name in ("eval_measurements.csv", "flags_0.json", "hparams.json", "result.json"):
        (folder / name).write_bytes(b"\xff\x00\n\xfe[\n" * 50)
    (run,), findings = read_runs(tmp_path)
    assert (run.target, run.pool, run.status) == (None, {}, None)
    assert {finding.path.name for finding in findings} >= {"flags_0.json", "result.json"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("flags_0.json", '{"target": {"metric"', "is not JSON"),
        ("flags_0.json", "[" * 100_000, "is not JSON"),
        ("flags_0.json", "[1]", "holds a JSON list, not an object"),
        ("flags_0.json", '{"target": 3}', "target 3 is not"),
        ("flags_0.json", '{"budget_s": -1}', "budget_s -1 is not a positive number"),
        ("flags_0.json", '{"budget_s": %s}' % ("9" * 400), "is not a positive number"),
        ("flags_0.json", '{"pool": "mini"}', "pool in flags is 'mini'"),
        (
            "flags_0.json",
            json.dumps(
                {"target": {"metric": "m", "higher_is_better": True, "validation": math.nan}}
            ),
            "no target",
        ),
        ("flags_0.json", '{"base_workload": ["digits"]}', "base_workload in flags is no text"),
        ("flags_0.json", '{"changes": ["width"]}', "changes in flags is no object of texts"),
        ("flags_0.json", '{"changes": "width 2"}', "changes in flags is no object of texts"),
        ("flags_0.json", '{"changes": {"width": [2]}}', "changes in flags is no object of texts"),
        ("flags_0.json", '{"changes": {"width": null}}', "changes in flags is no object of texts"),
        ("flags_0.json", '{"changes": {"width": NaN}}', "changes in flags is no object of texts"),
        ("hparams.json", "{", "is not JSON"),
        ("result.json", "", "is not JSON"),
    ],
)
def test_damaged_json(tmp_path, miss, name, text, message):
    (miss() / name).write_text(text)
    runs, findings = read_runs(tmp_path)
    assert len(runs) == 1
    assert any(message in finding.message for finding in findings)
    assert runs[0].changes == {}


def test_what_a_held_out_variant_changes(tmp_path, miss):
    changes = {"norm_place": "post", "dropout": 0.1, "tied_embeddings": False}
    miss(workload="lm_post", flags={"base_workload": "lm", "changes": changes})
    miss(workload="lm")
    (lm, variant), findings = read_runs(tmp_path)
    assert (variant.base_workload, dict(variant.changes)) == ("lm", changes)
    assert (lm.base_workload, dict(lm.changes), findings) == (None, {}, [])


def test_newest_readable_flags_count(tmp_path, miss):
    folder = miss()
    flags = json.loads((folder / "flags_0.json").read_text())
    for number, budget_s in [(2, 7.0), (10, 8.0)]:
        (folder / f"flags_{number}.json").write_text(json.dumps(flags | {"budget_s": budget_s}))
    assert read_runs(tmp_path)[0][0].budget_s == 8.0
    (folder / "flags_10.json").write_text("{")
    assert read_runs(tmp_path)[0][0].budget_s == 7.0


@pytest.mark.parametrize(
    "stray",
    [
        "study_0/digits_jax/trial_1_old",
        "study_0/digits_jax/trial_01",
        "study_0/digits_tf",
        "study_x",
        "study_01",
    ],
)
def test_strays_are_told_and_left_out(tmp_path, miss, stray):
    submission = miss().parents[2]
    (submission / stray / "trial_7").mkdir(parents=True)
    (submission / "notes.txt").touch()
    (submission / ".lock").touch()
    runs, findings = read_runs(tmp_path)
    assert [run.trial for run in runs] == [1]
    assert {finding.path for finding in findings} == {submission / stray, submission / "notes.txt"}


def test_killed_trial_with_a_step_limit_is_not_scoreable(tmp_path, miss):
    miss(status=None, flags={"max_steps": 5})
    miss(status=None, trial=2)
    miss(trial=3, result={"scoreable": False})
    assert [run.scoreable for run in read_runs(tmp_path)[0]] == [False, True, False]


def test_without_a_target_only_a_step_limit_keeps_a_trial_from_a_score(tmp_path, make_trial):
    aimless = {"metric": "accuracy", "higher_is_better": True, "validation": None}
    for trial, max_steps in ((1, None), (2, 5)):
        make_trial(
            [(1.0, 10, 0.5)],
            trial=trial,
            target=aimless,
            flags={"max_steps": max_steps},
            result={"scoreable": False},
        )
    damaged = make_trial([(1.0, 10, 0.5)], trial=3, target=aimless, result={"scoreable": False})
    (damaged / "flags_0.json").write_text("{")
    assert [run.scoreable for run in read_runs(tmp_path)[0]] == [True, False, False]


@pytest.mark.parametrize(
    ("values", "status", "message", "damage"),
    [
        ([(1, 1, "nan"), (2, 2, 0.5), (3, 3, "inf")], "complete", "2 of 3 values not finite", True),
        ([(1, 1, "nan")], "complete", "has no finite value of validation/accuracy", True),
        ([(1, 1, 0.5), (2, 2, "nan")], "diverged", "1 of 2 values not finite", False),
    ],
)
def test_values_that_are_not_finite_are_told(tmp_path, make_trial, values, status, message, damage):
    make_trial(values, status=status)
    runs, findings = read_runs(tmp_path / "runs")
    assert findings == []
    (finding,) = check_metrics(runs)
    assert message in finding.message
    assert finding.damage is damage


def test_a_trial_without_the_metric_is_told(tmp_path, make_trial):
    file = make_trial([(1, 1, 0.5)]) / "eval_measurements.csv"
    file.write_text(file.read_text().replace("validation/", "test/"))
    runs, _ = read_runs(tmp_path / "runs")
    (finding,) = check_metrics(runs)
    assert (finding.path, finding.message) == (file, "has no column validation/accuracy")


def test_what_lies_beside_submissions_is_told(tmp_path, miss):
    miss()
    (tmp_path / "runs/mini-builtin/notes").mkdir()
    (tmp_path / "runs/mini-builtin/.hidden").mkdir()
    (tmp_path / "runs/readme.txt").touch()  # beside an experiment: may be anything
    for root in ("runs", "runs/mini-builtin"):
        _, findings = read_runs(tmp_path / root)
        assert [(finding.path.name, finding.message) for finding in findings] == [
            ("notes", "holds no study_<k> folder: left out")
        ]
    assert read_runs(tmp_path / "runs/mini-builtin/adamw")[1] == []

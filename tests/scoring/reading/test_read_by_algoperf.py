"""Our run folder, read as a reader of AlgoPerf's folders reads it.

What such readers rely on, from the reference's own (scoring_utils.py and score_submissions.py of
mlcommons/algorithmic-efficiency and mlcommons/submissions_algorithms) and from notebooks that read
its logs: nesting and names of folders, `trial_<n>` from 1, one workload folder that ends in _jax or
_pytorch, eval_measurements.csv for pandas with these columns, JSON beside it.
"""

import json
import re

import numpy as np
import pytest

from algoperf.cli import commands

TIMES = [
    "accumulated_submission_time",
    "accumulated_eval_time",
    "accumulated_logging_time",
    "global_step",
    "preemption_count",
    "score",
    "total_duration",
]
# As in the public logs of version 0.6.
META = [
    "workload.target_metric_name",
    "workload.validation_target_value",
    "workload.test_target_value",
    "workload.max_allowed_runtime_sec",
    "workload.eval_period_time_sec",
    "workload.step_hint",
    "workload.num_train_examples",
    "workload.num_validation_examples",
    "workload.num_test_examples",
    "os_platform",
    "python_version",
    "cpu_model_name",
    "cpu_count",
    "gpu_model_name",
    "gpu_count",
    "rng_seed",
]
FLAGS = ["workload", "framework", "tuning_ruleset", "submission_path"]


@pytest.fixture(scope="module")
def submissions_folder(tmp_path_factory):
    """Two studies of digits, one trial each, run by the command itself."""
    out = tmp_path_factory.mktemp("ours")
    words = ["--workload", "digits", "--submission", "nadamw", "--framework", "jax"]
    words += ["--tuning-ruleset", "external", "--trials", "1", "--studies", "2"]
    words += ["--max-steps", "20", "--eval-every-steps", "10", "--out", str(out)]
    assert commands.main(["run", *words]) == 0
    (experiment,) = out.iterdir()
    return experiment


def read(folder):
    """Submission -> list of (study, workload, trial, frame), by the folders' names alone."""
    import pandas as pd

    rows = []
    for submission in folder.iterdir():
        for study in submission.iterdir():
            for workload in study.iterdir():
                for trial in workload.iterdir():
                    assert re.match(r"trial_(\d+)", trial.name)
                    frame = pd.read_csv(trial / "eval_measurements.csv")
                    rows.append((submission.name, study.name, workload.name, trial.name, frame))
    return rows


def test_folders(submissions_folder):
    names = sorted(row[:4] for row in read(submissions_folder))
    assert names == [("nadamw", f"study_{study}", "digits_jax", "trial_1") for study in (0, 1)]
    match = re.match("(.*)(_jax|_pytorch)", "digits_jax")
    assert match.groups() == ("digits", "_jax")


def test_columns(submissions_folder):
    for *_, frame in read(submissions_folder):
        metrics = ["loss", "accuracy", "num_examples"]
        splits = ["train", "validation", "test"]
        expected = [*TIMES, *(f"{split}/{name}" for split in splits for name in metrics)]
        assert frame.columns.tolist() == expected
        assert frame.dtypes.map(lambda kind: kind.kind in "fi").all()
        assert frame.global_step.tolist() == [1, 10, 20]
        assert (frame.score == frame.accumulated_submission_time).all()
        for name in ("accumulated_submission_time", "accumulated_eval_time", "total_duration"):
            assert (np.diff(frame[name]) > 0).all()
        assert (frame.total_duration >= frame.score + frame.accumulated_eval_time - 1e-6).all()
        assert (frame.preemption_count == 0).all()
        assert frame["validation/num_examples"].nunique() == 1
        assert frame["validation/accuracy"].between(0, 1).all()


def test_files_beside(submissions_folder):
    points = []
    for path in submissions_folder.rglob("trial_*"):
        points.append(json.loads((path / "hparams.json").read_text()))
        assert "learning_rate" in points[-1]
        flags = json.loads((path / "flags_0.json").read_text())
        assert set(FLAGS) <= set(flags)
        assert (flags["workload"], flags["framework"]) == ("digits", "jax")
        meta = json.loads((path / "meta_data_0.json").read_text())
        assert set(META) <= set(meta)
        assert meta["workload.target_metric_name"] == "accuracy"
        assert meta["workload.validation_target_value"] == 0.97
        assert meta["workload.max_allowed_runtime_sec"] == 15
        assert meta["workload.step_hint"] == 600
        (measurements,) = path.glob("measurements.csv")
        assert measurements.read_text().startswith("global_step,loss,")
        assert list(path.glob("events.out.tfevents.*"))
    assert len({json.dumps(point) for point in points}) == 2


def test_time_to_target_as_the_reference_finds_it(submissions_folder):
    """The first row that meets a target, per trial, equals what our scorer finds."""
    from scoring.reading.runs import read_runs
    from scoring.rules.time_to_target import time_to_target

    runs, findings = read_runs(submissions_folder)
    assert findings == []
    ours = {(f"study_{run.study}", f"trial_{run.trial}"): run for run in runs}
    for _, study, _, trial, frame in read(submissions_folder):
        target = float(np.sort(frame["validation/accuracy"])[1])
        hit = int(np.argmax(frame["validation/accuracy"] >= target))
        run = ours[study, trial]
        from_ours = time_to_target(run.rows, run.target.__class__("accuracy", True, target))
        assert from_ours.evaluation == hit
        assert from_ours.time_s == frame.accumulated_submission_time[hit]

"""Folders of the AlgoPerf benchmark: a made one, and its public logs where they are at hand."""

import csv
import dataclasses
import json
import tarfile
from pathlib import Path

import pytest

from scoring import Target, build_leaderboard, load_runs, make_pools

LOGS = Path(__file__).parents[3] / "shared" / "algoperf_logs"
# Seconds of submission time, version 0.6, from the benchmark's documentation.
BUDGETS_S = {
    "criteo1tb": 7_703,
    "fastmri": 4_430,
    "imagenet_resnet": 66_159,
    "imagenet_vit": 69_768,
    "librispeech_conformer": 58_015,
    "librispeech_deepspeech": 44_405,
    "ogbg": 12_011,
    "wmt": 43_336,
}


def test_a_folder_in_their_layout(tmp_path):
    trial = tmp_path / "logs/external_tuning/baseline/study_0/wmt_jax/trial_1"
    trial.mkdir(parents=True)
    (trial / "eval_measurements.csv").write_text(
        "accumulated_eval_time,accumulated_submission_time,global_step,score,test/bleu,validation/bleu\n"
        "9.7,26.0,1,26.0,0.0,0.0\n15.1,866.0,2412,866.0,9.0,10.7\n"
    )
    (trial / "flags_0.json").write_text('{"workload": "wmt", "framework": "jax"}')
    (trial / "meta_data_0.json").write_text('{"workload.validation_target_value": 30.8}')
    (run,), findings = load_runs(tmp_path)
    assert findings == []
    assert (run.submission, run.experiment) == ("baseline", "external_tuning")
    assert (run.workload, run.framework, run.target, run.status) == ("wmt", "jax", None, None)
    assert run.rows["validation/bleu"].tolist() == [0.0, 10.7]
    (pool,), findings = make_pools([run])
    assert "without recorded settings" in findings[0].message
    board, findings = build_leaderboard(pool)
    assert (board.rows, len(findings)) == ((), 1)
    assert "wmt has no target" in findings[0].message


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs the public logs beside the repository")
def test_public_logs_of_version_06(tmp_path):
    with tarfile.open(LOGS / "v06_external.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    runs, findings = load_runs(tmp_path)
    assert len(runs) == 240
    assert [finding.message for finding in findings] == ["is missing: no evaluation"] * 4
    facts = json.loads((LOGS / "workload_targets_v06.json").read_text())["workloads"]
    targets = {}
    for name in BUDGETS_S:
        metric = facts[name]["target_metric_name"]
        higher = metric not in ("loss", "wer")
        targets[name] = Target(metric, higher, facts[name]["validation_target_value"])
    told = [
        dataclasses.replace(run, target=targets[run.workload], budget_s=BUDGETS_S[run.workload])
        for run in runs
    ]
    (pool,), _ = make_pools(told)
    board, _ = build_leaderboard(pool)
    expected = LOGS / "expected" / "v06_external"
    with (expected / "scores_by_mode.csv").open(newline="") as file:
        scores = {row["submission"]: float(row["by_the_rules"]) for row in csv.DictReader(file)}
    assert {row.entry.label: row.score for row in board.rows} == pytest.approx(scores, abs=1e-12)
    with (expected / "study_times.csv").open(newline="") as file:
        times = {
            (row["submission"], row["workload"], int(row["study"].removeprefix("study_"))): row
            for row in csv.DictReader(file)
        }
    found = {
        (row.entry.label, workload, result.study): result.crossing.time_s
        for row in board.rows
        for workload, cell in row.cells.items()
        for result in cell.studies
    }
    assert found == pytest.approx(
        {key: float(row["earliest_time"]) for key, row in times.items()}, rel=1e-12
    )

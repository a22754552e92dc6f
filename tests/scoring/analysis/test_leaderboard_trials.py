"""The committed leaderboard: every trial is there, and its file gives `algoperf score` the runs."""

import json
from pathlib import Path

import leaderboard_trials

from algoperf.experiments import campaign
from scoring.reading.runs import read_runs

COMMITTED = Path(__file__).parents[3] / "docs" / "leaderboard" / "trials.csv"


def test_what_is_unpacked_is_what_is_scored(tmp_path):
    lines = (
        "ag_news,jax,adamw,0,1,reached,20.125,61,0.93,",
        "ag_news,jax,adamw,0,2,budget,20.5,60,0.75,",
    )
    point = '"{""learning_rate"": 0.25}"'
    file = tmp_path / "trials.csv"
    header = ",".join(leaderboard_trials.COLUMNS)
    file.write_text("\n".join([header, *(line + point for line in lines)]) + "\n")
    leaderboard_trials.unpack(file, tmp_path / "again")
    first, second = sorted(read_runs(tmp_path / "again")[0], key=lambda run: run.trial)
    assert (first.submission, first.workload, first.framework) == ("adamw", "ag_news", "jax")
    assert first.rows["accumulated_submission_time"].tolist() == [20.125]
    assert first.rows["global_step"].tolist() == [61]
    assert first.rows["validation/accuracy"].tolist() == [0.93]
    assert second.rows["validation/accuracy"].tolist() == [0.75]
    assert (first.status, second.status) == ("reached", "budget")
    assert first.target.validation == 0.92
    assert dict(first.hyperparameters) == {"learning_rate": 0.25}


LATER = {"diloco", "normuon", "psgd_kron", "scion"}  # came after it was measured


def test_the_committed_leaderboard_is_whole():
    found = leaderboard_trials.read(COMMITTED)
    entries = campaign.entries(["digits", "ag_news"], [], ["jax", "pytorch"], "external", 3, 1)
    wanted = {
        (entry.workload, entry.framework, entry.submission, "0", str(trial))
        for entry in entries
        for trial in (1, 2, 3)
        if entry.submission not in LATER
    }
    assert set(found) == wanted
    targets = {"digits": 0.97, "ag_news": 0.92}
    for name, line in found.items():
        assert (line["status"] == "reached") == (float(line["best"]) >= targets[name[0]]), name
        assert json.loads(line["hyperparameters"]), name

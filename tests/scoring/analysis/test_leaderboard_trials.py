"""The committed leaderboard: every trial is there, and its file gives `algoperf score` the runs."""

import json
from pathlib import Path

import leaderboard_trials

from algoperf.experiments import campaign
from algoperf.run_folder import run_log
from scoring.reading.runs import read_runs

COMMITTED = Path(__file__).parents[3] / "docs" / "leaderboard" / "trials.csv"


def written(folder, rows, **result):
    """A run folder as `algoperf campaign` leaves it, of two evaluations."""
    target = {"metric": "accuracy", "higher_is_better": True, "validation": 0.92}
    folder.mkdir(parents=True)
    run_log.write_json(
        folder / "result.json", {"target": target, "status": "reached", "study": 0, **result}
    )
    run_log.write_json(folder / "hparams.json", {"learning_rate": 0.25})
    header = "accumulated_submission_time,global_step,validation/accuracy"
    (folder / "eval_measurements.csv").write_text("\n".join([header, *rows]) + "\n")


def test_what_is_packed_is_what_is_scored(tmp_path):
    named = {"workload": "ag_news", "framework": "jax", "submission": "adamw"}
    runs = tmp_path / "runs"
    place = runs / "leaderboard-external" / "adamw" / "study_0" / "ag_news_jax"
    written(place / "trial_1", ["10.0,30,0.5", "20.125,61,0.93"], trial=1, **named)
    late = ["10.0,29,0.75", "20.5,60,0.25"]
    written(place / "trial_2", late, trial=2, **{**named, "status": "budget"})
    file = tmp_path / "trials.csv"
    leaderboard_trials.pack(runs, file)
    leaderboard_trials.pack(runs, file)  # the same again: nothing twice
    leaderboard_trials.unpack(file, tmp_path / "again")
    first, second = sorted(read_runs(tmp_path / "again")[0], key=lambda run: run.trial)
    assert (first.submission, first.workload, first.framework) == ("adamw", "ag_news", "jax")
    assert first.rows["accumulated_submission_time"].tolist() == [20.125]
    assert first.rows["global_step"].tolist() == [61]
    assert first.rows["validation/accuracy"].tolist() == [0.93]
    assert second.rows["validation/accuracy"].tolist() == [0.75]  # its best, not its last
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

"""The whole way from folders to table, JSON, CSV and plots."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from algoperf import spec
from scoring import score_command

LOSS = {"metric": "loss", "higher_is_better": False, "validation": 0.5}


@pytest.fixture
def competition(reach, miss, make_trial):
    """Three submissions on digits (accuracy) and lm (loss, lower is better), two studies.

    digits            study 0             study 1             median
      a               10 (trial 1; 12)    14 (trial 2; 16)    12
      b               24                  24                  24       ratio 24 / 12 = 2
      c               12                  (not run)           inf
    lm
      a               60                  (over the budget)   inf
      b               30                  50                  40       ratio 1
      c               40                  60                  50       ratio 50 / 40 = 1.25

    Scores, mean of max(0, 4 - r) / 3:  a (1 + 0) / 2 = 1/2;  b (2/3 + 1) / 2 = 5/6;
    c (0 + 2.75/3) / 2 = 11/24.
    """
    for study, trial, time_s in [(0, 1, 10.0), (0, 2, 12.0), (1, 1, 16.0), (1, 2, 14.0)]:
        reach(time_s, submission="a", study=study, trial=trial)
    for study in (0, 1):
        reach(24.0, submission="b", study=study)
        miss(submission="b", study=study, trial=2)
    reach(12.0, submission="c")
    miss(submission="c", trial=2)

    def lm(time_s, submission, study, budget_s=100.0):
        make_trial(
            [(time_s / 2, 5, 0.9), (time_s, 7, 0.5)],
            submission=submission,
            study=study,
            workload="lm",
            target=LOSS,
            budget_s=budget_s,
        )

    lm(60.0, "a", 0)
    lm(100.5, "a", 1)
    lm(30.0, "b", 0)
    lm(50.0, "b", 1)
    lm(40.0, "c", 0)
    lm(60.0, "c", 1)


def run(paths, out=None, as_json=False, width=120):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    assert score_command(paths, out, as_json, console) == 0
    return console.file.getvalue()


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_json(tmp_path, competition):
    (pool,) = json.loads(run([tmp_path], as_json=True, width=20))["pools"]
    entries = {entry["submission"]: entry for entry in pool["submissions"]}
    assert [(name, entry["rank"]) for name, entry in entries.items()] == [
        ("b", 1),
        ("a", 2),
        ("c", 3),
    ]
    assert {name: entry["score"] for name, entry in entries.items()} == pytest.approx(
        {"a": 1 / 2, "b": 5 / 6, "c": 11 / 24}, rel=1e-14
    )
    a, b, c = (entries[name]["workloads"] for name in "abc")
    assert (a["digits"]["median_time_s"], a["digits"]["median_steps"]) == (12.0, 120)
    assert (b["digits"]["ratio"], c["lm"]["ratio"]) == (2.0, 1.25)
    assert (a["lm"]["median_time_s"], a["lm"]["ratio"], a["lm"]["studies_reached"]) == (
        None,
        None,
        1,
    )
    assert [study["outcome"] for study in c["digits"]["studies"]] == ["reached", "missing"]
    # Profiles step at 1.25 (c) and 2 (b); within tau: a 1/2 all along, b 1/2 then 1, c 0 then 1/2.
    assert {name: entry["profile"] for name, entry in entries.items()} == {
        "a": {"tau": [1, 1.25, 2, 4], "share": [0.5, 0.5, 0.5, 0.5]},
        "b": {"tau": [1, 1.25, 2, 4], "share": [0.5, 0.5, 1, 1]},
        "c": {"tau": [1, 1.25, 2, 4], "share": [0, 0.5, 0.5, 0.5]},
    }


def test_csv_files(tmp_path, competition):
    out = tmp_path / "deep" / "out"
    run([tmp_path / "runs"], out)
    scores = read_csv(out / "scores.csv")
    assert [row["submission"] for row in scores] == ["b", "a", "c"]
    assert [float(row["score"]) for row in scores] == pytest.approx([5 / 6, 1 / 2, 11 / 24])
    assert [row["workloads_reached"] for row in scores] == ["2", "1", "1"]
    rows = {
        (row["submission"], row["workload"], row["study"]): row
        for row in read_csv(out / "time_to_target.csv")
    }
    assert len(rows) == 3 * 2 * 2
    chosen = rows["a", "digits", "1"]
    assert (chosen["time_s"], chosen["steps"], chosen["trial"], chosen["evaluation"]) == (
        "14.0",
        "140",
        "2",
        "1",
    )
    assert (chosen["last_miss_time_s"], chosen["last_miss_steps"]) == ("7.0", "70")
    assert rows["a", "lm", "1"]["outcome"] == "budget"
    assert rows["c", "digits", "1"]["outcome"] == "missing"
    assert rows["c", "digits", "1"]["time_s"] == ""
    profile = [row for row in read_csv(out / "profile.csv") if row["submission"] == "c"]
    assert [(row["tau"], row["share_of_workloads"]) for row in profile] == [
        ("1.0", "0.0"),
        ("1.25", "0.5"),
        ("2.0", "0.5"),
        ("4.0", "0.5"),
    ]
    assert json.loads((out / "findings.json").read_text()) == []


def test_table(tmp_path, competition):
    text = run([tmp_path])
    assert "mini-builtin, 2 workloads" in text
    assert [word for word in text.split() if word in ("0.8333", "0.5000", "0.4583")] == [
        "0.8333",
        "0.5000",
        "0.4583",
    ]
    line = next(line for line in text.splitlines() if "digits" in line and " b " in line)
    assert line.replace("│", " ").split() == ["digits", "b", "24.00", "240", "2/2", "2.000"]
    line = next(line for line in text.splitlines() if "digits" in line and " c " in line)
    assert line.replace("│", " ").split() == ["digits", "c", "-", "-", "1/2", "-"]


def test_equal_scores_share_a_rank(tmp_path, reach):
    for submission, time_s in [("b", 10.0), ("a", 10.0), ("c", 20.0)]:
        reach(time_s, submission=submission)
    (pool,) = json.loads(run([tmp_path], as_json=True))["pools"]
    assert [(e["submission"], e["rank"]) for e in pool["submissions"]] == [
        ("a", 1),
        ("b", 1),
        ("c", 3),
    ]


def test_names_are_not_markup(tmp_path, reach):
    reach(10.0, submission="[red]a")
    assert "[red]a" in run([tmp_path])


def test_plots_are_written_for_every_pool(tmp_path, competition, reach):
    reach(3.0, pool={"scale": "full", "data": "hub"}, experiment="full", submission="z")
    out = tmp_path / "out"
    run([tmp_path / "runs"], out)
    names = sorted(path.name for path in out.iterdir() if path.suffix in (".png", ".svg"))
    assert [name.rsplit(".")[0] for name in names[::2]] == [
        "performance_profile_full-hub",
        "performance_profile_mini-builtin",
        "training_curves_full-hub",
        "training_curves_mini-builtin",
    ]
    svg = (out / "performance_profile_mini-builtin.svg").read_text()
    for text in ("mini-builtin, 2 workloads", "share of workloads within", "b  0.833", "(ratio)"):
        assert text in svg
    curves = (out / "training_curves_mini-builtin.svg").read_text()
    for text in (
        "submission time (s)",
        "validation accuracy",
        "digits: target ≥ 0.9",
        "lm: target ≤ 0.5",
    ):
        assert text in curves
    assert all((out / name).stat().st_size > 1000 for name in names)


def test_coinciding_profiles_get_lanes_of_their_own():
    import numpy as np

    from scoring.plots import dodge

    # 0 and 1 coincide, 2 never meets them; 3 coincides with 2 only.
    shares = np.array([[0.5, 1, 1], [0.5, 0.5, 0.5], [0, 0, 0], [0, 0, 1]])
    assert dodge(shares) == [0, 1, 0, 1]


def test_plots_of_damaged_and_empty_trials(tmp_path, make_trial):
    folder = make_trial([(1.0, 1, "nan"), (2.0, 2, "inf")])
    (folder.parent / "trial_2").mkdir()
    (folder.parent / "trial_2" / "flags_0.json").write_text((folder / "flags_0.json").read_text())
    run([tmp_path / "runs"], tmp_path / "out")
    assert (tmp_path / "out" / "scores.csv").is_file()


def test_workload_without_a_target_is_told(tmp_path, make_trial, reach):
    none = {"metric": "accuracy", "higher_is_better": True, "validation": None}
    make_trial([(1.0, 1, 0.5)], workload="ag_news", target=none)
    text = run([tmp_path], tmp_path / "alone")
    assert "nothing to score" in text
    assert (tmp_path / "alone" / "training_curves_mini-builtin.png").is_file()
    reach(5.0)
    (pool,) = json.loads(run([tmp_path], as_json=True))["pools"]
    assert [entry["score"] for entry in pool["submissions"]] == [1.0]
    assert "ag_news has no target in mini-builtin: not scored" in run([tmp_path])


def test_result_that_the_rows_contradict_is_told(tmp_path, miss):
    miss(status="reached")
    assert "result.json says 'reached'" in run([tmp_path])


@pytest.mark.parametrize("where", ["nowhere", "empty", "hollow"])
def test_nothing_to_read_is_the_users_mistake(tmp_path, where):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "adamw" / "study_0").mkdir(parents=True)
    with pytest.raises(spec.UserError) as raised:
        run([tmp_path / where])
    message = str(raised.value)
    assert where in message
    assert "<submission>/study_<k>/<workload>_<framework>/trial_<j>" in message
    assert "\n" not in message


def test_one_good_path_does_not_hide_an_empty_one(tmp_path, miss):
    miss()
    (tmp_path / "empty").mkdir()
    with pytest.raises(spec.UserError, match="empty"):
        run([tmp_path / "runs", tmp_path / "empty"])


def test_out_that_cannot_be_written(tmp_path, miss):
    miss()
    (tmp_path / "file").touch()
    with pytest.raises(spec.UserError, match=r"cannot write to .*file"):
        run([tmp_path / "runs"], tmp_path / "file" / "out")


def test_import_is_light():
    code = (
        "import sys, scoring; heavy = {'jax', 'torch', 'pandas', 'matplotlib', 'rich', 'scipy'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or None)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

"""From `algoperf run` to `algoperf score`: table and profile, worked out again from the files."""

import csv
import json
import math
import shutil
import statistics
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.run_folder import run_log

SUBMISSIONS = ("adamw", "momentum", "nadamw")
STUDIES, TRIALS = (0, 1), (1, 2)
# When the made evaluations of each trial meet ag_news's target, in seconds; None: never.
NEWS_TIMES_S = {
    ("adamw", 0): (30.0, 24.0),
    ("adamw", 1): (40.0, None),
    ("momentum", 0): (None, 90.0),
    ("momentum", 1): (None, None),
    ("nadamw", 0): (20.0, 26.0),
    ("nadamw", 1): (28.0, 32.0),
}


def write_news(out: Path, like: Path, submission, study, trial, time_s, **changes):
    """A trial of ag_news as the run log writes it, in the pool of the digits trial `like`."""
    earlier = run_log.read_flags(like)
    target = {"metric": "accuracy", "higher_is_better": True, "validation": 0.88, "test": None}
    own = {"workload": "ag_news", "study": study, "trial": trial, "submission": submission}
    own |= {"target": target, "budget_s": 180.0, "data_fingerprint": "made", **changes}
    flags = run_log.with_hashes({**earlier, **own})
    experiment = f"{flags['scale']}-{flags['data']}"
    folder = run_log.trial_folder(out, experiment, submission, study, "ag_news", "jax", trial)
    log = run_log.TrialLog(folder, ("loss", "accuracy"), ("train", "validation", "test"))
    log.begin(flags, {}, {})
    for step, at_s, accuracy in ((10, 6.0, 0.5), (20, time_s or 170.0, 0.9 if time_s else 0.87)):
        times = dict.fromkeys(run_log.TIMES, 0.0)
        times |= {"accumulated_submission_time": at_s, "score": at_s, "global_step": step}
        log.evaluation(times, {"validation/accuracy": accuracy, "validation/loss": 1.0})
    status = "reached" if time_s else "budget"
    log.result({"status": status, "scoreable": True, "target": target, "budget_s": 180.0})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "runs"
    for submission in SUBMISSIONS:
        words = ["run", "--workload", "digits", "--submission", submission, "--framework", "jax"]
        assert commands.main([*words, "--studies", "2", "--trials", "2", "--out", str(out)]) == 0
        like = out / "mini-builtin" / submission / "study_0/digits_jax/trial_1"
        for study in STUDIES:
            for trial in TRIALS:
                time_s = NEWS_TIMES_S[submission, study][trial - 1]
                write_news(out, like, submission, study, trial, time_s)
    like = out / "mini-builtin/adamw/study_0/digits_jax/trial_1"
    write_news(out, like, "adamw", 0, 1, 1.0, data="folder", data_fingerprint="other rows")
    write_news(out, like, "adamw", 0, 1, 2.0, scale="full", data_fingerprint="others again")
    return out


def time_to_target_s(folder: Path, target: float) -> float:
    """From the last evaluation that missed the target to the hit, by the probes in between.

    Those of digits are of all rows, so that there is nothing to correct.
    """
    with (folder / "eval_measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    times = [float(row["accumulated_submission_time"]) for row in rows]
    values = [float(row["validation/accuracy"]) for row in rows]
    hit = next((index for index, value in enumerate(values) if value >= target), None)
    if hit is None:
        return math.inf
    way = list(zip(times, values, strict=True))[hit - 1 : hit + 1]
    probes = json.loads((folder / "result.json").read_text()).get("probes", [])
    if probes:
        assert [(time_s, value) for time_s, _, value in (probes[0], probes[-1])] == way
        way[1:1] = [(time_s, value) for time_s, _, value in probes[1:-1]]
    after = next(place for place in range(1, len(way)) if way[place][1] >= target)
    (early, low), (late, high) = way[after - 1 : after + 1]
    return late - (late - early) * (high - target) / (high - low)


def median_time_s(out: Path, submission: str, workload: str) -> float:
    """Of the studies' fastest trials."""
    best = []
    for study in STUDIES:
        folder = out / "mini-builtin" / submission / f"study_{study}" / f"{workload}_jax"
        flags = json.loads((folder / "trial_1/flags_0.json").read_text())
        target = flags["target"]["validation"]
        best.append(min(time_to_target_s(folder / f"trial_{trial}", target) for trial in TRIALS))
    return statistics.median(best)


@pytest.mark.slow
def test_table_and_profile(runs, capsys, tmp_path):
    capsys.readouterr()
    assert commands.main(["score", str(runs), "--json", "--out", str(tmp_path / "scores")]) == 0
    scored = json.loads(capsys.readouterr().out)
    (pool,) = [each for each in scored["pools"] if each["pool"] == "mini-builtin"]
    shown = {entry["submission"]: entry for entry in pool["submissions"]}
    times_s = {
        name: {workload: median_time_s(runs, name, workload) for workload in ("ag_news", "digits")}
        for name in SUBMISSIONS
    }
    # From 0.5 at 6 s to 0.9, 0.88 is at 0.95 of the way.
    assert times_s["adamw"]["ag_news"] == pytest.approx(6 + 0.95 * ((24 + 40) / 2 - 6))
    assert times_s["nadamw"]["ag_news"] == pytest.approx(6 + 0.95 * ((20 + 28) / 2 - 6))
    assert times_s["momentum"]["ag_news"] == math.inf
    assert all(0 < of["digits"] < 15 for of in times_s.values())

    ratios = {name: {} for name in SUBMISSIONS}
    for workload in ("ag_news", "digits"):
        fastest = min(of[workload] for of in times_s.values())
        for name in SUBMISSIONS:
            ratios[name][workload] = times_s[name][workload] / fastest
    for name, entry in shown.items():
        area = sum(max(0.0, 4 - ratio) / 3 for ratio in ratios[name].values()) / 2
        assert entry["score"] == pytest.approx(area, rel=1e-9)
        medians = {key: cell["median_time_s"] for key, cell in entry["workloads"].items()}
        assert medians == {
            key: None if time_s == math.inf else pytest.approx(time_s, rel=1e-12)
            for key, time_s in times_s[name].items()
        }
        assert entry["rank"] == 1 + sum(other["score"] > entry["score"] for other in shown.values())
    check_profile(tmp_path / "scores", ratios)


def check_profile(folder, ratios):
    with (folder / "profile.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["pool"] == "mini-builtin"]
    taus = {name: set() for name in SUBMISSIONS}
    for row in rows:
        tau = float(row["tau"])
        taus[row["submission"]].add(tau)
        within = sum(r <= tau * (1 + 1e-12) for r in ratios[row["submission"]].values()) / 2
        assert float(row["share_of_workloads"]) == within
    inner = {r for of in ratios.values() for r in of.values() if 1 < r < 4}
    for of in taus.values():
        assert sorted(of) == pytest.approx(sorted(inner | {1.0, 4.0}))


@pytest.mark.slow
def test_a_folder_begun_by_period_goes_on_by_period(runs, tmp_path):
    """As a version wrote it that evaluated every tenth of a second and recorded no share."""
    out = tmp_path / "runs"
    name = "mini-builtin/momentum"
    first = "study_0/digits_jax/trial_1"
    shutil.copytree(runs / name / first, out / name / first)
    path = out / name / first / "flags_0.json"
    flags = json.loads(path.read_text())
    assert flags.pop("eval_share") == 0.19
    path.write_text(json.dumps(flags := run_log.with_hashes(flags)))
    words = ["run", "--workload", "digits", "--submission", "momentum", "--framework", "jax"]
    assert commands.main([*words, "--studies", "2", "--out", str(out)]) == 0
    later = out / name / "study_1/digits_jax/trial_1"
    added = json.loads((later / "flags_0.json").read_text())
    assert "eval_share" not in added
    assert added["config_hash"] == flags["config_hash"]
    with (later / "eval_measurements.csv").open(newline="") as file:
        clocks = [float(row["accumulated_submission_time"]) for row in csv.DictReader(file)]
    # Each evaluation but the first lies in a tenth of a second of its own.
    tenths = [int(clock_s * 10) for clock_s in clocks[1:]]
    assert len(set(tenths)) == len(tenths)


@pytest.mark.slow
def test_other_data_and_another_scale_are_pools_of_their_own(runs, capsys):
    capsys.readouterr()
    assert commands.main(["score", str(runs), "--json"]) == 0
    pools = json.loads(capsys.readouterr().out)["pools"]
    assert sorted(len(pool["submissions"]) for pool in pools) == [1, 1, 3]
    assert commands.main(["score", str(runs / "mini-builtin"), "--json"]) == 0
    (alone,) = json.loads(capsys.readouterr().out)["pools"]
    (big,) = [pool for pool in pools if len(pool["submissions"]) == 3]
    assert [entry["score"] for entry in alone["submissions"]] == [
        entry["score"] for entry in big["submissions"]
    ]

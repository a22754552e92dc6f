"""From a calibration to runs in its class and their times restated in another one."""

import dataclasses
import json

import pytest

from algoperf.cli import commands
from algoperf.machine import class_file
from algoperf.machine.hardware_class import Budget, Spread
from algoperf.run_folder import run_log

pytestmark = pytest.mark.slow
FEW = ["--workloads", "digits", "--frameworks", "pytorch", "--repeats", "2", "--steps", "10"]


def test_calibrate_run_and_restate(tmp_path, capsys):
    assert commands.main(["calibrate", *FEW, "--out", str(tmp_path / "here")]) == 0
    path = tmp_path / "here" / "hardware_class.json"
    here = class_file.read(path)
    (times,) = here.measurements
    assert (times.runs, times.steps, times.batch_size) == (2, 10, 64)
    assert 0 < times.step.low_s <= times.step.high_s
    assert not list((tmp_path / "here").rglob("checkpoint*"))
    assert f"a new class: {here}" in capsys.readouterr().out

    # A class that is like it, but for steps that take half as long and a budget of a third.
    half = Spread(*(second / 2 for second in dataclasses.astuple(times.step)))
    faster = dataclasses.replace(
        here,
        name="faster",
        measurements=(dataclasses.replace(times, step=half),),
        budgets=(Budget(*times.key, 1 / 3, 5.0),),
    )
    other = tmp_path / "faster.json"
    run_log.write_json(other, class_file.to_json(faster))

    runs = str(tmp_path / "runs")
    words = ["run", "--workload", "digits", "--framework", "pytorch", "--submission", "nadamw"]
    words += ["--hardware-class", str(other), "--out", runs]
    assert commands.main([*words, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["budget_s"] == 5.0
    assert result["hardware_class"] == {"name": "faster", "id": faster.id}
    folder = tmp_path / "runs/mini-builtin-class-faster/nadamw/study_0/digits_pytorch/trial_1"
    flags = run_log.read_flags(folder)
    assert flags["pool"]["hardware_class"] == {"name": "faster", "id": faster.id}
    assert flags["class_times"]["step"] == dataclasses.asdict(half)

    assert commands.main(["score", runs, "--restate", str(path), "--json"]) == 0
    (pool,) = json.loads(capsys.readouterr().out)["pools"]
    (estimate,) = pool["restated"]["times"]
    assert estimate["ratio"] == pytest.approx(2.0)
    assert estimate["estimated_budget_s"] == pytest.approx(15.0)

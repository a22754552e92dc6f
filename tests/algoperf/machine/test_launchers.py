"""What is made of a launcher that starts `algoperf run` as several processes."""

import json
import subprocess
import sys

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.machine import environment, launchers
from algoperf.run_folder import run_log
from algoperf.study import run_plan, study
from algoperf.study.request import RunRequest
from algoperf.trial.plan import TrialPlan

TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "GROUP_WORLD_SIZE": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    "OMP_NUM_THREADS": "1",
}
SRUN = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
# The environment of a script that sbatch runs once, though it has two tasks to start.
SBATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        (SBATCH, None),
        (TORCHRUN | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, None),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (TORCHRUN, launchers.Launch("torchrun", 0, 2, 1)),
        (TORCHRUN | {"RANK": "1"}, launchers.Launch("torchrun", 1, 2, 1)),
        (TORCHRUN | {"WORLD_SIZE": "8"}, launchers.Launch("torchrun", 0, 8, 4)),
        (
            {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"},
            launchers.Launch("torchrun or the like", 1, 4, 1),
        ),
        (SRUN | {"SLURM_CPUS_ON_NODE": "6"}, launchers.Launch("srun", 0, 2, 1, 6)),
        (SRUN | {"SLURM_STEP_NUM_NODES": "2"}, launchers.Launch("srun", 0, 2, 2)),
        # A torchrun that srun has started once on each machine is what counts.
        (TORCHRUN | SRUN, launchers.Launch("torchrun", 0, 2, 1)),
    ],
)
def test_what_a_launcher_says(given, expected):
    assert launchers.launch(given) == expected


def test_as_many_devices_as_processes():
    launch = launchers.Launch("torchrun", 0, 2, 1)
    assert launch.devices(None) == launch.devices(2) == 2


@pytest.mark.parametrize(
    ("launch", "asked", "why"),
    [
        (
            launchers.Launch("torchrun", 1, 2, 1),
            None,
            "rank 1 of 2 that torchrun has started: rank 0 alone runs",
        ),
        (
            launchers.Launch("torchrun", 0, 8, 4),
            None,
            "started by torchrun on 4 machines: a trial is on one",
        ),
        (
            launchers.Launch("srun", 0, 2, 1),
            4,
            "--devices 4: started by srun as 2 processes, which stand for 2 devices",
        ),
        (
            launchers.Launch("srun", 0, 2, 1, 1000),
            None,
            r"srun has bound this process to \d+ of 1000 cores.* --cpus-per-task 1000 algoperf run "
            "--devices 2",
        ),
    ],
)
def test_what_cannot_be(launch, asked, why):
    with pytest.raises(UserError, match=why):
        launch.devices(asked)


def test_the_processes_of_a_trial_are_not_told_of_the_launchers_group():
    left = launchers.without({**TORCHRUN, "MASTER_PORT": "1", "HOME": "/home"})
    assert left == {"OMP_NUM_THREADS": "1", "HOME": "/home"}


def test_what_a_user_sets_without_a_launcher_stays(monkeypatch):
    chosen = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "RANK": "3"}
    assert launchers.without(chosen) == chosen
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    assert environment.of_this_process()["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING" not in environment.of_this_process()


def test_nor_is_the_process_that_a_study_starts_for_it(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    plan = TrialPlan(
        *("digits", "mini", "builtin", "builtin", "pytorch", "x.py", "runs", "x", 0, 1, 0)
    )
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & study._environment(plan).keys()
    assert study._environment(plan)["OMP_NUM_THREADS"] == "1"


def launched_by(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_first_process_plans_a_trial_on_all_devices(monkeypatch, tmp_path):
    launched_by(monkeypatch, TORCHRUN)
    request = RunRequest("digits", "adamw", framework="pytorch", out=tmp_path)
    assert run_plan.make(request).trial.devices == 2


def test_the_others_leave_at_once(monkeypatch, tmp_path, capsys):
    launched_by(monkeypatch, TORCHRUN | {"RANK": "1", "LOCAL_RANK": "1"})
    words = ["run", "--workload", "digits", "--submission", "adamw", "--framework", "pytorch"]
    assert commands.main([*words, "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "rank 1 of 2: rank 0 starts a process for each device" in shown.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_real_torchrun_trains_what_two_devices_train(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun does
    words = ["run", "--workload", "digits", "--submission", "adamw", "--framework", "pytorch"]
    words += ["--max-steps", "20", "--eval-every-steps", "20", "--out", str(tmp_path)]
    module = ["-m", "algoperf"]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", *module]
    for how, experiment in (([*module], "alone"), (launcher, "torchrun")):
        devices = ["--devices", "2"] if experiment == "alone" else []
        command = [sys.executable, *how, *words, "--experiment", experiment, *devices]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    folder = "adamw/study_0/digits_pytorch/trial_1"
    one, other = (
        json.loads((tmp_path / name / folder / run_log.RESULT).read_text())
        for name in ("alone", "torchrun")
    )
    assert one["parameters_crc32"] == other["parameters_crc32"]
    flags = [run_log.read_flags(tmp_path / name / folder) for name in ("alone", "torchrun")]
    assert flags[0]["pool"] == flags[1]["pool"]
    assert flags[1]["devices"] == 2

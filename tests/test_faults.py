"""What a submission may do to its process, and what may happen to the process that started it: what
is recorded, what is left, what the same command does then.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.machine import memory, supervision
from algoperf.run_folder import run_log

# A full form, in PyTorch, that does what its hyperparameter `fault` says, in its steps.
FAULTY = """
import ctypes, os, pathlib, resource, sys, time

import torch

from algoperf import spec

HERE = pathlib.Path(__file__).parent


def segfault(step):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def memory(step):
    now = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), resource.RLIM_INFINITY))
    taken = []
    while True:
        taken.append(bytearray(16 << 20))


def hang(step):
    while True:
        pass


def forks(step):
    '''Children that leave, raise, go on as their parent does, exit, and stay.'''
    child = os.fork()
    if child == 0:
        match step:
            case 0:
                os._exit(0)
            case 1:
                raise RuntimeError("in the child")
            case 2:
                return True
            case 3:
                sys.exit(5)
        time.sleep(600)
    if step < 4:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert step != 3 or code == 5, code
    else:
        (HERE / f"child_{step}").write_text(str(child))


def fork_and_exit(step):
    if step == 1:
        forks(6)
        os._exit(7)


def none(step):
    pass


def init_optimizer_state(model_params):
    return torch.optim.SGD(model_params.parameters(), 0.1)


def data_selection(input_queue):
    return next(input_queue)


def update_params(workload, current_param_container, model_state, hyperparameters, batch,
                  optimizer_state, global_step, rng):
    if globals()[hyperparameters.fault](global_step):
        return optimizer_state, current_param_container, model_state
    optimizer_state.zero_grad()
    logits, _ = workload.model_fn(
        current_param_container, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True
    )
    loss = workload.loss_fn(batch["targets"], logits)
    (loss["summed"] / loss["n_valid_examples"]).backward()
    optimizer_state.step()
    return optimizer_state, current_param_container, model_state
"""
DIED = "the trial's process "
FAULTS = {  # in the order of the trials: (status, steps, how the error begins)
    "none": ("complete", 6, None),
    "segfault": ("failed", 0, DIED + "was ended by SIGSEGV"),
    "memory": ("failed", 0, "out of memory (MemoryError"),
    "forks": ("complete", 6, None),
    "fork_and_exit": ("failed", 1, DIED + "ended with exit code 7 and no result"),
}


def words(folder, *more):
    base = ["run", "--workload", "digits", "--framework", "pytorch"]
    base += ["--submission", f"{folder}/faulty.py", "--out", f"{folder}/runs"]
    return [*base, *map(str, more)]


def write(folder, faults):
    (folder / "faulty.py").write_text(FAULTY)
    (folder / "faults.json").write_text(json.dumps([{"fault": fault} for fault in faults]))
    return ("--search-space", folder / "faults.json", "--trials", len(faults))


def trial_folder(folder, trial=1):
    return folder / f"runs/mini-builtin/faulty/study_0/digits_pytorch/trial_{trial}"


def is_alive(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition):
    end_s = time.perf_counter() + 300
    while not condition():
        assert time.perf_counter() < end_s
        time.sleep(0.02)


class Study:
    """A trial a fault; `first` and `second` are what the command said, twice."""

    def __init__(self, folder):
        self.folder = folder
        limits = ("--max-steps", 6, "--eval-every-steps", 1)
        command = [sys.executable, "-P", "-m", "algoperf"]
        command += words(folder, *write(folder, FAULTS), *limits)
        self.first, self.second = (
            subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=300,
            )
            for _ in range(2)
        )

    def trial(self, fault):
        return trial_folder(self.folder, 1 + list(FAULTS).index(fault))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestWhatASubmissionDoes:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_is_recorded(self, study, fault):
        status, steps, cause = FAULTS[fault]
        result = run_log.read_result(study.trial(fault))
        assert (result["status"], result["steps"]) == (status, steps)
        measured = run_log.evaluations(study.trial(fault))
        assert [row["global_step"] for row in measured] == list(range(1, steps + 1))
        if cause is None:
            assert result["error"] is None
            return
        assert result["error"]["cause"].startswith(cause)
        assert not result["error"].get("outside")
        has_died = not result["error"]["traceback"]
        when = f"after {'at least ' if has_died else ''}{steps} steps"
        if has_died and not steps:
            when = "before its first evaluation"
        assert f"failed {when}: {result['error']['cause']}\n" in study.first.stdout

    def test_is_said_without_a_traceback(self, study):
        assert study.first.returncode == study.second.returncode == 1
        assert "Traceback" not in study.first.stderr.replace("in the child", "")
        assert study.second.stderr.count("done before") == len(FAULTS)
        first, second = (
            [line for line in ended.stdout.splitlines() if not line.startswith("  ")]
            for ended in (study.first, study.second)
        )
        assert first == second

    def test_does_not_outlive_its_trial(self, study):
        children = [int(path.read_text()) for path in study.folder.glob("child_*")]
        assert len(children) == 3  # of steps 4 and 5, and of the trial that left
        assert not any(is_alive(child) for child in children)


@pytest.mark.slow
def test_an_endless_loop_is_ended_by_the_watchdog(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(supervision, "FACTOR", 0.0)
    monkeypatch.setattr(supervision, "ALLOWANCE_S", 1.0)
    command = words(tmp_path, *write(tmp_path, ["hang"]))
    assert commands.main(command) == 1
    result = run_log.read_result(trial_folder(tmp_path))
    assert result["status"] == "failed"
    cause = "time-out: no end 1 s of wall time after the start, for a budget of 15 s"
    assert result["error"] == {"cause": cause, "outside": False, "traceback": ""}
    assert f"failed before its first evaluation: {cause}" in capsys.readouterr().out
    assert commands.main(command) == 1
    assert "done before (failed), skipped" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_starters_and_a_killed_one(tmp_path, capsys):
    """The second says so and leaves; the first is killed, its trial dies, and its lock is free."""
    source = FAULTY.replace("def none(step):\n    pass", SLOW)
    options = write(tmp_path, ["none"])
    (tmp_path / "faulty.py").write_text(source)
    command = words(tmp_path, *options, "--max-steps", 40, "--eval-every-steps", 1)
    rows = trial_folder(tmp_path) / run_log.EVALUATIONS
    first = subprocess.Popen([sys.executable, "-P", "-m", "algoperf", *command])
    try:
        wait_until(lambda: rows.is_file() and rows.read_bytes().count(b"\n") >= 4)
        before = rows.read_bytes()
        assert commands.main(command) == 2
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"algoperf: {rows.parent}: another process works on this trial; wait for it, or use "
            "another --out"
        )
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    trial = int((tmp_path / "trial").read_text())
    wait_until(lambda: not is_alive(trial))
    kept = rows.read_bytes()
    assert kept.startswith(before)
    assert run_log.read_result(rows.parent) is None
    (tmp_path / "enough").touch()
    assert commands.main(command) == 0
    assert "goes on from step" in capsys.readouterr().err
    measured = run_log.evaluations(rows.parent)
    assert [row["global_step"] for row in measured] == list(range(1, 41))
    assert rows.read_bytes().startswith(before)


SLOW = """def none(step):
    if not (HERE / "trial").exists():  # A file that is written at each step may be killed empty.
        (HERE / "trial").write_text(str(os.getpid()))
    if not (HERE / "enough").exists():
        time.sleep(0.2)"""


@pytest.mark.slow
@pytest.mark.skipif(memory.oom_kills() is None, reason="the kernel does not count OOM kills here")
def test_an_oom_kill_is_told_from_another(tmp_path):
    """In a control group of 1 GiB; where that cannot be made, skipped."""
    group = make_group(1 << 30)
    source = FAULTY.replace("resource.setrlimit(resource.RLIMIT_AS", "(lambda *_: None)(0")
    options = write(tmp_path, ["memory"])
    (tmp_path / "faulty.py").write_text(source.replace("bytearray(", 'b"1" * ('))
    command = [sys.executable, "-P", "-m", "algoperf", *words(tmp_path, *options)]
    enter = 'echo $$ > "$0" && exec "$@"'
    try:
        ended = subprocess.run(
            ["sh", "-c", enter, group / "cgroup.procs", *command],
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        group.rmdir()
    error = run_log.read_result(trial_folder(tmp_path))["error"]
    cause = DIED + "was ended by SIGKILL; the system ran out of memory (OOM kill)"
    assert error == {"cause": cause, "outside": True, "oom_kill": True, "traceback": ""}
    assert ended.returncode == 1
    assert f"failed before its first evaluation: {cause}" in ended.stdout


def make_group(limit_bytes):
    own = next(memory._groups(Path("/")))
    group = own / f"algoperf-test-{os.getpid()}"
    limit_name = "memory.max" if (own / "memory.max").exists() else "memory.limit_in_bytes"
    try:
        group.mkdir()
        (group / limit_name).write_text(str(limit_bytes))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    return group

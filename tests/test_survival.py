"""A run that is killed or stopped goes on, by the same command, as the run that would have been."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from algoperf.machine import hardware, own_code, resources, stopping
from algoperf.run_folder import run_log
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.study import status

ROOT = Path(__file__).resolve().parents[1]
SUBMISSIONS = {"jax": str(ROOT / "submissions" / "template_full.py"), "pytorch": "adamw"}
KILLED_AT = (
    "row written#3",
    "row kept#4",
    "checkpoint written#3",
    "checkpoint renamed#2",
    "checkpoint kept#3",
    "result written",
    "result kept",
)
DONE = {"workload": "digits", "submission": "adamw", "study": 0, "trial": 1, "status": "complete"}
DONE |= {"steps": 1, "final": {}, "ledger": {}, "scoreable": False}
CLOCKS = ("accumulated", "score", "total_duration", "preemption_count")


def start(framework, out, kill_at=None, *more):
    words = ["--workload", "digits", "--submission", SUBMISSIONS[framework], "--out", str(out)]
    words += ["--framework", framework, "--max-steps", "60", "--eval-every-steps", "15"]
    environment = {**os.environ, **({} if kill_at is None else {"ALGOPERF_KILL_AT": kill_at})}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "algoperf", "run", *words, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(*arguments):
    process = start(*arguments)
    said, complaints = process.communicate(timeout=500)
    return process.returncode, said, complaints


def folder_of(out):
    (folder,) = out.glob("*/*/study_0/*/trial_1")
    return folder


def rows(out, name):
    """The rows of a file without its clocks."""
    with (folder_of(out) / name).open(newline="") as file:
        return [
            {key: value for key, value in row.items() if not key.startswith(CLOCKS)}
            for row in csv.DictReader(file)
        ]


def check_same(out, undisturbed):
    for name in ("eval_measurements.csv", "measurements.csv"):
        assert rows(out, name) == rows(undisturbed, name)
    with (folder_of(out) / "eval_measurements.csv").open(newline="") as file:
        clocks = [float(row["accumulated_submission_time"]) for row in csv.DictReader(file)]
    assert clocks == sorted(clocks)
    result = json.loads((folder_of(out) / "result.json").read_text())
    assert result["status"] == "complete"
    assert result["ledger"]["submission_s"] == pytest.approx(clocks[-1])
    return result


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """`undisturbed(framework, submission)`: the folder of a run to its end, of which there is one
    for all tests, as a run is seconds of loading a framework.
    """
    kept = {}

    def make(framework, submission=None):
        submission = submission or SUBMISSIONS[framework]
        key = framework, submission
        if key not in kept:
            kept[key] = tmp_path_factory.mktemp(framework)
            code, _, complaints = run(framework, kept[key], None, "--submission", submission)
            assert code == 0, complaints
        return kept[key]

    return make


def killed_and_gone_on(undisturbed, tmp_path, framework, kill_at, *more):
    code, said, _ = run(framework, tmp_path, kill_at, *more)
    if kill_at == "result kept":  # it has its result, and that is taken
        assert code == 0
        assert "complete after" in said
    else:
        # At 'result written' the starter dies as well, as it writes what its trial died of.
        assert code in (1, -signal.SIGKILL)
        assert "was ended by SIGKILL" in said or code < 0
    code, _, complaints = run(framework, tmp_path, None, *more)
    assert code == 0, complaints
    if kill_at == "result kept":
        assert "done before" in complaints
    check_same(tmp_path, undisturbed)
    went_on = kill_at != "result kept"
    assert ("goes on from step" in complaints) == went_on
    assert (folder_of(tmp_path) / "checkpoints").exists() != went_on
    numbers = sorted(path.name for path in folder_of(tmp_path).glob("meta_data_*.json"))
    assert numbers == [f"meta_data_{n}.json" for n in range(1 + went_on)]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
@pytest.mark.parametrize("kill_at", KILLED_AT)
def test_killed_anywhere(undisturbed, tmp_path, framework, kill_at):
    killed_and_gone_on(undisturbed(framework), tmp_path, framework, kill_at)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kill_at", KILLED_AT)
def test_killed_anywhere_with_donated_arrays(undisturbed, tmp_path, kill_at):
    """The optimizer form gives a step's arrays to the next, in JAX."""
    ended = undisturbed("jax", "adamw")
    killed_and_gone_on(ended, tmp_path, "jax", kill_at, "--submission", "adamw")


SLOW = """
import time
from pathlib import Path

from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS


def pause():
    time.sleep(0.05)
    with Path(__file__).with_name("steps").open("a") as file:
        file.write(".")


class Slow:
    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.state_dict, self.load_state_dict = scheduler.state_dict, scheduler.load_state_dict

    def step(self):
        pause()
        self.scheduler.step()


def torch_optimizer(params, hyperparameters, info):
    optimizer, scheduler = adamw.torch_optimizer(params, hyperparameters, info)
    return optimizer, Slow(scheduler)


def jax_optimizer(hyperparameters, info):
    import jax
    import optax

    fast = adamw.jax_optimizer(hyperparameters, info)

    def update(updates, state, params=None):
        jax.debug.callback(pause)
        return fast.update(updates, state, params)

    return optax.GradientTransformation(fast.init, update)
"""


# What a batch system sends, to whom: "-" is for the starter and the trial alike.
SENT = {
    "jax": ("starter SIGTERM", "trial SIGTERM", "- SIGTERM"),
    "pytorch": ("trial SIGUSR1", "starter SIGHUP", "- SIGUSR1", "starter SIGINT"),
}


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_stopped_by_signals(tmp_path, framework):
    """The starter and the trial get them within a few milliseconds of each other."""
    (tmp_path / "slow.py").write_text(SLOW)
    submission = "--submission", str(tmp_path / "slow.py"), "--eval-every-steps", "60"
    code, _, complaints = run(framework, tmp_path / "undisturbed", None, *submission)
    assert code == 0, complaints
    steps = tmp_path / "steps"
    steps.write_text("")
    again = framework, tmp_path / "runs", None, *submission
    process = start(*again)
    try:
        while len(steps.read_text()) < 5:  # Far from the evaluations, at steps 1 and 60.
            assert process.poll() is None
            time.sleep(0.01)
        (trial,) = psutil.Process(process.pid).children()
        for who, name in (each.split() for each in SENT[framework]):
            for pid in {"starter": [process.pid], "trial": [trial.pid]}.get(
                who, [process.pid, trial.pid]
            ):
                os.kill(pid, signal.Signals[name])
            time.sleep(0.01)
        _, complaints = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, complaints
    assert "is saved, and the same command goes on with it" in complaints
    assert not (folder_of(tmp_path / "runs") / "result.json").exists()
    (trial,) = status.read(tmp_path / "runs")
    assert trial.state == status.INTERRUPTED
    code, _, complaints = run(*again)
    assert code == 0, complaints
    assert 4 <= int(re.search(r"goes on from step (\d+)", complaints)[1]) < 60
    check_same(tmp_path / "runs", tmp_path / "undisturbed")


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_trial_is_asked_while_python_starts(number):
    with stopping.held_back():
        process = subprocess.Popen(
            own_code.program("algoperf.trial.process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    process.send_signal(number)
    assert process.communicate(timeout=100) == (b"", b"")
    assert process.returncode == 75


@pytest.mark.slow
def test_a_lost_terminal(tmp_path):
    """The trial prints in every step, to a terminal that is gone as the trial is saved."""
    (tmp_path / "slow.py").write_text(
        SLOW.replace("time.sleep(0.05)", "time.sleep(0.05); print('stepped')")
    )
    words = ["--workload", "digits", "--submission", str(tmp_path / "slow.py"), "--max-steps", "60"]
    words += ["--framework", "pytorch", "--eval-every-steps", "60", "--out", str(tmp_path / "runs")]
    program = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    program += "os.execv(sys.executable, [sys.executable, '-P', '-m', 'algoperf', *sys.argv[1:]])"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    terminal, ours = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", *words],
        stdin=ours,
        stdout=ours,
        stderr=ours,
        start_new_session=True,
    )
    signal.signal(signal.SIGHUP, before)
    os.close(ours)
    try:
        shown = b""
        while b"stepped" not in shown:
            shown += os.read(terminal, 4096)
        os.close(terminal)
        assert process.wait(100) == 75
    finally:
        process.kill()
    (trial,) = status.read(tmp_path / "runs")
    assert trial.state == status.INTERRUPTED
    assert list(folder_of(tmp_path / "runs").glob("checkpoints/*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_experiments_with_signals(tmp_path, framework):
    """Some of `tests/benchmarks/signal_experiments.py`: in the set-up, the last evaluation and
    between two trials.
    """
    import signal_experiments
    from signal_experiments import Experiment

    undisturbed = {}
    for trials in (1, 2):
        folder = tmp_path / f"undisturbed_{trials}"
        command = signal_experiments.words(folder, framework, trials)
        assert signal_experiments.run(command, folder / "log.txt").wait(300) == 0
        undisturbed[trials] = signal_experiments.outcome(folder)
    both = signal_experiments.ALL
    for number, (moment, first, second) in enumerate(
        [
            ("set-up", "trial", "starter"),
            ("the last evaluation", both, both),
            ("between trials", "starter", "starter"),
        ]
    ):
        tried = Experiment(number, framework, moment, "SIGUSR1", first, second, 20, 0)
        folder = tmp_path / str(number)
        row = signal_experiments.carry_out(tried, folder, undisturbed[tried.trials])
        assert signal_experiments.is_good(row), row


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_saving_between_evaluations_changes_nothing(undisturbed, tmp_path, framework):
    """A step gives the arrays of the last evaluation to the next parameters, in JAX."""
    often = "--submission", "adamw", "--checkpoint-every-s", "0.001"
    code, _, complaints = run(framework, tmp_path, None, *often)
    assert code == 0, complaints
    result = check_same(tmp_path, undisturbed(framework, "adamw"))
    assert result["ledger"]["checkpoint_s"] > 0


def wait_for_rows(process, out, count):
    end_s = time.perf_counter() + 300
    while True:
        files = list(out.glob("*/*/study_0/*/trial_1/eval_measurements.csv"))
        if files and files[0].read_text().count("\n") > count:
            return
        assert process.poll() is None
        assert time.perf_counter() < end_s
        time.sleep(0.02)


def test_the_second_time_nothing_is_done(undisturbed):
    out = undisturbed("pytorch")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, said, complaints = run("pytorch", out)
    assert code == 0
    assert "done before" in complaints
    assert "complete after" in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_run_that_has_nothing_to_do_loads_no_framework(tmp_path, framework):
    """It takes half a second, and would take several with either of them."""
    folder = run_log.trial_folder(tmp_path, "mini-builtin", "adamw", 0, "digits", framework, 1)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(DONE | {"framework": framework}))
    words = ["run", "--workload", "digits", "--submission", "adamw", "--framework", framework]
    code = "import sys; from algoperf import cli; code = cli.main(sys.argv[1:]); "
    code += "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    words = [sys.executable, "-P", "-c", code, *words, "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "done before (complete), skipped" in done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "algoperf.study" in loaded
    assert not loaded & {"torch", "jax", "flax", "optax", "transformers", "datasets", "scipy"}


@pytest.mark.slow
def test_the_resources_of_a_trial_are_those_of_all_its_processes(tmp_path):
    """The checkpoint is made to say that an earlier process took very much."""
    run("pytorch", tmp_path, "checkpoint kept#2")
    checkpoints = Checkpoints(folder_of(tmp_path))
    arrays, document = next(checkpoints.read())
    assert set(document["resources"]) == set(resources.JOINED)
    assert 0.1 < document["resources"]["cpu_s"] < 1000
    document["resources"] |= {"cpu_s": 10_000.0, "peak_process_bytes": 10**15}
    document["position"]["ledger"]["wall_s"] = 5_000.0
    checkpoints.write(document["position"]["step"] + 1, arrays, document)
    began_s = time.monotonic()
    assert run("pytorch", tmp_path)[0] == 0
    spent_s = (time.monotonic() - began_s) * hardware.thread_count()  # the most that it can be
    result = json.loads((folder_of(tmp_path) / "result.json").read_text())
    found = result["resources"]
    assert 10_000.1 < found["cpu_s"] <= 10_000 + spent_s
    assert found["peak_process_bytes"] == result["peak_process_bytes"] == 10**15
    assert found["mean_cores"] == pytest.approx(found["cpu_s"] / result["ledger"]["wall_s"])
    assert result["ledger"]["wall_s"] > 5_000

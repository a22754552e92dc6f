"""Faults of one of the processes that train a trial: it ends as docs/devices.md says,
what was measured is kept, and no process stays.

30 faults of PyTorch's ranks, and 16 of JAX's, at steps and in ranks that nobody chose:
pytest -m exhaustive tests/test_rank_faults.py
"""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
STEPS, EVERY = 60, 10
MARK = "ALGOPERF_TEST_FAULTS"
FAULT = """
import fcntl, os, signal, socket, struct, threading, time

DEFAULTS = {"learning_rate": 1e-3}
KIND, RANK, STEP, SECONDS = os.environ["FAULT"].split(",")


def lo(is_up):
    flags = 0x49 if is_up else 0x48  # IFF_LOOPBACK | IFF_RUNNING, and IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as used:
        fcntl.ioctl(used, 0x8914, struct.pack("16sh14x", b"lo", flags))  # SIOCSIFFLAGS


def fault():
    if KIND == "raises":
        raise ValueError("broken on purpose")
    if KIND == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if KIND == "cut":
        lo(False)
        threading.Timer(float(SECONDS), lo, [True]).start()
"""
SUBMISSIONS = {
    "jax": """
import jax, optax


def jax_optimizer(hyperparameters):
    return optax.adamw(hyperparameters.learning_rate)


def data_selection(input_queue, global_step):
    if jax.process_index() == int(RANK):
        if KIND == "slow":
            time.sleep(float(SECONDS))
        elif global_step + 1 == int(STEP):
            fault()
    return next(input_queue)
""",
    "pytorch": """
import torch


def torch_optimizer(params, hyperparameters, info):
    optimizer = torch.optim.AdamW(params.tensors(), lr=hyperparameters.learning_rate)
    step, steps = optimizer.step, []

    def stepped():
        steps.append(0)
        if info.rank == int(RANK):
            if KIND == "slow":
                time.sleep(float(SECONDS))
            elif len(steps) == int(STEP):
                fault()
        return step()

    optimizer.step = stepped
    return optimizer
""",
}
PROCESSES = {"jax": ("--processes", "2"), "pytorch": ()}


def run(folder, kind, rank, step, seconds=0.0, before=(), framework="pytorch"):
    """Return the command, ended; the fault is told by the environment."""
    (folder / "faulty.py").write_text(FAULT + SUBMISSIONS[framework])
    fault = f"{kind},{rank},{step},{seconds}"
    return subprocess.run(
        [
            *before,
            *(sys.executable, "-m", "algoperf", "run", "--workload", "digits", "--seed", "1"),
            *("--submission", "faulty.py", "--framework", framework, "--devices", "2"),
            *PROCESSES[framework],
            *("--max-steps", str(STEPS), "--eval-every-steps", str(EVERY), "--until", "end"),
            *("--out", "runs"),
        ],
        cwd=folder,
        env={**os.environ, "FAULT": fault, MARK: str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def outcome(folder):
    """Return the result of the only trial, and the steps of its rows."""
    (file,) = (folder / "runs").glob("*/*/study_0/*/trial_1/result.json")
    with (file.parent / "eval_measurements.csv").open() as rows:
        steps = [int(row["global_step"]) for row in csv.DictReader(rows)]
    return json.loads(file.read_text()), steps


def left(folder):
    """Return what still runs of a command, after a moment to end."""
    mark = f"{MARK}={folder}\0".encode()

    def still_there():
        running = []
        for process in psutil.process_iter():
            try:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            except OSError:
                continue
            running += [process] if mark in environment else []
        return running

    deadline = time.monotonic() + 10
    while (processes := still_there()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes


def due(step):
    """Return the steps that are evaluated before a step is made: the first, and each tenth."""
    return [1, *range(EVERY, step, EVERY)] if step > 1 else []


def drawn(kind, count):
    """Return the rank and the step of so many faults of a kind."""
    drawing = random.Random(kind)
    return [(drawing.randrange(2), drawing.randint(2, STEPS - 5)) for _ in range(count)]


def check_ends(folder, kind, rank, step, framework):
    run(folder, kind, rank, step, framework=framework)
    result, steps = outcome(folder)
    assert result["status"] == "failed"
    cause = {
        "raises": "ValueError: broken on purpose",
        "dies": "the trial's process was ended by SIGKILL",
    }[kind]
    assert cause in result["error"]["cause"]
    assert rank == 0 or result["error"]["cause"].startswith(f"rank {rank}: ")
    assert steps == due(step)
    assert left(folder) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("framework", SUBMISSIONS)
@pytest.mark.parametrize("kind", ["raises", "dies"])
def test_a_rank_that_raises_or_dies(tmp_path, kind, framework):
    for number, (rank, step) in enumerate(drawn(kind, 8)):
        folder = tmp_path / str(number)
        folder.mkdir()
        check_ends(folder, kind, rank, step, framework)


@pytest.mark.exhaustive
def test_a_slow_rank_shows_in_the_clock(tmp_path):
    """Both ranks wait for the slow one in each step, so its sleep is all on the clock."""
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    run(folder, "none", 0, 1)
    before, steps = outcome(folder)
    drawing = random.Random("slow")
    for number in range(7):
        rank, seconds = drawing.randrange(2), drawing.uniform(0.02, 0.06)
        folder = tmp_path / str(number)
        folder.mkdir()
        run(folder, "slow", rank, 1, seconds)
        result, slow_steps = outcome(folder)
        assert (result["status"], slow_steps) == (before["status"], steps)
        assert result["final"] == before["final"]
        longer_s = result["ledger"]["submission_s"] - before["ledger"]["submission_s"]
        assert longer_s >= 0.9 * STEPS * seconds
        assert left(folder) == []


@pytest.mark.exhaustive
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to make network namespaces",
)
def test_a_network_that_is_cut(tmp_path):
    """The loopback of a namespace of its own, over which the ranks talk, for one to four seconds:
    what was sent arrives later, and the trial is as if nothing had been.
    """
    before = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    run(folder, "none", 0, 1, before=before)
    undisturbed, steps = outcome(folder)
    drawing = random.Random("cut")
    for number, (rank, step) in enumerate(drawn("cut", 7)):
        seconds = drawing.uniform(1, 4)
        folder = tmp_path / str(number)
        folder.mkdir()
        run(folder, "cut", rank, step, seconds, before)
        result, cut_steps = outcome(folder)
        assert (result["status"], cut_steps) == (undisturbed["status"], steps)
        assert result["final"] == undisturbed["final"]
        longer_s = result["ledger"]["submission_s"] - undisturbed["ledger"]["submission_s"]
        assert longer_s >= 0.9 * seconds
        assert left(folder) == []

"""A run that is killed again and again, at steps that nobody chose, is in the end the run that
would have been: rows, metrics and last parameters, bit for bit. Whichever of its processes are
killed, none of the others stays.

102 kills over both frameworks and all forms: pytest -m exhaustive tests/test_random_kills.py
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
# A step every 25 ms, so that a kill comes between two rows and not after the last.
OPTIMIZER_FORM = """
import time

from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS
jax_optimizer = adamw.jax_optimizer


def learning_rate(step, hyperparameters, info):  # called in every tenth step, in JAX
    time.sleep(0.25)
    return adamw.learning_rate(step, hyperparameters, info)


class Slow:
    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.state_dict, self.load_state_dict = scheduler.state_dict, scheduler.load_state_dict

    def step(self):
        time.sleep(0.025)
        self.scheduler.step()


def torch_optimizer(params, hyperparameters, info):
    optimizer, scheduler = adamw.torch_optimizer(params, hyperparameters, info)
    return optimizer, Slow(scheduler)
"""
# One that stays in the trial's group, with all that it has open, and one that cuts itself off.
CHILDREN = """
import os
import time
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # JAX's own of a fork.
    for is_cut_off in (False, True):
        if os.fork() == 0:
            if is_cut_off:
                os.setsid()
                if os.fork():
                    os._exit(0)
            time.sleep(600)
            os._exit(0)
"""
SLOW_SELECTION = """

def data_selection(input_queue):
    import time
    time.sleep(0.025)
    return next(input_queue)
"""
TORCH_STEP = """
import torch

from algoperf import spec


def gradients_of(workload, params, batch, model_state, rng):
    params.zero_grad()
    logits, _ = workload.model_fn(
        params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True)
    loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
    mean = loss["summed"] / loss["n_valid_examples"]
    mean.backward()
    return mean.item()
"""
FULL_TORCH = (
    TORCH_STEP
    + """

def init_optimizer_state(workload, model_params):
    optimizer = torch.optim.AdamW(model_params.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    return {"optimizer": optimizer, "scheduler": scheduler}


def update_params(workload, current_param_container, batch, model_state, optimizer_state, rng,
                  global_step):
    loss = gradients_of(workload, current_param_container, batch, model_state, rng)
    workload.metrics_logger.append_scalar_metrics({"loss": loss}, global_step)
    optimizer_state["optimizer"].step()
    optimizer_state["scheduler"].step()
    return optimizer_state, current_param_container, model_state
"""
)
# Every attribute goes into the rate of every step: one that is lost changes all that follows.
ODD = """
import collections
import random

import numpy as np


class Odd:
    def __init__(self):
        self.scale = 1.0
        self.average = np.zeros(3)
        self.losses = collections.deque(maxlen=4)
        self.by_place = {0: 0.0}
        self.python = random.Random(5)
        self.numpy = np.random.default_rng(6)
        self.shrink = lambda scale: 0.999 * scale

    def rate(self, step, loss):
        self.losses.append(loss)
        self.by_place[step % 7] = loss
        self.scale = self.shrink(self.scale)
        self.average = 0.9 * self.average + 0.01 * self.numpy.standard_normal(3)
        kept = sum(self.losses) + sum(self.by_place.values()) + float(self.average.sum())
        return 0.03 * self.scale * (1 + 0.01 * kept + 0.1 * self.python.random())
"""
ODD_TORCH = (
    ODD
    + TORCH_STEP
    + """

def init_optimizer_state(model_params):
    return {"odd": Odd(), "mean": {
        place: torch.zeros_like(value) for place, value in enumerate(model_params.parameters())}}


def update_params(workload, current_param_container, batch, model_state, optimizer_state, rng,
                  global_step):
    loss = gradients_of(workload, current_param_container, batch, model_state, rng)
    workload.metrics_logger.append_scalar_metrics({"loss": loss}, global_step)
    rate = optimizer_state["odd"].rate(global_step, loss)
    with torch.no_grad():
        for place, value in enumerate(current_param_container.parameters()):
            mean = 0.9 * optimizer_state["mean"][place] + value.grad
            optimizer_state["mean"][place] = mean
            value -= rate * mean
    return optimizer_state, current_param_container, model_state
"""
)
ODD_JAX = (
    ODD
    + """
import functools

import jax

from algoperf import spec


def init_optimizer_state(model_params):
    return {"odd": Odd(), "mean": jax.tree.map(lambda leaf: 0 * leaf, model_params)}


@functools.partial(jax.jit, static_argnums=0)
def gradients_of(workload, params, model_state, batch, rng):
    def mean_loss(params):
        logits, _ = workload.model_fn(
            params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True)
        loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
        return loss["summed"] / loss["n_valid_examples"]

    return jax.value_and_grad(mean_loss)(params)


def update_params(workload, current_param_container, model_state, batch, optimizer_state, rng,
                  global_step):
    params = current_param_container
    loss, gradients = gradients_of(workload, params, model_state, batch, rng)
    workload.metrics_logger.append_scalar_metrics({"loss": loss}, global_step)
    rate = optimizer_state["odd"].rate(global_step, float(loss))
    mean = jax.tree.map(lambda old, new: 0.9 * old + new, optimizer_state["mean"], gradients)
    params = jax.tree.map(lambda leaf, change: leaf - rate * change, params, mean)
    return {"odd": optimizer_state["odd"], "mean": mean}, params, model_state
"""
)
SOURCES = {
    ("optimizer form", "jax"): OPTIMIZER_FORM,
    ("optimizer form", "pytorch"): OPTIMIZER_FORM,
    ("full form", "jax"): (ROOT / "submissions/template_full.py").read_text() + SLOW_SELECTION,
    ("full form", "pytorch"): FULL_TORCH + SLOW_SELECTION,
    ("odd state", "jax"): ODD_JAX + SLOW_SELECTION,
    ("odd state", "pytorch"): ODD_TORCH + SLOW_SELECTION,
}
CLOCKS = ("accumulated", "score", "total_duration", "preemption_count")
TRAINER, REFEREE, STARTER = "trainer", "referee", "starter"
# Who is killed, in this order.
VICTIMS = (
    (TRAINER,),
    (REFEREE,),
    (STARTER,),
    (TRAINER, REFEREE),
    (REFEREE, TRAINER),
    (STARTER, REFEREE),
    (TRAINER, STARTER, REFEREE),
)
DIED = {TRAINER: "the trial's process was ended", REFEREE: "the referee was ended"}
MARK = "ALGOPERF_TEST_OF_KILLS"  # A variable that all processes of a run inherit.


class Run:
    """One run of `steps` steps, evaluated every fourth, in a folder of its own."""

    def __init__(self, folder, form, framework, steps):
        folder.mkdir()
        (folder / "slow.py").write_text(SOURCES[form, framework] + CHILDREN)
        self.folder, self.steps = folder, steps
        words = ["--workload", "digits", "--submission", "slow.py", "--framework", framework]
        words += ["--max-steps", str(steps), "--eval-every-steps", "4", "--until", "end"]
        words += ["--out", "runs"]
        self.words = [sys.executable, "-P", "-m", "algoperf", "run", *words]
        self.trial = folder / f"runs/mini-builtin/slow/study_0/digits_{framework}/trial_1"

    def start(self):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        marked = {**os.environ, MARK: str(self.folder)}
        return subprocess.Popen(self.words, cwd=self.folder, env=marked, **pipes)

    def finish(self):
        process = self.start()
        _, complaints = process.communicate(timeout=600)
        assert process.returncode == 0, complaints
        self.check_nothing_is_left()
        return complaints

    def steps_written(self):
        """The steps of the whole rows in the file."""
        path = self.trial / "eval_measurements.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return [row["global_step"] for row in csv.DictReader(file)]

    def kill(self, rows, delay_s, victims):
        """Kill some of the run's processes, some time after so many more rows."""
        wanted = len(self.steps_written()) + rows
        process = self.start()
        try:
            end_s = time.perf_counter() + 300
            while len(self.steps_written()) < wanted:
                assert process.poll() is None, process.communicate()
                assert time.perf_counter() < end_s
                time.sleep(0.01)
            who = self.processes(process)
            time.sleep(delay_s)
            for victim in victims:
                who[victim].kill()
            _, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
        self.check_nothing_is_left()
        self.check_landed(process.returncode, victims)
        return complaints

    def processes(self, starter):
        """The starter, the referee and the trainer, which the referee's fork server has forked."""
        (referee,) = psutil.Process(starter.pid).children()
        (trainer,) = (each for server in referee.children() for each in self.of_server(server))
        return {STARTER: psutil.Process(starter.pid), REFEREE: referee, TRAINER: trainer}

    @staticmethod
    def of_server(server):
        """What a fork server has forked, without those that it adopted from the submission."""
        return [each for each in server.children() if each.children()]

    def check_nothing_is_left(self):
        """All that the run has started has ended, the server and what the submission forked too."""
        end_s = time.perf_counter() + 30
        while left := self.left():
            assert time.perf_counter() < end_s, [(each.pid, each.cmdline()) for each in left]
            time.sleep(0.02)

    def left(self):
        mark = f"{MARK}={self.folder}\0".encode()
        return [each for each in psutil.process_iter() if mark in environment(each)]

    def check_landed(self, code, victims):
        """It was in mid-run: by its exit code, its result and the steps that it has written."""
        assert 1 <= int(self.steps_written()[-1]) < self.steps
        if STARTER in victims:
            assert code == -signal.SIGKILL
        else:
            assert code == 1
            error = json.loads((self.trial / "result.json").read_text())["error"]
            assert error["outside"]
            assert "was ended by SIGKILL" in error["cause"]
            # The referee that goes after its trainer may have seen that one's end, or not.
            assert any(error["cause"].startswith(DIED[victim]) for victim in victims)

    def rows(self, name):
        with (self.trial / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [
            {key: value for key, value in row.items() if not key.startswith(CLOCKS)} for row in rows
        ]

    def result(self):
        return json.loads((self.trial / "result.json").read_text())


def environment(process):
    """The variables of a process, as bytes; none where it has ended or may not be read."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return b""
        return Path(f"/proc/{process.pid}/environ").read_bytes() + b"\0"
    except (OSError, psutil.Error):
        return b""


def check_killed(folder, form, framework, steps, victims, seed):
    undisturbed = Run(folder / "undisturbed", form, framework, steps)
    undisturbed.finish()
    killed = Run(folder / "killed", form, framework, steps)
    draws = random.Random(seed)
    for number, each in enumerate(victims):
        # A second row comes after the first checkpoint: there is something to go on from.
        rows = draws.randint(1 if number else 2, 3)
        said = killed.kill(rows, draws.uniform(0, 0.1), each)
        assert ("goes on from step" in said) == (number > 0)
    assert "goes on from step" in killed.finish()

    for name in ("eval_measurements.csv", "measurements.csv"):
        assert killed.rows(name) == undisturbed.rows(name)
    expected = ["1", *(str(step) for step in range(4, steps + 1, 4))]
    assert killed.steps_written() == expected
    one, other = killed.result(), undisturbed.result()
    for name in ("status", "steps", "final", "seed", "parameters_crc32", "flags"):
        assert one[name] == other[name], name
    assert (one["status"], one["flags"]) == ("complete", [])
    assert isinstance(one["parameters_crc32"], int)
    with (killed.trial / "eval_measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("accumulated_submission_time", "accumulated_eval_time", "total_duration"):
        times = [float(row[name]) for row in rows]
        assert times == sorted(times), name
    assert one["ledger"]["submission_s"] == float(rows[-1]["accumulated_submission_time"])
    interruptions = [int(row["preemption_count"]) for row in rows]
    assert interruptions == sorted(interruptions)
    assert interruptions[-1] == len(victims)
    assert len(list(killed.trial.glob("meta_data_*.json"))) == len(victims) + 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("framework", "victims"),
    [
        ("jax", ((TRAINER,), (STARTER, REFEREE))),
        ("pytorch", ((REFEREE,), (TRAINER, STARTER, REFEREE))),
    ],
)
def test_killed_twice_with_an_odd_state(tmp_path, framework, victims):
    check_killed(tmp_path, "odd state", framework, 32, victims, seed=1)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("form", "framework"), SOURCES)
def test_killed_seventeen_times_in_a_row(tmp_path, form, framework):
    """All victims twice, three of them once more, in an order of its own."""
    number = list(SOURCES).index((form, framework))
    victims = [VICTIMS[(number + place) % len(VICTIMS)] for place in range(17)]
    random.Random(number).shuffle(victims)
    check_killed(tmp_path, form, framework, 400, victims, seed=number)

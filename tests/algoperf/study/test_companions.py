"""What goes along with a trial: it waits, nothing else changes, and failures are said."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from algoperf.cli import commands, run_arguments
from algoperf.errors import UserError
from algoperf.machine import stopping
from algoperf.run_folder import run_log
from algoperf.study import run_plan, study
from algoperf.study.companions import Companions, need
from algoperf.trial.process import Answers

# Says after each step how many there were.
COUNTING = """
import pathlib

import torch

DEFAULTS = {"learning_rate": 0.003}
STEPS = pathlib.Path(__file__).with_name("steps")

class Counted(torch.optim.Adam):
    steps = 0

    def step(self, closure=None):
        Counted.steps += 1
        STEPS.write_text(str(Counted.steps))
        return super().step(closure)

def torch_optimizer(params, hyperparameters):
    return Counted(params.tensors(), lr=hyperparameters.learning_rate)
"""
BURN = "import time\nwhile time.process_time() < 0.1: pass"


def burn():
    while time.thread_time() < 0.1:
        pass


class Busy:
    """Works for long, in a thread and in a process of its own, and sees what the trial does."""

    name = "busy"

    def __init__(self, steps):
        self._steps = steps
        self.seen = []

    def begin(self, plan, folder):
        self.seen.append("begin")

    def event(self, event):
        if event["event"] in ("start", "evaluation"):
            before = self._steps.read_text() if self._steps.exists() else "0"
            thread = threading.Thread(target=burn)
            thread.start()
            subprocess.run([sys.executable, "-c", BURN], check=True)
            thread.join()
            after = self._steps.read_text() if self._steps.exists() else "0"
            self.seen.append((event["event"], event["step"], int(before), int(after)))

    def end(self, result):
        self.seen.append("end")
        return {"busy": {"kwh": 1.5}}


def make_plan(parser, submission, out):
    words = ["run", "--workload", "digits", "--submission", str(submission), "--out", str(out)]
    words += ["--max-steps", "40", "--eval-every-steps", "20", "--framework", "pytorch"]
    return run_plan.make(run_arguments.request(parser.parse_args(words)))


@pytest.mark.slow
def test_the_trial_waits_and_is_what_it_is_without(parser, tmp_path):
    submission = tmp_path / "counting.py"
    submission.write_text(COUNTING)
    busy = Busy(tmp_path / "steps")
    results = {}
    for name, companions in (("alone", None), ("along", Companions([busy]))):
        plan = make_plan(parser, submission, tmp_path / name)
        (results[name],) = study.run(
            plan.trial, plan.outline, plan.chosen, lambda *_: None, companions=companions
        )
        (tmp_path / "steps").unlink()
    evaluations = [("evaluation", step, step, step) for step in (1, 20, 40)]
    assert busy.seen == ["begin", ("start", 0, 0, 0), *evaluations, "end"]
    alone, along = results["alone"], results["along"]
    assert (along["flags"], along["status"]) == ([], "complete")
    assert along["resources"].pop("busy") == {"kwh": 1.5}
    for key in ("parameters_crc32", "final", "config_hash", "steps"):
        assert along[key] == alone[key]
    # In the file, too; and there the figures of a trial that has no companion.
    (written,) = (tmp_path / "along").glob("**/result.json")
    assert json.loads(written.read_text())["resources"]["busy"] == {"kwh": 1.5}
    assert set(alone["resources"]) == set(along["resources"])
    wall_s = alone["ledger"]["wall_s"]
    assert alone["resources"]["mean_cores"] == alone["resources"]["cpu_s"] / wall_s
    assert alone["resources"]["peak_process_bytes"] == alone["peak_process_bytes"] > 10**7


class Recorded:
    """Notes what it is told; raises where it was asked to."""

    def __init__(self, name, told, raises=()):
        self.name, self._told, self._raises = name, told, raises

    def _note(self, what):
        self._told.append((self.name, what))
        if what in self._raises:
            raise OSError(f"no way\nto {what}")

    def begin(self, plan, folder):
        self._note("begin")

    def event(self, event):
        self._note(event["event"])

    def end(self, result):
        self._note("end")
        return {self.name: len(self._told)}


@pytest.mark.parametrize("fails_at", ["begin", "start", "end"])
def test_one_that_fails_is_left_out_and_that_is_said_once(tmp_path, fails_at):
    told, said = [], []
    both = Companions([Recorded("bad", told, {fails_at}), Recorded("good", told)])
    for _ in range(2):
        result = {"resources": {"cpu_s": 1.0}}
        both.begin(None, tmp_path, said.append)
        both.event({"event": "start"}, said.append)
        both.end(result, tmp_path, said.append)
        assert set(result["resources"]) == {"cpu_s", "good"}
    assert said == [f"bad failed and is left out: OSError: no way to {fails_at}"]
    of_good = [what for name, what in told if name == "good"]
    assert of_good == ["begin", "start", "end"] * 2
    assert [what for name, what in told if name == "bad"][-1] == fails_at
    assert run_log.read_result(tmp_path) == result


def test_a_trial_without_a_result_writes_none(tmp_path):
    told = []
    Companions([Recorded("good", told)]).end(None, tmp_path, told.append)
    assert told == [("good", "end")]
    assert not any(tmp_path.iterdir())


# Tells that it started, and then how many bytes came within a time in which one does.
TELLING = """
import json, os, select, sys
sys.stdin.buffer.raw.readline()
print(json.dumps({"event": "start", "budget_s": None}), flush=True)
came = select.select([0], [], [], float(sys.argv[1]))[0]
result = {"bytes": len(os.read(0, 9)) if came else 0}
told = {"event": "result", "result": result, "was_asked_to_stop": False}
print(json.dumps(told), flush=True)
"""


@pytest.mark.parametrize(("followed", "patience_s", "answers"), [(True, 60, 1), (False, 0.2, 0)])
def test_the_starter_answers_a_trial_that_waits(followed, patience_s, answers):
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, str(patience_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    plan = SimpleNamespace(followed=followed, to_json=lambda: "{}")
    watchdog = SimpleNamespace(limit=lambda budget_s: None)
    try:
        told = study._watch(process, plan, lambda *_: None, watchdog, stopping.Stops())
        assert told == ({"bytes": answers}, None)
    finally:
        process.communicate()


def test_an_answer_that_does_not_come_ends_nothing(monkeypatch):
    answers = Answers()
    answers.add(2)
    answers.wait()
    answers.wait()
    monkeypatch.setattr("algoperf.trial.process.PATIENCE_S", 0.01)
    answers.wait()  # returns


def test_an_extra_that_is_not_installed():
    with pytest.raises(UserError) as raised:
        need("--x", "no_such_package", "x")
    assert str(raised.value) == (
        "--x needs the package no_such_package; install it with: pip install 'algoperf[x]'"
    )
    need("--x", "json", "x")


@pytest.mark.parametrize(("option", "module"), [("--carbon", "codecarbon"), ("--wandb", "wandb")])
def test_an_option_without_its_extra_runs_nothing(tmp_path, monkeypatch, capsys, option, module):
    """One line, before a run folder is made."""
    monkeypatch.setattr(
        "algoperf.study.companions.importlib",
        SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)),
    )
    words = ["run", "--workload", "digits", "--submission", "adamw", "--out", str(tmp_path / "o")]
    assert commands.main([*words, option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    extra = option.removeprefix("--")
    install = f"install it with: pip install 'algoperf[{extra}]'"
    assert line == f"algoperf: {option} needs the package {module}; {install}"
    assert not Path(tmp_path / "o").exists()


def test_a_country_without_carbon_is_a_mistake(tmp_path, capsys):
    words = ["run", "--workload", "digits", "--submission", "adamw", "--out", str(tmp_path / "o")]
    assert commands.main([*words, "--carbon-country", "DEU"]) == 2
    assert "--carbon-country goes with --carbon" in capsys.readouterr().err

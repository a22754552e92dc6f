"""What a study makes of signals: its trials' process is a stand-in that takes no time to start."""

import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest

from algoperf.machine import stopping, supervision
from algoperf.run_folder import run_log
from algoperf.study import study
from algoperf.study.companions import Companions
from algoperf.trial.plan import TrialPlan

pytestmark = pytest.mark.usefixtures("usual_handlers")

# Stands for the process of a trial: it writes and tells what that does, and ends as `how` says.
TRIAL = """
import json, os, pathlib, signal, sys, time
how = {how!r}
asked = []
for number in {signals}:
    signal.signal(number, lambda number, frame: asked.append(number))
held = signal.pthread_sigmask(signal.SIG_SETMASK, [])
plan = json.loads(sys.stdin.readline())
folder = pathlib.Path(plan["out"]) / str(plan["trial"])
result = {{"status": "complete", "trial": plan["trial"]}}

def tell(event, **values):
    print(json.dumps({{"event": event, **values}}), flush=True)

def wait():
    while not asked:
        time.sleep(0.002)

folder.joinpath("flags_0.json").write_text("{{}}")
folder.joinpath("pid").write_text(str(os.getpid()))
folder.joinpath("held").write_text(json.dumps([int(number) for number in held]))
tell("start", budget_s=None)
if how == "complete":
    pass
elif how == "is past its last evaluation":
    wait()
elif how == "is asked alone":
    os.kill(os.getpid(), signal.SIGUSR1)
    wait()
elif how == "saves":
    wait()
    folder.joinpath("saved").touch()
    sys.exit(75)
elif how == "answers in its own way":
    wait()
    sys.exit(143)
elif how == "is ended":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGHUP)
elif how == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "is killed before it has saved":
    wait()
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "crashes":
    wait()
    os.kill(os.getpid(), signal.SIGSEGV)
folder.joinpath("result.json").write_text(json.dumps(result))
tell("result", result=result, was_asked_to_stop=bool(asked))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(how, observe)` runs two trials that end in that way, if nothing comes in between."""

    def start(how, observe=lambda plan, event: None, companions=None):
        numbers = [int(number) for number in stopping.SIGNALS]
        program = [sys.executable, "-S", "-c", TRIAL.format(how=how, signals=numbers)]
        monkeypatch.setattr(study.own_code, "program", lambda *_: program)
        plan = TrialPlan(*["x"] * 6, str(tmp_path), "x", study=0, trial=1, seed=0)
        outline, chosen = SimpleNamespace(name="x"), [(0, 1), (0, 2)]
        return study.run(plan, outline, chosen, observe, companions=companions)

    def trial_folder(out, *place):
        return out / str(place[-1])

    monkeypatch.setattr(study, "known_settings", lambda *_: {})
    monkeypatch.setattr(run_log, "check_same_configuration", lambda *_: None)
    monkeypatch.setattr(run_log, "trial_folder", trial_folder)
    return start


def at_start(*numbers):
    """Send this process the signals as soon as the trial has told that it started."""

    def observe(plan, event):
        if event["event"] == "start":
            for number in numbers:
                os.kill(os.getpid(), number)

    return observe


def results(tmp_path):
    return {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/result.*")}


def test_undisturbed_it_runs_them_all(run, tmp_path):
    assert [result["trial"] for result in run("complete")] == [1, 2]
    held = set(json.loads((tmp_path / "2/held").read_text()))
    assert held >= set(stopping.SIGNALS)  # Until the trial's process could answer.


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_has_the_trial_saved_however_often_it_comes(run, tmp_path, number):
    with pytest.raises(supervision.InterruptedRunError, match=str(tmp_path / "1")):
        run("saves", at_start(number, number, *stopping.SIGNALS))
    assert (tmp_path / "1/saved").exists()
    assert not results(tmp_path)
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize("how", ["is past its last evaluation", "is asked alone"])
def test_a_request_outlives_the_trial_that_it_came_in(run, tmp_path, how):
    """The trial has its result, and no other begins: whether the starter was asked or the trial."""
    observe = at_start(*[signal.SIGINT] * (how != "is asked alone"))
    with pytest.raises(supervision.InterruptedRunError, match=str(tmp_path / "1")):
        run(how, observe)
    assert results(tmp_path) == {"1": {"status": "complete", "trial": 1}}
    assert not (tmp_path / "2").exists()
    assert [result["trial"] for result in run("complete")] == [1, 2]


def test_a_request_between_two_trials(run, tmp_path):
    class Uploading:
        def begin(self, plan, folder):
            self.has_begun = True

        def event(self, event):
            pass

        def end(self, result):
            os.kill(os.getpid(), signal.SIGTERM)
            return {}

    with pytest.raises(supervision.InterruptedRunError):
        run("complete", companions=Companions([Uploading()]))
    assert list(results(tmp_path)) == ["1"]


def test_a_request_before_there_is_a_process(run, tmp_path):
    class Loading:
        def begin(self, plan, folder):
            os.kill(os.getpid(), signal.SIGTERM)

        def event(self, event):
            pass

        def end(self, result):
            assert result is None
            return {}

    with pytest.raises(supervision.InterruptedRunError):
        run("complete", companions=Companions([Loading()]))
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    "how", ["answers in its own way", "is ended", "is killed before it has saved"]
)
def test_a_trial_that_a_signal_ended_has_not_failed(run, tmp_path, how):
    with pytest.raises(supervision.InterruptedRunError):
        run(how, at_start(*[signal.SIGTERM] * (how != "is ended")))
    assert not results(tmp_path)


@pytest.mark.parametrize(("how", "is_outside"), [("crashes", False), ("is killed", True)])
def test_one_that_died_of_something_else_has(run, tmp_path, how, is_outside):
    kept = {**TrialPlan(*["x"] * 8, study=0, trial=1, seed=0).settings(), "submission": "x"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "known_settings", lambda *_: kept)
        if how == "is killed":
            failed, _ = run(how)
        else:
            with pytest.raises(supervision.InterruptedRunError):
                run(how, at_start(signal.SIGTERM))
            failed = results(tmp_path)["1"]
    assert failed["status"] == "failed"
    assert failed["error"]["outside"] is is_outside


def test_a_late_ctrl_c_ends_the_trial_at_once(run, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "GRACE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run("saves", at_start(signal.SIGTERM, signal.SIGINT))
    trial = int((tmp_path / "1/pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(trial, 0)


def test_who_looks_on_and_fails_does_not_cost_the_trial(run, tmp_path):
    def observe(plan, event):
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        run("saves", observe)
    assert (tmp_path / "1/saved").exists()

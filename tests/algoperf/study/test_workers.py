"""What a signal to a campaign does to its runs."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from algoperf.machine import stopping
from algoperf.machine.supervision import INTERRUPTED, InterruptedRunError
from algoperf.study.executors import executor, local

pytestmark = pytest.mark.usefixtures("usual_handlers")

# Stands for `algoperf run FOLDER`: saves when it is asked to stop, unless it is asked twice.
RUN = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (folder / "asked").write_text("")
    time.sleep(float(sys.argv[2]))
    (folder / "saved").write_text("")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
folder.mkdir()
(folder / "held").write_text(" ".join(str(int(number)) for number in held))
signal.pthread_sigmask(signal.SIG_SETMASK, [])
time.sleep(60)
"""


class Task:
    experiment = "test"

    def __init__(self, saving_s="0"):
        self.saving_s = saving_s

    def command(self, out):
        self.folder = out / str(id(self))
        return [str(self.folder), self.saving_s]

    def folders(self, out):
        return []

    def has_ended(self, out):
        return False

    def prepare(self, out):
        pass


@pytest.fixture
def program(tmp_path, monkeypatch):
    path = tmp_path / "run.py"
    path.write_text(RUN)
    monkeypatch.setattr(local, "PROGRAM", (sys.executable, "-S", str(path)))


@contextlib.contextmanager
def signalled(*events: tuple[int, Path]):
    """Send each signal to this process once its path is there."""

    def send():
        for number, path in events:
            for _ in range(3000):
                if path.exists():
                    break
                time.sleep(0.01)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_runs_save_and_no_more_are_started(tmp_path, program, number):
    going, waiting, told = Task(), Task(), []
    before = signal.getsignal(number)
    with (
        signalled((number, tmp_path / str(id(going)))),
        pytest.raises(InterruptedRunError, match=str(tmp_path)),
    ):
        local.run([going, waiting], tmp_path, 1, told.append)
    assert (going.folder / "saved").exists()
    held = {int(number) for number in (going.folder / "held").read_text().split()}
    assert held >= set(stopping.SIGNALS)  # Until it could answer.
    assert not waiting.folder.exists()
    assert told == ["test: "]
    assert signal.getsignal(number) is before
    assert INTERRUPTED == 75


@pytest.mark.skipif(not local.CAN_PIN, reason="processes cannot be pinned here")
def test_a_run_is_pinned_to_its_cores():
    show = "import os, time; time.sleep(0.5); print(sorted(os.sched_getaffinity(0)))"
    core = min(os.sched_getaffinity(0))
    ended = local.Processes().run([sys.executable, "-S", "-c", show], frozenset({core}))
    assert ended.stdout == f"[{core}]\n"


def test_a_signal_that_is_ignored_stays_so():
    """As SIGHUP under nohup."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes = local.Processes()
    with processes.stops:
        signal.raise_signal(signal.SIGINT)
    assert not processes.are_stopped


def test_a_signal_while_one_is_answered():
    """The handler is entered once more in the same thread, before the first has let go."""
    processes, asked = local.Processes(), []

    class Going:
        def terminate(self):
            asked.append("terminate")
            if len(asked) == 1:
                signal.raise_signal(signal.SIGTERM)

    processes._going.add(Going())
    with processes.stops:
        signal.raise_signal(signal.SIGTERM)
    assert asked == ["terminate"]


def test_a_signal_may_come_again(tmp_path, program):
    """Batch systems repeat themselves; the runs have been asked, and go on saving."""
    going = Task(saving_s="0.5")
    folder = tmp_path / str(id(going))
    events = [(signal.SIGTERM, folder)]
    events += [(number, folder / "asked") for number in (signal.SIGTERM, signal.SIGINT)]
    with signalled(*events), pytest.raises(InterruptedRunError):
        local.run([going], tmp_path, 1, lambda _: None)
    assert (folder / "saved").exists()


def test_a_late_ctrl_c_waits_for_nothing(tmp_path, program, monkeypatch):
    monkeypatch.setattr(stopping, "GRACE_S", 0.0)
    going = Task(saving_s="60")
    folder = tmp_path / str(id(going))
    events = (signal.SIGTERM, folder), (signal.SIGINT, folder / "asked")
    with signalled(*events), pytest.raises(KeyboardInterrupt):
        local.run([going], tmp_path, 1, lambda _: None)
    assert not (folder / "saved").exists()


def test_one_run_that_is_asked_to_stop_stops_all(tmp_path, program):
    """It got the signal that all were meant to get; that is no failure."""
    asked, other, waiting = Task(), Task(), Task()

    def stop_one():
        while not (list(tmp_path.glob("*")) and (tmp_path / str(id(other))).exists()):
            time.sleep(0.01)
        (process,) = [each for each in processes if str(id(asked)) in each.args[-2]]
        process.send_signal(signal.SIGUSR1)

    processes = []
    popen = local.subprocess.Popen

    def start(*arguments, **options):
        processes.append(popen(*arguments, **options))
        return processes[-1]

    thread = threading.Thread(target=stop_one)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.subprocess, "Popen", start)
        with pytest.raises(InterruptedRunError):
            local.run([asked, other, waiting], tmp_path, 2, lambda _: None)
    thread.join()
    assert (other.folder / "saved").exists()
    assert not waiting.folder.exists()


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("digits: reached\n  seconds: 1\n  busy machine\nruns are in x\n", "digits: reached"),
        ("a table\nbest of 2 (*): trial 1\nruns are in x\n", "best of 2 (*): trial 1"),
        ("only\n", "only"),
        ("", ""),
    ],
)
def test_the_note_of_a_run_is_its_trial_or_the_best(output, line):
    assert executor.last_words(subprocess.CompletedProcess([], 0, output, "")) == line

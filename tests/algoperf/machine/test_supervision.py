"""What a trial's starter does: stop, end what hangs, lock, and say what a process died of."""

import io
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from algoperf.errors import UserError
from algoperf.machine import claims, supervision
from algoperf.trial.process import Events


def test_a_folder_is_held_by_one(tmp_path):
    folder = tmp_path / "a" / "b" / "study_0" / "digits_jax" / "trial_1"
    assert not supervision.is_locked(folder)
    with supervision.locked(folder):
        assert supervision.is_locked(folder)
        assert not supervision.is_locked(tmp_path)
        with pytest.raises(UserError, match="another process works on this trial"):  # noqa: SIM117
            with supervision.locked(folder):
                pass
        assert folder.is_dir()
    assert not (tmp_path / "a").exists()  # nothing was written there
    with supervision.locked(folder):
        (folder / "row").touch()
    assert (folder / "row").exists()


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys, pathlib, time; from algoperf.machine import supervision\n"
        "with supervision.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert supervision.is_locked(tmp_path)
        with pytest.raises(UserError, match="another process"):  # noqa: SIM117
            with supervision.locked(tmp_path):
                pass
    finally:
        process.kill()
        process.communicate()
    with supervision.locked(tmp_path):
        pass


def test_what_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(supervision, "ALLOWANCE_S", 0.05)
    monkeypatch.setattr(supervision, "FACTOR", 0.0)
    ended = threading.Event()
    watchdog = supervision.Watchdog(ended.set)
    watchdog.limit(None)  # no budget, no limit
    assert not ended.wait(0.2)
    watchdog.limit(60.0)
    assert ended.wait(30)
    assert watchdog.cause == (
        "time-out: no end 0.05 s of wall time after the start, for a budget of 60 s"
    )


def test_a_watchdog_that_is_stopped_does_nothing(monkeypatch):
    monkeypatch.setattr(supervision, "ALLOWANCE_S", 0.05)
    monkeypatch.setattr(supervision, "FACTOR", 0.0)
    ended: list[bool] = []
    watchdog = supervision.Watchdog(lambda: ended.append(True))
    watchdog.limit(1.0)
    watchdog.stop()
    time.sleep(0.2)
    assert ended == []
    assert watchdog.cause is None


@pytest.mark.parametrize(
    ("code", "said", "is_outside"),
    [
        (3, "ended with exit code 3 and no result", False),
        (-9, "was ended by SIGKILL; often the system's answer to memory", True),
        (-15, "was ended by SIGTERM", True),
        (-11, "was ended by SIGSEGV", False),
        (-6, "was ended by SIGABRT", False),
    ],
)
def test_the_cause_of_death(code, said, is_outside):
    found = supervision.cause_of_death(code)
    assert said in found["cause"]
    assert found["outside"] is is_outside
    assert ("oom_kill" in found) == (code == -9)


def test_a_forked_child_tells_the_starter_nothing(monkeypatch):
    """What it inherited would be told twice."""
    stream = io.StringIO()
    events = Events(stream)
    own = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    events.send("note", text="from the child")
    assert stream.getvalue() == ""
    monkeypatch.undo()
    events.send("note", text="from the parent")
    assert json.loads(stream.getvalue()) == {"event": "note", "text": "from the parent"}


def test_who_looks_keeps_nobody_out(tmp_path, monkeypatch):
    """The look takes the lock for a moment, which is not taken for a process at work."""
    flock, seen = claims.fcntl.flock, []

    def meanwhile(descriptor, operation):
        if operation & claims.fcntl.LOCK_EX and not seen:
            seen.append(operation)
            raise BlockingIOError
        flock(descriptor, operation)

    monkeypatch.setattr(claims.fcntl, "flock", meanwhile)
    with supervision.locked(tmp_path):
        assert seen
        assert supervision.is_locked(tmp_path)
    assert not supervision.is_locked(tmp_path)


@pytest.mark.parametrize("name", ["trial_1", "trial_1/none"])
def test_what_is_no_folder_is_not_locked(tmp_path, name):
    (tmp_path / "trial_1").touch()
    assert supervision.is_locked(tmp_path / name) is False


# Processes that are stopped while a clock stands still

BUSY = """
import os, threading
def spin():
    while True:
        sum(range(1000))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # it cuts itself off
        spin()
    os._exit(0)
print("ready", flush=True)
threading.Thread(target=spin).start()
spin()
"""
ADOPTING = """
import os, subprocess, sys, time
import psutil
from algoperf.machine import claims, supervision

supervision.adopt_orphans()
child = subprocess.Popen([sys.executable, "-c", {busy!r}], stdout=subprocess.PIPE)
child.stdout.readline()
while len(supervision.descendants(os.getpid())) < 2 or len(psutil.Process().children()) < 2:
    time.sleep(0.01)

def worked_s():
    return [sum(psutil.Process(each).cpu_times()[:2]) for each in sorted(pids)]

pids = [pid for pid in supervision.descendants(os.getpid())
        if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
pause = supervision.Pause(lambda: supervision.descendants(os.getpid()))
pause.begin()
time.sleep(0.05)
before = worked_s()
time.sleep(0.4)
print(len(pids), worked_s() == before)
pause.end()
while not all(now > then for now, then in zip(worked_s(), before)):
    time.sleep(0.01)
supervision.kill(supervision.descendants(os.getpid()))
print("went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")
def test_a_pause_stops_threads_and_children_and_those_that_cut_themselves_off():
    source = ADOPTING.format(busy=BUSY)
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "2 True\nwent on\n"

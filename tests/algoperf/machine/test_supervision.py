"""What a trial's starter does: stop, end what hangs, lock, and say what a process died of."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from algoperf.errors import UserError
from algoperf.machine import supervision
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


@pytest.mark.parametrize(
    ("device", "lock", "held"),
    [
        ((8, 17), "FLOCK  ADVISORY  WRITE 7 08:11:5 0 EOF", True),
        ((8, 17), "POSIX  ADVISORY  WRITE 7 08:11:5 0 EOF", False),
        ((8, 17), "FLOCK  ADVISORY  WRITE 7 08:11:15 0 EOF", False),
        ((8, 17), "FLOCK  ADVISORY  WRITE 7 08:11:51 0 EOF", False),
        ((8, 17), "FLOCK  ADVISORY  WRITE 7 fe:00:5 0 EOF", False),
        ((0, 40), "FLOCK  ADVISORY  WRITE 7 00:1b:5 0 EOF", True),  # as btrfs has it
    ],
)
def test_locks_as_the_system_lists_them(tmp_path, monkeypatch, device, lock, held):
    listed = tmp_path / "locks"
    listed.write_text(f"1: POSIX  ADVISORY  READ 9 fe:00:7 128 128\n2: {lock}\n")
    monkeypatch.setattr(supervision, "LOCKS", listed)
    status = SimpleNamespace(st_dev=os.makedev(*device), st_ino=5)
    assert supervision.is_locked(SimpleNamespace(stat=lambda: status)) is held
    listed.unlink()
    assert not supervision.is_locked(SimpleNamespace(stat=lambda: status))


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

"""The server that forks trainers leaves nothing behind, and takes nothing of its referee along."""

import json
import os
import subprocess
import sys
import time

import pytest

NEW = """
multiprocessing.get_context("forkserver").set_forkserver_preload(["algoperf.machine.fork_server"])
forkserver.ensure_running()
"""
FORKED = """
from algoperf.machine import fork_server
fork_server.start([], [])
"""
REFEREE = """
import multiprocessing, os
from multiprocessing import forkserver, util
{start}
open(os.path.join(util.get_temp_dir(), "more"), "w").close()
print(sorted(os.listdir(os.environ["TMPDIR"])), flush=True)
os._exit(0)
"""
# What a process that the server forks has: its files, its handlers of signals, and a lock of its
# own, so that it can start another server.
TRAINER = """
import json, multiprocessing, os, signal, sys
from pathlib import Path

def targets():
    named = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            named[path.name] = os.readlink(path)
        except OSError:
            pass
    return named

def leave(code):
    os._exit(code)

def serve(path):
    inner = multiprocessing.get_context("forkserver").Process(target=leave, args=(7,))
    inner.start()
    inner.join()
    asked = (signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(each) == signal.SIG_DFL for each in asked]
    seen = {"files": targets(), "handlers": handlers, "inner": inner.exitcode}
    seen["group"] = [os.getpgid(os.getppid()), os.getppid()]
    seen["modules"] = [name in sys.modules for name in ("wave", "colorsys")]
    Path(path).write_text(json.dumps(seen))
"""
STARTER = """
import os, signal, sys
from algoperf.machine import fork_server, stopping
import trainer

if __name__ == "__main__":
    events, _ = os.pipe()
    shown = os.readlink(f"/proc/self/fd/{events}")
    with stopping.Stops(stopping.leave_at_once):
        fork_server.start(["wave"], ["wave", "colorsys"])
        assert "colorsys" not in sys.modules
        import multiprocessing
        process = multiprocessing.get_context("forkserver").Process(
            target=trainer.serve, args=(sys.argv[1],)
        )
        process.start()
        process.join()
    assert process.exitcode == 0
    print(shown, os.readlink("/proc/self/fd/1"), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("start", [NEW, FORKED], ids=["new", "forked"])
def test_it_leaves_no_folder(tmp_path, start):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, "-c", REFEREE.replace("{start}", start)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert shown.stdout.startswith("['pymp-")
    for _ in range(200):  # The server sees that its referee has ended, and ends as well.
        if not list(tmp_path.iterdir()):
            break
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
def test_a_forked_server_takes_nothing_along(tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "starter.py").write_text(STARTER)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "starter.py"), str(tmp_path / "seen.json")],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    pipes = ran.stdout.split()
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert not set(pipes) & set(seen["files"].values())
    assert seen["files"]["0"] == "/dev/null"
    assert seen["handlers"] == [True, True]
    assert seen["inner"] == 7
    assert seen["group"][0] == seen["group"][1]
    assert seen["modules"] == [True, True]

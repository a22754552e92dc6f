"""A signal to a check ends its child process; nothing of a check is to be saved."""

import os
import signal
import sys
import threading
import time

import pytest

from algoperf.experiments.check import processes
from algoperf.machine import stopping


def test_the_child_does_not_outlive_the_check(tmp_path, monkeypatch):
    code = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1] + '.pid').write_text("
    code += "str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(
        processes.own_code, "program", lambda *_: [sys.executable, "-S", "-c", code]
    )
    pid = tmp_path / "0-jax.json.pid"

    def stop():
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    verdicts = []
    with pytest.raises(stopping.StoppedError):
        processes.run([{"framework": "jax"}], tmp_path, verdicts.append, expected=lambda _: [])
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not verdicts
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

"""A fork server leaves nothing behind, however those that it works for have ended."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from algoperf.machine import fork_server, supervision

# A referee, and a trainer that has started a process, one that has cut itself off as well, and that
# is stopped as the referee stops it.
PROGRAM = """
import multiprocessing, os, signal, sys, time
from algoperf.machine import supervision


def stay(folder, name):
    (folder / name).write_text(str(os.getpid()))
    time.sleep(600)


def train(folder):
    from algoperf.trial import trainer

    trainer._die_with_referee()
    if os.fork() == 0:
        stay(folder, "child")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            stay(folder, "cut_off")
        os._exit(0)
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.1)  # It ends on its own, as the child of who has adopted it.
        os._exit(0)
    time.sleep(0.3)
    (folder / "trainer").write_text(str(os.getpid()))
    if {stops}:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


if __name__ == "__main__":
    import pathlib
    supervision.adopt_orphans()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload({preloaded})
    context.Process(target=train, args=(pathlib.Path(__file__).parent,)).start()
    time.sleep(600)
"""


def wait_until(condition):
    end_s = time.perf_counter() + 30
    while not condition():
        assert time.perf_counter() < end_s
        time.sleep(0.01)


def is_alive(process_id):
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own ways")
@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("kills_trainer", [True, False])
def test_nothing_outlives_a_killed_referee(tmp_path, stops, kills_trainer):
    program = PROGRAM.format(stops=stops, preloaded=[fork_server.__name__])
    (tmp_path / "program.py").write_text(program)
    referee = subprocess.Popen([sys.executable, tmp_path / "program.py"], stderr=subprocess.PIPE)
    files = [tmp_path / name for name in ("child", "cut_off", "trainer")]
    wait_until(lambda: all(file.is_file() and file.read_text() for file in files))
    others = [each.pid for each in psutil.Process(referee.pid).children(recursive=True)]
    process_ids = {int(file.read_text()) for file in files}
    assert process_ids <= set(others)
    if kills_trainer:
        os.kill(int((tmp_path / "trainer").read_text()), 9)
    referee.kill()
    try:
        wait_until(lambda: not any(is_alive(each) for each in others))
    finally:
        supervision.kill([each for each in others if is_alive(each)])
    assert referee.communicate() == (None, b"")


def test_it_does_nothing_elsewhere():
    before = os.getpgid(0)
    assert not fork_server.is_here()
    code = "import os; from algoperf.machine import fork_server, supervision; print(os.getpgid(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(done.stdout) == before

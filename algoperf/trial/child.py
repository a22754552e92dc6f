"""What each process does first that a referee starts: it ends with its referee, however that ends,
and nothing that it prints is an event.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any

from algoperf import backends
from algoperf.machine import processor_time, supervision, terminal
from algoperf.machine.supervision import ORPHANED

OURS = ("algoperf.trial.trainer", "algoperf.trial.evaluators")


def modules(framework: str) -> tuple[str, ...]:
    """Return the names of the modules that such a process needs before it has a plan."""
    return (*OURS, *backends.modules_of(framework))


def die_with_referee() -> None:
    """End this process when its referee ends, and be one of that one's group."""
    supervision.die_with_starter()
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    with contextlib.suppress(OSError):  # It has ended already.
        os.setpgid(0, os.getpgid(parent.pid))  # The server that forked this one has its own group.
    _forget_server()

    def wait_for_end() -> None:
        wait([parent.sentinel])
        os._exit(ORPHANED)

    thread = threading.Thread(target=wait_for_end, daemon=True, name="referee watch")
    processor_time.own_threads.add(thread)
    thread.start()


def redirect_output() -> None:
    """Have what is printed go where errors go, whether or not anybody reads it."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    terminal.outlive(output=terminal.UNREAD, errors=terminal.UNREAD)


def leave(code: int) -> None:
    """End this process now: nothing that was left running, or to be done at the end, keeps it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _forget_server() -> None:
    """Close this process's share in the server that forked it: that ends with its referee, and not
    with the last of the processes that a submission has started.
    """
    server: Any = forkserver
    if server._forkserver._forkserver_alive_fd is not None:
        os.close(server._forkserver._forkserver_alive_fd)
        server._forkserver._forkserver_alive_fd = None

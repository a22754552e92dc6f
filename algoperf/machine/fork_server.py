"""What the server that forks trainers is for beside forking: it outlives its referee by a moment,
and leaves nothing behind.

The referee may be killed while the trainer is stopped, together with the starter, or just after the
trainer, whose own processes would then be nobody's. The server of `multiprocessing` takes no code
but the modules that it preloads, so this one does something when it is imported, there alone.

The server of `multiprocessing` is a new Python, which imports all that its referee has imported.
`start` has a referee forked instead, before it knows anything that a trainer must not know.
"""

import atexit
import contextlib
import importlib
import os
import shutil
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any

from algoperf.machine import stopping, supervision


def is_here() -> bool:
    """Return whether this process was started as the server of `multiprocessing`."""
    return any("multiprocessing.forkserver" in word for word in sys.orig_argv)


def _listener_folders() -> Iterator[Path]:
    """Yield the folder of `multiprocessing` in which the server's socket is, where the system shows
    the open files of a process.
    """
    with contextlib.suppress(OSError):
        for descriptor in Path("/proc/self/fd").iterdir():
            number = int(descriptor.name)
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as own:
                address = own.getsockname() if own.family == socket.AF_UNIX else b""
                is_listener = own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if is_listener and isinstance(address, str) and address.startswith("/"):
                    yield Path(address).parent


def attend() -> Callable[[], None]:
    """Make this process one that ends after its referee.

    Returns:
        What it has to call at its end, which ends it with all that comes of it.
    """
    # Whoever kills the referee's group must leave this process the time to tidy up.
    os.setpgid(0, 0)
    supervision.adopt_orphans()
    # Those whom it adopts end, too, which is news to it.
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
    process_id = os.getpid()
    # The referee has made it, and ends in ways in which nobody removes it.
    folders = list(_listener_folders())

    def tidy_up() -> None:
        if os.getpid() == process_id:
            supervision.end_descendants(process_id)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)  # A framework's own end may take long, and has nothing to save.

    return tidy_up


def start(shared: Sequence[str], preloaded: Sequence[str]) -> None:
    """Start the server of `multiprocessing` as a fork of this process.

    It saves the time and the memory of a second Python that imports the same. This process must
    have no threads of its own yet, and nothing in its memory that a trainer must not read.

    Args:
        shared: The modules that both need, which are imported first.
        preloaded: All modules that the server needs; it imports the others itself.
    """
    for name in shared:
        importlib.import_module(name)
    forkserver.set_forkserver_preload(list(preloaded))
    resource_tracker.ensure_running()
    starting: Any = util
    program = starting.spawnv_passfds
    starting.spawnv_passfds = _fork
    try:
        forkserver.ensure_running()
    finally:
        starting.spawnv_passfds = program


def _fork(_: str, words: Sequence[str], descriptors: Sequence[int]) -> int:
    """Do what `multiprocessing` would have a new Python do (`words`, whose last is its program) in
    a fork that has these descriptors. Return the fork's process.
    """
    process_id = os.fork()
    if process_id:
        return process_id
    tidy_up = None
    try:
        _forget(descriptors)
        tidy_up = attend()
        exec(words[-1], {})
    except SystemExit:
        pass  # Its clients have ended.
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        if tidy_up is not None:
            tidy_up()
        os._exit(1)
    return 0


def _forget(descriptors: Sequence[int]) -> None:
    """Forget what only the process knows that was forked: its files, but for some, its handlers of
    signals, its server of forks and its tracker of resources.
    """
    for number in stopping.SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Its events are for the starter.
    kept = {0, 1, 2, *descriptors}
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # The one by which they were listed is closed.
                os.close(descriptor)
    server: Any = forkserver
    server._forkserver.__init__()  # What was forked holds its lock.
    tracker: Any = resource_tracker
    tracker._resource_tracker.__init__()


if is_here():
    atexit.register(attend())

"""What the server that forks trainers is for beside forking: it outlives its referee by a moment,
and leaves nothing behind.

The referee may be killed while the trainer is stopped, together with the starter, or just after the
trainer, whose own processes would then be nobody's. The server of `multiprocessing` takes no code
but the modules that it preloads, so this one does something when it is imported, there alone.
"""

import atexit
import contextlib
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from algoperf.machine import supervision


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


def attend() -> None:
    """End all that comes of this process once it ends, which it does after its referee."""
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

    atexit.register(tidy_up)


if is_here():
    attend()

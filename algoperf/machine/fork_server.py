"""What the server that forks trainers is for beside forking: it outlives its referee by a moment,
and leaves nothing behind.

The referee may be killed while the trainer is stopped, together with the starter, or just after the
trainer, whose own processes would then be nobody's. The server of `multiprocessing` takes no code
but the modules that it preloads, so this one does something when it is imported, there alone.
"""

import atexit
import os
import sys
import warnings

from algoperf.machine import supervision


def is_here() -> bool:
    """Return whether this process was started as the server of `multiprocessing`."""
    return any("multiprocessing.forkserver" in word for word in sys.orig_argv)


def attend() -> None:
    """End all that comes of this process once it ends, which it does after its referee."""
    # Whoever kills the referee's group must leave this process the time to tidy up.
    os.setpgid(0, 0)
    supervision.adopt_orphans()
    # Those whom it adopts end, too, which is news to it.
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
    process_id = os.getpid()

    def tidy_up() -> None:
        if os.getpid() == process_id:
            supervision.end_descendants(process_id)
            os._exit(0)  # A framework's own end may take long, and has nothing to save.

    atexit.register(tidy_up)


if is_here():
    attend()

"""Named places at which a test can have the process killed: where a crash could tear something."""

import os
import signal

VARIABLE = "ALGOPERF_KILL_AT"  # 'name' or 'name#3' for the third time
_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Note that the process is there; it dies if it was asked to."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    _reached[name] = _reached.get(name, 0) + 1
    wanted, _, time = asked.partition("#")
    if wanted == name and int(time or 1) == _reached[name]:
        os.kill(os.getpid(), signal.SIGKILL)

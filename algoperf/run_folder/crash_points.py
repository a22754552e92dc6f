"""Named points at which a test can have the process killed.

They mark the moments at which a crash could leave a file half written.
"""

import os
import signal

VARIABLE = "ALGOPERF_KILL_AT"  # 'name' or 'name#3' for the third time
_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Record that the process has reached a named point, and kill it there if a test asks for that.

    The environment variable `ALGOPERF_KILL_AT` asks for it: 'name' means the first time that the
    point is reached, 'name#3' the third.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    _reached[name] = _reached.get(name, 0) + 1
    wanted, _, time = asked.partition("#")
    if wanted == name and int(time or 1) == _reached[name]:
        os.kill(os.getpid(), signal.SIGKILL)

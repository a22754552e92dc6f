"""Named points at which a test can have the process killed, or held until it has sent a signal.

They mark the moments at which a crash could leave a file half written, and those between which a
signal could get lost.
"""

import os
import signal
import time
from pathlib import Path

VARIABLE = "ALGOPERF_KILL_AT"  # 'name' or 'name#3' for the third time
HOLD = "ALGOPERF_HOLD_AT"  # The same.
HOLD_FILE = "ALGOPERF_HOLD_FILE"  # Written at that point, which is left once the file is removed.
LONGEST_HOLD_S = 60.0
_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Record that the process has reached a named point, and stop it there if a test asks for that.

    The environment variable `ALGOPERF_KILL_AT` asks for its death: 'name' means the first time that
    the point is reached, 'name#3' the third. `ALGOPERF_HOLD_AT` asks it to wait there.
    """
    kill_at, hold_at = os.environ.get(VARIABLE), os.environ.get(HOLD)
    if kill_at is None and hold_at is None:
        return
    _reached[name] = _reached.get(name, 0) + 1
    if _is_now(kill_at, name):
        os.kill(os.getpid(), signal.SIGKILL)
    if _is_now(hold_at, name):
        _hold(Path(os.environ[HOLD_FILE]))


def _is_now(asked: str | None, name: str) -> bool:
    wanted, _, count = (asked or "").partition("#")
    return wanted == name and int(count or 1) == _reached[name]


def _hold(file: Path) -> None:
    file.write_text(str(os.getpid()))
    ends_at_s = time.monotonic() + LONGEST_HOLD_S
    while file.exists() and time.monotonic() < ends_at_s:
        time.sleep(0.002)

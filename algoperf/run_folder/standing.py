"""How a trial stands, by its run folder alone: waiting, running, interrupted or ended."""

import enum
from pathlib import Path

from algoperf.machine import supervision
from algoperf.run_folder import run_log


class Standing(enum.StrEnum):
    """How a trial stands."""

    WAITING = "waiting"  # Nothing was written of it yet, and no process works on it.
    RUNNING = "running"  # A process works on it just now.
    INTERRUPTED = "interrupted"  # None does, and the same command goes on with it.
    ENDED = "ended"  # It has a result, of whatever status.


def standing(folder: Path) -> Standing:
    """Return how the trial of a run folder stands.

    The process that works on a trial holds the lock of its folder, which the system releases
    however that process ends. It is seen on the same machine alone, unless the file system shares
    its locks.

    Args:
        folder: The trial's run folder, which need not exist.
    """
    if run_log.read_result(folder) is not None:
        return Standing.ENDED
    if supervision.is_locked(folder):
        return Standing.RUNNING
    if run_log.read_result(folder) is not None:  # It ended between the two looks.
        return Standing.ENDED
    has_begun = folder.is_dir() and any(folder.iterdir())
    return Standing.INTERRUPTED if has_begun else Standing.WAITING

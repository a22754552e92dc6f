"""Supervise the process of a trial, from the process that started it.

The starter ends it where it hangs, keeps other processes from working in its folder, and says why
it died. How it is stopped gently is in `stopping`.
"""

import contextlib
import ctypes
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from algoperf.errors import UserError
from algoperf.machine import claims

ORPHANED = 113  # The exit code of a process whose starter, or whose referee, has ended.
INTERRUPTED = 75  # The exit code of a process that was asked to stop and has saved its trial.
SET_UP_LIMIT_S = 3600.0  # The most wall time that a trial may take to start.
# The budget excludes evaluations, logs and checkpoints. A trial that exceeds these hangs.
FACTOR, ALLOWANCE_S = 5.0, 900.0
OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KILLED_FOR = {
    True: "; the system ran out of memory (OOM kill)",
    False: "; not for want of memory, by the kernel's count",
    None: "; often the system's answer to memory that ran out",
}
TRIAL = "the trial's process"
POLL_S = 0.2  # The time between two checks whether a silent process has ended.
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
BUSY = "another process works on this trial"


class InterruptedRunError(Exception):
    """The run was asked to stop: its trial is saved, and the same command continues it."""


class Watchdog:
    """Ends a trial's process once it has taken more wall time than it can need.

    The set-up may take `SET_UP_LIMIT_S`, until `limit` is called.

    Args:
        end: Called to end the process.

    Attributes:
        cause: Why the watchdog ended the process, or why the process says that it ends without a
            result; else None.
        traceback: The traceback of the error that the process says; else empty.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self.cause: str | None = None
        self.traceback = ""
        self._end = end
        self._timer: threading.Timer | None = None
        self._start(SET_UP_LIMIT_S, "set-up")

    def limit(self, budget_s: float | None) -> None:
        """Start to watch the training, whose set-up is complete.

        It may take `FACTOR` times its budget plus `ALLOWANCE_S` of wall time.

        Args:
            budget_s: The budget in seconds of submission time; None or infinity (a trial that is
                limited in steps) sets no limit.
        """
        self.stop()
        if budget_s is not None and math.isfinite(budget_s):
            self._start(FACTOR * budget_s + ALLOWANCE_S, f"a budget of {budget_s:g} s")

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, limit_s: float, what: str) -> None:
        def expire() -> None:
            self.cause = f"time-out: no end {limit_s:g} s of wall time after the start, for {what}"
            self._end()

        self._timer = threading.Timer(limit_s, expire)
        self._timer.daemon = True
        self._timer.start()


def lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """Yield what a process writes to standard output, line by line, until it ends.

    It does not wait for the end of the pipe, which a process that the trial forked may keep open.
    """
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            # It is asked before the pipe is: a process that has ended has written everything.
            has_ended = process.poll() is not None
            if selector.select(0 if has_ended else POLL_S):
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    return
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            elif has_ended:
                return


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and the rest of the process group that it leads.

    Processes that a submission forked or started must not outlive its trial.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def descendants(process_id: int) -> list[int]:
    """Return the processes that a process started, with those that these started.

    A process that ends meanwhile may or may not be among them.
    """
    children = _children(process_id)
    return [*children, *(each for child in children for each in descendants(child))]


def _children(process_id: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process_id}/task").iterdir())
        listed = [(task / "children").read_text().split() for task in tasks]
    except OSError:  # It has ended, or the system does not tell in this way.
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(process_id).children()]
        return []
    return [int(child) for children in listed for child in children]


def adopt_orphans() -> None:
    """Have the processes whose starter ends become this process's own (Linux), so that whoever
    cuts itself off from a trial stays among this process's `descendants`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def refuse_to_be_read() -> None:
    """Keep other processes of the same user from reading and writing this one's memory (Linux).

    Whoever has the rights of the system's administrator still can.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class Pause:
    """Stops processes, and lets them go on.

    Args:
        processes: Returns which processes these are.
        first: One of them that is stopped before the others are looked for.

    Attributes:
        stopped: Those that are stopped now.
    """

    def __init__(self, processes: Callable[[], list[int]], first: int | None = None) -> None:
        self._processes = processes
        self._first = first
        self.stopped: list[int] = []

    def begin(self) -> None:
        """Stop them all, with those that they start meanwhile."""
        if self._first is not None:
            _signal(self._first, signal.SIGSTOP)
        while True:
            others = [each for each in self._processes() if each not in self.stopped]
            if not others:
                return
            for process_id in others:
                _signal(process_id, signal.SIGSTOP)
            self.stopped += others

    def end(self) -> None:
        """Let those that were stopped go on."""
        for process_id in self.stopped:
            _signal(process_id, signal.SIGCONT)
        self.stopped.clear()


def kill(processes: list[int]) -> None:
    """Kill processes, whoever's they are; those that have ended are left alone."""
    for process_id in processes:
        _signal(process_id, signal.SIGKILL)


def end_descendants(process_id: int) -> None:
    """Kill all that a process has started, so that none starts another meanwhile."""
    pause = Pause(lambda: descendants(process_id))
    pause.begin()
    kill(pause.stopped)


def _signal(process_id: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process_id, number)


def die_with_starter() -> None:
    """Ask the kernel to kill this process when the one that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a trial while in the block, so that no other process works in it.

    The system releases the lock when the process ends, however it ends; between machines that share
    the folder see `claims`.

    Raises:
        UserError: Another process holds the lock, or the folder cannot be created or opened.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(
            f"run folder {folder} is not writable ({error.strerror}); choose another --out"
        ) from error
    try:
        # A machine does not tell the others of the lock of a folder over NFS, as of a file's.
        if not claims.lock(descriptor):
            raise _busy(folder)
        claimed = claims.claim(folder)
        if isinstance(claimed, str):
            raise _busy(folder, claimed)
        try:
            yield
        finally:
            claimed.release()
    finally:
        os.close(descriptor)
        if is_new:
            _remove_empty(folder)


@contextlib.contextmanager
def locked_all(folders: Sequence[Path]) -> Iterator[bool]:
    """Lock the folders of several trials while in the block, if no other process has one of them.

    Yields:
        Whether they are locked.
    """
    with contextlib.ExitStack() as locks:
        try:
            for folder in folders:
                locks.enter_context(locked(folder))
        except UserError:
            locks.close()
            yield False
            return
        yield True


def _busy(folder: Path, host: str = "") -> UserError:
    where = f" (on {host})" if host else ""
    return UserError(f"{folder}: {BUSY}{where}; wait for it, or use another --out")


def is_locked(folder: Path) -> bool:
    """Return whether a process works on the trial of a folder just now, on any machine.

    Nothing is written. Whoever begins to work at the very moment of this look tries again (see
    `claims.lock`).
    """
    if not os.access(folder, os.R_OK):
        return False
    return claims.is_locked(folder) or claims.holder(folder) is not None


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a trial that wrote nothing, and the empty folders above it."""
    with contextlib.suppress(OSError):
        for each in (folder, *folder.parents[:4]):
            with contextlib.suppress(FileNotFoundError):  # A trial that was refused removed it.
                each.rmdir()


def cause_of_death(code: int, oom_killed: bool | None = None, who: str = TRIAL) -> dict[str, Any]:
    """Return why a process without a result ended.

    Args:
        code: Its exit code, as `subprocess` has it: negative for a signal.
        oom_killed: Whether the kernel killed a process for lack of memory; None where that is not
            known.
        who: Which process it was, in words.

    Returns:
        A dict of 'cause', in words; 'outside', whether the signal came from outside the process;
        and for a SIGKILL 'oom_kill', which is `oom_killed`.
    """
    if code >= 0:
        cause = f"{who} ended with exit code {code} and no result"
        return {"cause": cause, "outside": False}
    number = signal.Signals(-code)
    death: dict[str, Any] = {
        "cause": f"{who} was ended by {number.name}",
        "outside": number in OUTSIDE,
    }
    if number is signal.SIGKILL:
        death["cause"] += KILLED_FOR[oom_killed]
        death["oom_kill"] = oom_killed
    return death

"""What the starter of a trial's process does for it: it stops it gently, ends it where it hangs,
lets nobody else work in its folder, and says what it died of.
"""

import contextlib
import fcntl
import math
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from algoperf.errors import UserError

INTERRUPTED = 75  # the exit code of what was asked to stop, saved its trial and left
SET_UP_LIMIT_S = 3600.0  # wall time until a trial starts
# Evaluation, logs and checkpoints are not in the budget: beyond these it is taken to hang.
FACTOR, ALLOWANCE_S = 5.0, 900.0
OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KILLED_FOR = {
    True: "; the system ran out of memory (OOM kill)",
    False: "; not for want of memory, by the kernel's count",
    None: "; often the system's answer to memory that ran out",
}
POLL_S = 0.2  # how often it is seen whether a process has ended that is silent


class InterruptedRunError(Exception):
    """The run was asked to stop: its trial is saved, and the same command goes on with it."""


class Watchdog:
    """Calls `end` when a trial's process has taken more wall time than it can need."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.cause: str | None = None  # why it ended the process, if it did
        self._end = end
        self._timer: threading.Timer | None = None
        self._start(SET_UP_LIMIT_S, "set-up")

    def limit(self, budget_s: float | None) -> None:
        """The trial has started: it may take `FACTOR` times its budget and `ALLOWANCE_S`; without a
        budget (a limit in steps) as long as it takes.
        """
        self.stop()
        if budget_s is not None and math.isfinite(budget_s):
            self._start(FACTOR * budget_s + ALLOWANCE_S, f"a budget of {budget_s:g} s")

    def stop(self) -> None:
        """Watch no longer."""
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
    """What the process writes, line by line, until it ends; its pipe may stay open for longer, in a
    process that it forked.
    """
    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            has_ended = process.poll() is not None  # before the look: what it wrote is there by now
            if selector.select(0 if has_ended else POLL_S):
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    return
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            elif has_ended:
                return


def end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and what is left of its group, which it leads: what a submission forked or
    started is not to outlive its trial.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def stopping(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """While in the block, SIGTERM and SIGINT ask the trial's process to save and leave; a second
    one ends it at once.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            process.kill()
            raise KeyboardInterrupt
        asked = True
        process.terminate()

    with answering((signal.SIGTERM, signal.SIGINT), ask):
        yield


@contextlib.contextmanager
def answering(
    numbers: Iterable[int], answer: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """While in the block, those signals are answered so. Only the main thread can: in another one
    nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the trial's folder; UserError where another process does. The system lets go of it when
    the process ends, however it does.
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
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(
            f"{folder}: another process works on this trial; wait for it, or use another --out"
        ) from error
    finally:
        os.close(descriptor)
        if is_new:
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Take back the folders of a trial that wrote nothing."""
    with contextlib.suppress(OSError):
        for each in (folder, *folder.parents[:4]):
            each.rmdir()


def cause_of_death(code: int, oom_killed: bool | None = None) -> dict[str, Any]:
    """What ended a process with this exit code: `cause`, in words; `outside`, whether it came from
    there; and of a SIGKILL `oom_kill`, whether the kernel sent it for want of memory (None where
    that is not known).
    """
    if code >= 0:
        cause = f"the trial's process ended with exit code {code} and no result"
        return {"cause": cause, "outside": False}
    number = signal.Signals(-code)
    death: dict[str, Any] = {
        "cause": f"the trial's process was ended by {number.name}",
        "outside": number in OUTSIDE,
    }
    if number is signal.SIGKILL:
        death["cause"] += KILLED_FOR[oom_killed]
        death["oom_kill"] = oom_killed
    return death

"""Signals that ask a process to stop: remembered, passed on, and none of them lost.

A batch system warns with SIGTERM, SIGUSR1 or SIGUSR2, often several times and to every process of
a job; a limit of processor time sends SIGXCPU, a lost terminal SIGHUP, a user's Ctrl-C SIGINT. All
of them mean the same here: save what was measured and leave.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

from algoperf.machine.supervision import INTERRUPTED, InterruptedRunError

SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
GRACE_S = 5.0  # How long after the first signal a Ctrl-C still asks for no more than that one did.


class StoppedError(KeyboardInterrupt):
    """A signal asked this process to stop where nothing was to be saved.

    It is a KeyboardInterrupt so that nothing on the way takes it for an error to recover from.
    """


class Stops:
    """Answers the signals that ask this process to stop, while it is entered as a context.

    The first one is passed on; those that follow it change nothing, but for a Ctrl-C that comes
    `GRACE_S` or more after the first signal: it ends the work at once and raises
    KeyboardInterrupt. One context may be entered inside another, which then knows what this one
    was asked.

    Signals that are ignored stay so (SIGHUP under nohup, SIGINT of what a script starts with '&'),
    and so do the handlers of other languages. In a thread other than the main one Python allows no
    handler, so nothing is answered there.

    Args:
        ask: Called at the first signal.
        end: Called before KeyboardInterrupt is raised; None where a Ctrl-C ends nothing either.

    Attributes:
        asked_at_s: The monotonic time of the first signal; None before it.
        ignores_afterwards: Whether the signals are ignored at the end of the context, which is
            right for a process that is about to exit: its exit code is decided.
    """

    def __init__(
        self, ask: Callable[[], None] = lambda: None, end: Callable[[], None] | None = None
    ) -> None:
        self.asked_at_s: float | None = None
        self.ignores_afterwards = False
        self.ask, self.end = ask, end
        self._before: dict[signal.Signals, Any] = {}
        self._outer: Stops | None = None
        self._process_id = os.getpid()

    @property
    def are_asked(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.asked_at_s is not None

    def remember(self) -> bool:
        """Note that this process was asked to stop.

        Returns:
            Whether this is the first time.
        """
        if self.asked_at_s is not None:
            return False
        # An attribute needs no lock, in which a second signal's handler could find the first one's.
        self.asked_at_s = time.monotonic()
        if self._outer is not None:
            self._outer.remember()
        return True

    def check(self, work: object) -> None:
        """Raise InterruptedRunError for some work if a signal has asked to stop."""
        if self.are_asked:
            raise InterruptedRunError(str(work))

    def __enter__(self) -> Self:
        """Begin to answer the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before in (None, signal.SIG_IGN):
                    continue
                owner = getattr(before, "__self__", None)
                if isinstance(owner, Stops):
                    self._outer = owner
                self._before[number] = before
                signal.signal(number, self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the handlers back that were there before."""
        try:
            self._put_back()
        finally:  # The handler of a signal that comes just now may raise.
            self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.ignores_afterwards else handler)
        self._before.clear()

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process_id:  # A fork of this process answers for itself alone.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.remember():
            self.ask()
        elif number == signal.SIGINT and self.end is not None and self._age_s() >= GRACE_S:
            self.end()
            raise KeyboardInterrupt

    def _age_s(self) -> float:
        return 0.0 if self.asked_at_s is None else time.monotonic() - self.asked_at_s


def leave_at_once() -> None:
    """Leave in the middle of the set-up: all that is to be saved was saved before it."""
    os._exit(INTERRUPTED)


def leaving() -> Stops:
    """Return `Stops` for work of which nothing is to be saved: the first signal ends it.

    What the signal raises is StoppedError, wherever the main thread is.
    """

    def leave() -> None:
        raise StoppedError

    return Stops(leave, end=lambda: None)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold the signals back in this thread, and in the processes that it starts in the block.

    Such a process is not ended by a signal while Python loads. It has to call `let_through` once it
    can answer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Let those signals through that the process which started this one held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def has_stopped(code: int, was_asked: bool) -> bool:
    """Return whether a process without a result was stopped, rather than failed.

    Args:
        code: Its exit code, as `subprocess` has it: negative for a signal.
        was_asked: Whether it was asked to stop.
    """
    if code == INTERRUPTED or -code in SIGNALS:
        return True
    # It was too slow for who asked, or answered in its own way.
    return was_asked and (code == -signal.SIGKILL or code - 128 in SIGNALS)

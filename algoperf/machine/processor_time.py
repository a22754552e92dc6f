"""Processor time of the Python threads and the processes that this process started, those that have
ended included.
"""

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import Any

import psutil

PROCESS = "a process that it started"
own_threads: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()  # that we start late
_lock = threading.Lock()
_running: set[threading.Thread] = set()  # of those that started since `watch`
_ended_s: dict[str, float] = {}  # by name


def watch() -> None:
    """From now on keep what threads have used when they end; the second time it does nothing.

    `threading` tells nobody that a thread ends, so the method that runs every thread is wrapped.
    """
    thread_class: Any = threading.Thread
    run_thread = thread_class._bootstrap_inner
    if getattr(run_thread, "is_watched", False):
        return

    def watched(thread: threading.Thread) -> None:
        with _lock:
            _running.add(thread)
        try:
            run_thread(thread)
        finally:
            with _lock:
                _running.discard(thread)
                if thread not in own_threads:
                    _add(_ended_s, thread, time.thread_time())

    watched.is_watched = True  # type: ignore[attr-defined]
    thread_class._bootstrap_inner = watched


def by_name(known: Collection[threading.Thread]) -> dict[str, float]:
    """Seconds so far, by what used them: each thread that is neither ours nor `known`, by its name,
    and all processes together. It never falls where a name stays.
    """
    with _lock:  # no thread ends meanwhile, to be counted twice or not at all
        spent = dict(_ended_s)
        for thread in {*threading.enumerate(), *_running}:
            if thread not in known and thread not in own_threads:
                _add(spent, thread, _thread_s(thread.native_id or 0))
    spent_s = _processes_s()
    return {**spent, PROCESS: spent_s} if spent_s else spent


def total_s() -> float:
    """Seconds so far of this process, all its threads, and of all its children and theirs."""
    return sum(os.times()[:2]) + _processes_s()


def waited_for_s() -> float:
    """Seconds of the children that ended and were waited for, and of those that they waited for."""
    return sum(os.times()[2:4])


def _add(spent: dict[str, float], thread: threading.Thread, seconds: float) -> None:
    name = f"thread {thread.name!r}"
    spent[name] = spent.get(name, 0.0) + seconds


def _processes_s() -> float:
    """Seconds of all children and theirs, whether they run, have ended, or were waited for."""
    while True:
        waited_for = os.times()[2:4]
        spent_s = sum(waited_for)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                spent_s += times.user + times.system
                spent_s += times.children_user + times.children_system
        if os.times()[2:4] == waited_for:  # else one went from the second to the first meanwhile
            return spent_s


def _thread_s(native_id: int) -> float:
    """Processor time in seconds of a thread of this process; 0 of one that has ended.

    Linux gives it in nanoseconds; elsewhere, and where psutil has it, in ticks of some 10 ms.
    """
    try:
        return int(Path(f"/proc/self/task/{native_id}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    with contextlib.suppress(psutil.Error):
        for thread in psutil.Process().threads():
            if thread.id == native_id:
                return float(thread.user_time + thread.system_time)
    return 0.0

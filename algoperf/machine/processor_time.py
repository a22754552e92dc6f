"""Measure the processor time of Python threads and of the processes that this process started.

Threads and processes that have ended are included.
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
# The threads that this library starts during a trial.
own_threads: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
_lock = threading.Lock()
_running: set[threading.Thread] = set()  # The threads that started after `watch`.
_ended_s: dict[str, float] = {}  # Processor time of ended threads by name.


def watch() -> None:
    """Start to record the processor time of each thread when it ends.

    A second call does nothing. `threading` has no hook for the end of a thread, so the method that
    runs every thread is wrapped.
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
    """Return the processor time so far in seconds, by what used it.

    The names are those of the threads, and `PROCESS` for all child processes together. As long as a
    name stays, its time never falls.

    Args:
        known: Threads that are left out, in addition to the library's own.
    """
    with _lock:  # A thread that ended meanwhile would be counted twice or not at all.
        spent = dict(_ended_s)
        for thread in {*threading.enumerate(), *_running}:
            if thread not in known and thread not in own_threads:
                _add(spent, thread, _thread_s(thread.native_id or 0))
    spent_s = _processes_s()
    return {**spent, PROCESS: spent_s} if spent_s else spent


def total_s() -> float:
    """Return the processor time so far, in seconds, of this process and all its descendants.

    All its threads are included.
    """
    return sum(os.times()[:2]) + _processes_s()


def busy_s() -> float | None:
    """Return the seconds that the cores which this process may use have worked so far.

    All processes count, and on a virtual machine the time that its host took away.

    Returns:
        The sum over these cores; None where the system does not tell.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        cores = psutil.cpu_times(percpu=True)
        return sum(_core_busy_s(cores[number]) for number in os.sched_getaffinity(0))
    except (OSError, IndexError, psutil.Error):
        return None


def schedstat_ns(task: Path) -> tuple[int, int] | None:
    """Return how long a thread has run and has waited for a core, in nanoseconds.

    Args:
        task: The folder in which Linux describes the thread.

    Returns:
        None where the thread has ended, or the system does not tell.
    """
    try:
        run_ns, delay_ns, *_ = map(int, (task / "schedstat").read_text().split())
    except (OSError, ValueError):
        return None
    return run_ns, delay_ns


def _core_busy_s(times: Any) -> float:
    named = times._asdict()
    resting = ("idle", "iowait", "guest", "guest_nice")  # A guest's time is in 'user', too.
    return float(sum(value for name, value in named.items() if name not in resting))


def of_process_s(process_id: int) -> float:
    """Return the processor time so far, in seconds, of another process and of those children that
    it has waited for; 0 if it has ended.
    """
    with contextlib.suppress(psutil.Error):
        return float(sum(psutil.Process(process_id).cpu_times()[:4]))
    return 0.0


def waited_for_s() -> float:
    """Return the processor time, in seconds, of the child processes that ended and were waited for.

    It includes the processes for which those waited in turn.
    """
    return sum(os.times()[2:4])


def _add(spent: dict[str, float], thread: threading.Thread, seconds: float) -> None:
    name = f"thread {thread.name!r}"
    spent[name] = spent.get(name, 0.0) + seconds


def _processes_s() -> float:
    """Return the processor time in seconds of all descendants, running, ended or waited for."""
    while True:
        waited_for = os.times()[2:4]
        spent_s = sum(waited_for)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                spent_s += times.user + times.system
                spent_s += times.children_user + times.children_system
        # If they differ, a child was waited for meanwhile, and could be counted twice.
        if os.times()[2:4] == waited_for:
            return spent_s


def _thread_s(native_id: int) -> float:
    """Return the processor time in seconds of a thread of this process; 0 if it has ended.

    Linux gives it in nanoseconds. On other systems psutil gives it in ticks of about 10 ms.
    """
    counted = schedstat_ns(Path(f"/proc/self/task/{native_id}"))
    if counted is not None:
        return counted[0] / 1e9
    with contextlib.suppress(psutil.Error):
        for thread in psutil.Process().threads():
            if thread.id == native_id:
                return float(thread.user_time + thread.system_time)
    return 0.0

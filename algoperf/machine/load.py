"""Measure what other work on the machine adds to a trial's clock.

A clock counts seconds, whoever used the cores meanwhile. So for each stretch in which it runs this
also counts the trial's processor time, how long its threads waited for a core, and how long it was
stopped. All is read before the clock starts and after it has stopped, never on it.
"""

import contextlib
import functools
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from algoperf.machine import processor_time, resources

Count = float | None
Counts = dict[str, Count]
CONTENDED_SHARE = 0.05  # Of the clock: what may be lost to others before the time is no longer its.
LEAST_LOST_S = 0.05  # The system counts other processes' work in ticks of 10 ms.
PERIOD_S = 0.1  # Between two beats of the thread that notices when the process was stopped.
LATE_S = 0.25  # By how much a beat is late before that is taken for a stop.
# A thread that waits for Python's lock wakes every 5 ms, 50 times in `LATE_S`; a stopped one never.
STOPPED_SWITCHES = 10
# What is counted while the clock runs, with where it is from.
SOURCES: Mapping[str, str] = {
    "clock_s": "the submission's clock, as far as what follows was counted",
    "cpu_s": "processor time of the trial's process, all its threads, by the system",
    "waited_s": "time that its threads could run and had no core, by the run delay in schedstat",
    "other_cpu_s": "busy time of the cores that it may use, less its own and its children's",
    "involuntary_switches": "how often a thread of it was put off its core, by the system",
    "pressure_s": "time in which any process of the machine waited for a core, /proc/pressure/cpu",
    "stopped_s": "lateness of a thread that beats, in which it neither waited nor was switched",
}
NOT_COUNTED = "not counted: the system does not tell"
_PRESSURE = Path("/proc/pressure/cpu")
_INVOLUNTARY = "nonvoluntary_ctxt_switches"
_TASKS, _THIS_THREAD = Path("/proc/self/task"), Path("/proc/thread-self")


class WaitingTime:
    """How long the threads of this process have waited for a core, ended threads included.

    Args:
        tasks: The folder in which the system describes each thread.
    """

    def __init__(self, tasks: Path = _TASKS) -> None:
        self._tasks = tasks
        self._latest_ns: dict[str, int] = {}
        self._ended_ns = 0

    def total_s(self) -> Count:
        """Return the seconds so far, summed over threads; None where the system does not tell.

        Of a thread that has ended, what it waited after the last call is not known.
        """
        now_ns: dict[str, int] = {}
        has_run = False
        for task in _listed(self._tasks):
            counted = processor_time.schedstat_ns(task)
            if counted is not None:  # Else it has ended meanwhile.
                run_ns, now_ns[task.name] = counted
                has_run = has_run or run_ns > 0
        if not has_run:  # A kernel that does not count writes zeros.
            return None
        # A number whose time has fallen is a new thread's.
        self._ended_ns += sum(
            ns for name, ns in self._latest_ns.items() if now_ns.get(name, -1) < ns
        )
        self._latest_ns = now_ns
        return (self._ended_ns + sum(now_ns.values())) / 1e9


class Heartbeat:
    """A thread that notices, by its own lateness, for how long the process was stopped.

    A signal (SIGSTOP), a frozen container and a paused virtual machine stop all threads, and no
    clock of the system leaves that time out. A beat may also be late since its thread waited for a
    core, which the system counts, or for Python's lock, for which it wakes every few milliseconds.
    What is left was a stop.

    Args:
        is_stopped: Returns whether another process, which this one watches, is stopped now: the
            time until the next beat then counts as well.
    """

    def __init__(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self._is_stopped = is_stopped
        self._total_s = 0.0
        self._end = threading.Event()
        self._beat = threading.Event()
        self._beat_at_s = time.perf_counter()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._end.clear()
        self._beat_at_s = time.perf_counter()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")
        processor_time.own_threads.add(self._thread)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._end.set()

    def total_s(self) -> Count:
        """Return the seconds so far in which the process was stopped; None without the thread."""
        if self._thread is None or not self._thread.is_alive():
            return None
        if time.perf_counter() - self._beat_at_s > PERIOD_S + LATE_S:
            # It has just been continued, and the beat that says so is still to come.
            self._beat.clear()
            self._beat.wait(2 * LATE_S)
        return self._total_s

    def _run(self) -> None:
        before = _of_this_thread()
        while not self._end.wait(PERIOD_S):
            now, now_s = _of_this_thread(), time.perf_counter()
            late_s = now_s - self._beat_at_s - PERIOD_S
            if self._is_stopped():
                self._total_s += now_s - self._beat_at_s
            else:
                self._total_s += stopped_s(late_s, now[0] - before[0], now[1] - before[1])
            self._beat_at_s, before = now_s, now
            self._beat.set()


def stopped_s(late_s: float, switches: int, delay_s: float) -> float:
    """Return how long a thread was stopped that has woken late.

    Args:
        late_s: By how many seconds.
        switches: How often it gave its core up meanwhile.
        delay_s: How many seconds of that it waited for a core.
    """
    rest_s = late_s - delay_s
    return 0.0 if rest_s <= LATE_S or switches > STOPPED_SWITCHES else rest_s


class Load:
    """Counts, for the stretches in which a trial's clock runs, what `SOURCES` says.

    Args:
        read: Returns each count so far by its name, but for 'clock_s', as `Gauges.read`.
    """

    def __init__(self, read: Callable[[], Mapping[str, Count]]) -> None:
        self._read = read
        self._segments: list[dict[str, Any]] = []
        self._closed, self._open = _zero(), _zero()  # The sum of the segments, and the next one.

    @contextlib.contextmanager
    def timed(self, clock_s: Callable[[], float]) -> Iterator[None]:
        """Count while in the block, in which the clock runs.

        Args:
            clock_s: Returns the clock's seconds so far.
        """
        before, began_s = self._read(), clock_s()
        try:
            yield
        finally:
            ended_s, after = clock_s(), self._read()
            counts: Counts = {name: _less(after[name], before[name]) for name in after}
            counts["clock_s"] = ended_s - began_s
            self._open = _sum(self._open, counts)

    def close(self, step: int) -> None:
        """End the segment that an evaluation ends.

        Args:
            step: The step that was evaluated.
        """
        self._segments.append({"step": step, **self._open})
        self._closed, self._open = _sum(self._closed, self._open), _zero()

    def totals(self) -> dict[str, Any]:
        """Return what `go_on` continues from: the segments so far, and the one that is open."""
        return {"segments": [dict(each) for each in self._segments], "open": dict(self._open)}

    def go_on(self, totals: Mapping[str, Any]) -> None:
        """Continue from an earlier process of the trial; what an older version left counts none."""
        if totals:
            self._segments = [dict(each) for each in totals["segments"]]
            self._open = dict(totals["open"])
            self._closed = functools.reduce(_sum, self._segments, _zero())

    def report(self) -> dict[str, Any]:
        """Return the counts for the result.

        Returns:
            The sums over all segments by name; 'lost_s' and 'lost_share' (see `lost`); the
            'segments', each with the 'step' at which it ended; and 'sources', which says where a
            count is from, or why it is None.
        """
        whole = _sum(self._closed, self._open)
        lost_s, share = lost(whole)
        sources = {
            name: NOT_COUNTED if whole[name] is None else source for name, source in SOURCES.items()
        }
        last = [] if not self._open["clock_s"] else [{"step": None, **self._open}]
        return {
            **whole,
            "lost_s": lost_s,
            "lost_share": share,
            "segments": [*self._segments, *last],
            "sources": sources,
        }


class Gauges:
    """Reads the counts of this process from the system, as long as it is entered."""

    def __init__(self) -> None:
        self._waiting, self._heartbeat = WaitingTime(), Heartbeat()

    def __enter__(self) -> Self:
        self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.stop()

    def read(self) -> Counts:
        """Return each count so far, None where the system does not tell of it."""
        stopped = self._heartbeat.total_s()  # It may wait for a beat, so it comes first.
        busy_s = processor_time.busy_s()
        return {
            "cpu_s": self._cpu_s(),
            "waited_s": self._waiting.total_s(),
            "other_cpu_s": None if busy_s is None else busy_s - processor_time.total_s(),
            "involuntary_switches": self._switches(),
            "pressure_s": _pressure_s(),
            "stopped_s": stopped,
        }

    def _cpu_s(self) -> Count:
        return time.process_time()

    def _switches(self) -> Count:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


class GaugesOfAnother(Gauges):
    """Reads the same counts of another process, from outside of it.

    This process waits for the other one while that one's clock runs, and stops it in between: it
    sets `clock_runs`, so that its own stops are not counted.

    Args:
        process_id: The other process.
    """

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._tasks = Path(f"/proc/{process_id}/task")
        self._waiting, self._heartbeat = WaitingTime(self._tasks), Heartbeat(self._is_stopped)
        self.clock_runs = False

    def _cpu_s(self) -> Count:
        try:
            spent = self._process.cpu_times()
        except psutil.Error:
            return None
        return float(spent.user + spent.system)

    def _is_stopped(self) -> bool:
        try:
            is_stopped = self._process.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False
        # It is asked last: whoever stops the process has taken this back before.
        return is_stopped and self.clock_runs

    def _switches(self) -> Count:
        """Return how often its threads were put off their cores; those that have ended are not
        known any more.
        """
        total = 0
        for task in _listed(self._tasks):
            try:
                lines = (task / "status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith(_INVOLUNTARY))
        return float(total) if total or self._tasks.is_dir() else None


def lost(counts: Mapping[str, Any]) -> tuple[Count, Count]:
    """Return the seconds that a clock counted and that others took, and their share of it.

    Threads of a trial also wait for one another, alone on a machine. So of the time that they
    waited no more counts than other processes worked on these cores. Several threads wait at a
    time, so the share is that of the clock or, where it is more, of the processor time: how much
    longer its threads took for the same work. A stop delays all of them.

    Args:
        counts: The sums of a trial, as `Load.report` has them.

    Returns:
        Both None where waiting is not counted, and no stop alone decides.
    """
    clock_s, stop_s = counts["clock_s"], counts["stopped_s"] or 0.0
    if not clock_s:
        return None, None
    waited_s, other_s = counts["waited_s"], counts["other_cpu_s"]
    if waited_s is None or other_s is None:
        is_clear = stop_s > CONTENDED_SHARE * clock_s
        return (stop_s, stop_s / clock_s) if is_clear else (None, None)
    taken_s = max(0.0, min(waited_s, other_s))
    share = taken_s / max(clock_s, counts["cpu_s"] or 0.0) + stop_s / clock_s
    return taken_s + stop_s, share


def is_contended(report: Mapping[str, Any]) -> bool | None:
    """Return whether others took over 5 % of a trial's clock; None where that is not known.

    Args:
        report: The `load` of its result.
    """
    lost_s, share = report.get("lost_s"), report.get("lost_share")
    if lost_s is None or share is None:
        return None
    return bool(share > CONTENDED_SHARE and lost_s >= LEAST_LOST_S)


def text(result: Mapping[str, Any]) -> str:
    """Return a line for a trial whose time is not its submission's alone, else an empty text.

    Args:
        result: The trial's result, or its 'load' alone under this name. Without one, as of an older
            version, the line is `resources.busy_text`'s.
    """
    report = result.get("load") or {}
    contended = is_contended(report)
    if contended is None:
        return resources.busy_text(result.get("resources") or {})
    if not contended:
        return ""
    stop_s, clock_s = report["stopped_s"] or 0.0, report["clock_s"]
    waited_s = report["lost_s"] - stop_s
    what = []
    if waited_s >= 0.01:
        what.append(f"its threads waited {waited_s:.1f} s for cores that other processes used")
    if stop_s:
        what.append(f"it was stopped for {stop_s:.1f} s")
    return (
        f"contended: {' and '.join(what)}, {report['lost_share']:.0%} of its clock of "
        f"{clock_s:.1f} s (docs/resources.md)"
    )


def _of_this_thread() -> tuple[int, float]:
    """Return how often this thread has given its core up, and the seconds that it waited for one.

    Where the system does not tell of one thread alone, a late beat counts as if it had waited.
    """
    counted = processor_time.schedstat_ns(_THIS_THREAD)
    delay_s = time.perf_counter() if counted is None else counted[1] / 1e9
    who = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if who is None else resource.getrusage(who).ru_nvcsw, delay_s


def waited_by_this_thread_s() -> float:
    """Return how long this thread has waited for a core so far, in seconds; 0 if nobody tells."""
    counted = processor_time.schedstat_ns(_THIS_THREAD)
    return 0.0 if counted is None else counted[1] / 1e9


def _zero() -> Counts:
    return dict.fromkeys(SOURCES, 0.0)


def _sum(first: Mapping[str, Count], second: Mapping[str, Count]) -> Counts:
    return {name: _join(first.get(name), second.get(name)) for name in SOURCES}


def _join(first: Count, second: Count) -> Count:
    return None if first is None or second is None else first + second


def _less(after: Count, before: Count) -> Count:
    return None if after is None or before is None else after - before


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _pressure_s() -> Count:
    try:
        line = _PRESSURE.read_text().splitlines()[0]
        return int(line.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None

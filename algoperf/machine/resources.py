"""Measure what a trial used besides time: memory, processor time, and the energy of GPUs.

The figures are reported with the result, each with its source. No score depends on them.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from algoperf.machine import hardware, processor_time
from algoperf.machine.nvml import EnergyCounter

Count = float | None
Joined = Callable[[Iterable[float]], float]
# How to combine the figures of the several processes that one trial ran in.
JOINED: Mapping[str, Joined] = {
    "peak_process_bytes": max,
    "cpu_s": sum,
    "peak_device_bytes": max,
    "device_energy_j": sum,
    "other_cpu_s": sum,
    "other_counted_s": sum,
}
COUNTED = "other_counted_s"  # For how long others' work was counted; it is not reported.
# The figures of a report, each with a source.
MEASURED = (*(name for name in JOINED if name != COUNTED), "mean_cores", "other_cores")
PROCESS_MEMORY = "the most resident memory that the trial's process held, by the system"
CPU = "user and system time of the trial's process and of its children, by the system"
CORES = "cpu_s / the ledger's wall_s"
DEVICE_MEMORY = "the most that the framework's allocator held, of one device"
NO_DEVICE = "not counted: the framework names no device with memory of its own"
EARLIER = "not counted: an earlier process of the trial did not"
ENDED = "not counted: the trial's process ended without a result"
OTHERS = (
    "busy time of the cores that the trial may use, by the system, less cpu_s since the framework "
    "was loaded: other processes' work"
)
NO_OTHERS = "not counted: the system tells no times of its cores"
OTHER_CORES = "other_cpu_s / the seconds in which it was counted"
BUSY_SHARE = 0.1  # Of the cores: what other processes may use before it is worth a line.
LAST = "user and system time of the process that ended without a result, and of its children"


class Meter:
    """Measures what a trial uses, continuing from an earlier process of the same trial.

    Processor time is counted from the start of the process, energy from the creation of the meter.

    Args:
        peak_device_bytes: Returns the peak of the device's memory in bytes, or None where the
            framework has no device that counts it.
        energy: The counter of the GPUs' energy, or None.
        busy_s: Returns the seconds that the cores which the trial may use have worked so far, for
            any process; None where the system does not tell.
        now_s: Returns the wall clock's time in seconds.
        cpu_s: Returns the processor time of the trial's processes so far, in seconds; None for that
            of this process.
        peak_process_bytes: Returns the most memory that the process of the submission has held;
            None for that of this process.
    """

    def __init__(
        self,
        peak_device_bytes: Callable[[], int | None] = lambda: None,
        energy: EnergyCounter | None = None,
        busy_s: Callable[[], float | None] = processor_time.busy_s,
        now_s: Callable[[], float] = time.perf_counter,
        cpu_s: Callable[[], float] | None = None,
        peak_process_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._peak_device_bytes = peak_device_bytes
        self._cpu_s = cpu_s or processor_time.total_s
        self._peak_process_bytes = peak_process_bytes or hardware.peak_process_memory_bytes
        self._energy = energy
        self._began_j = None if energy is None else energy.joules()
        self._earlier: Mapping[str, Count] | None = None
        self._busy_s = busy_s
        self._now_s = now_s
        self._before = self._others_now()

    def go_on(self, totals: Mapping[str, Count]) -> None:
        """Continue from the totals of an earlier process of the trial.

        Args:
            totals: What `totals` returned there. A figure that it lacks or that is None stays
                unknown.
        """
        self._earlier = totals

    def totals(self) -> dict[str, Count]:
        """Return the figures so far, over all processes of the trial.

        Returns:
            'peak_process_bytes', 'cpu_s', 'peak_device_bytes', 'device_energy_j', 'other_cpu_s'
            and 'other_counted_s'; None for a figure that nothing measures.
        """
        now = self._now()
        if self._earlier is None:
            return now
        return {
            name: _join(JOINED[name], self._earlier.get(name), value) for name, value in now.items()
        }

    def report(self, wall_s: float) -> dict[str, Any]:
        """Return the figures for the result, each with its source.

        Args:
            wall_s: The wall time of the trial in seconds.

        Returns:
            The `totals`; 'mean_cores', the mean number of cores in use over `wall_s`;
            'other_cores', the mean number that other processes used of 'cores', those that the
            trial may use; and 'sources', which says for each figure where it comes from, or why it
            is None.
        """
        totals, now = self.totals(), self._now()
        sources = {
            "peak_process_bytes": PROCESS_MEMORY,
            "cpu_s": CPU,
            "mean_cores": CORES,
            "peak_device_bytes": NO_DEVICE if now["peak_device_bytes"] is None else DEVICE_MEMORY,
            "device_energy_j": NO_DEVICE if self._energy is None else self._energy.source,
            "other_cpu_s": NO_OTHERS if now["other_cpu_s"] is None else OTHERS,
            "other_cores": OTHER_CORES,
        }
        counted_s, others_s = totals.pop(COUNTED), totals["other_cpu_s"]
        for name, value in totals.items():
            if value is None and now[name] is not None:
                sources[name] = EARLIER
        cpu_s = totals["cpu_s"]
        cores = None if cpu_s is None or wall_s <= 0 else cpu_s / wall_s
        other_cores = others_s / counted_s if others_s is not None and counted_s else None
        return {
            **totals,
            "mean_cores": cores,
            "other_cores": other_cores,
            "cores": hardware.thread_count(),
            "sources": sources,
        }

    def _others_now(self) -> tuple[float | None, float, float]:
        """Return the seconds that the cores have worked, those that were the trial's, and when."""
        return self._busy_s(), processor_time.total_s(), self._now_s()

    def _others(self) -> dict[str, Count]:
        busy_s, own_s, at_s = self._others_now()
        busy_before_s, own_before_s, began_s = self._before
        if busy_s is None or busy_before_s is None:
            return {"other_cpu_s": None, "other_counted_s": None}
        # The system counts in ticks, so an idle machine may come out a little below zero.
        others_s = max(0.0, busy_s - busy_before_s - (own_s - own_before_s))
        return {"other_cpu_s": others_s, "other_counted_s": at_s - began_s}

    def _now(self) -> dict[str, Count]:
        read_j = None if self._energy is None else self._energy.joules()
        return {
            "peak_process_bytes": self._peak_process_bytes(),
            "cpu_s": self._cpu_s(),
            "peak_device_bytes": self._peak_device_bytes(),
            "device_energy_j": None
            if read_j is None or self._began_j is None
            else read_j - self._began_j,
            **self._others(),
        }


def without_result(cpu_s: float) -> dict[str, Any]:
    """Return the figures of a trial whose process ended without a result.

    Args:
        cpu_s: The processor time of that process in seconds. All other figures are None.
    """
    sources = {**dict.fromkeys(MEASURED, ENDED), "cpu_s": LAST}
    cores = hardware.thread_count()
    return {**dict.fromkeys(MEASURED), "cpu_s": cpu_s, "cores": cores, "sources": sources}


def busy_text(report: Mapping[str, Any]) -> str:
    """Return a line for a trial whose machine was busy with other work, else an empty text.

    Args:
        report: The `resources` of the trial's result; those of older versions count no others.
    """
    others, cores = report.get("other_cores"), report.get("cores")
    if others is None or not cores or others < BUSY_SHARE * cores:
        return ""
    return (
        f"busy machine: other processes used {others:.1f} of its {cores} "
        f"core{'s' if cores > 1 else ''} (docs/resources.md)"
    )


def _join(joined: Joined, earlier: Count, now: Count) -> Count:
    return None if earlier is None or now is None else joined((earlier, now))

"""Measure what a trial used besides time: memory, processor time, and the energy of GPUs.

The figures are reported with the result, each with its source. No score depends on them.
"""

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
}
PROCESS_MEMORY = "the most resident memory that the trial's process held, by the system"
CPU = "user and system time of the trial's process and of its children, by the system"
CORES = "cpu_s / the ledger's wall_s"
DEVICE_MEMORY = "the most that the framework's allocator held, of one device"
NO_DEVICE = "not counted: the framework names no device with memory of its own"
EARLIER = "not counted: an earlier process of the trial did not"
ENDED = "not counted: the trial's process ended without a result"
LAST = "user and system time of the process that ended without a result, and of its children"


class Meter:
    """Measures what a trial uses, continuing from an earlier process of the same trial.

    Processor time is counted from the start of the process, energy from the creation of the meter.

    Args:
        peak_device_bytes: Returns the peak of the device's memory in bytes, or None where the
            framework has no device that counts it.
        energy: The counter of the GPUs' energy, or None.
    """

    def __init__(
        self,
        peak_device_bytes: Callable[[], int | None] = lambda: None,
        energy: EnergyCounter | None = None,
    ) -> None:
        self._peak_device_bytes = peak_device_bytes
        self._energy = energy
        self._began_j = None if energy is None else energy.joules()
        self._earlier: Mapping[str, Count] | None = None

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
            'peak_process_bytes', 'cpu_s', 'peak_device_bytes' and 'device_energy_j'; None for a
            figure that nothing measures.
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
            The `totals`; 'mean_cores', the mean number of cores in use over `wall_s`; and
            'sources', which says for each figure where it comes from, or why it is None.
        """
        totals, now = self.totals(), self._now()
        sources = {
            "peak_process_bytes": PROCESS_MEMORY,
            "cpu_s": CPU,
            "mean_cores": CORES,
            "peak_device_bytes": NO_DEVICE if now["peak_device_bytes"] is None else DEVICE_MEMORY,
            "device_energy_j": NO_DEVICE if self._energy is None else self._energy.source,
        }
        for name, value in totals.items():
            if value is None and now[name] is not None:
                sources[name] = EARLIER
        cpu_s = totals["cpu_s"]
        cores = None if cpu_s is None or wall_s <= 0 else cpu_s / wall_s
        return {**totals, "mean_cores": cores, "sources": sources}

    def _now(self) -> dict[str, Count]:
        read_j = None if self._energy is None else self._energy.joules()
        return {
            "peak_process_bytes": hardware.peak_process_memory_bytes(),
            "cpu_s": processor_time.total_s(),
            "peak_device_bytes": self._peak_device_bytes(),
            "device_energy_j": None
            if read_j is None or self._began_j is None
            else read_j - self._began_j,
        }


def without_result(cpu_s: float) -> dict[str, Any]:
    """Return the figures of a trial whose process ended without a result.

    Args:
        cpu_s: The processor time of that process in seconds. All other figures are None.
    """
    names = (*JOINED, "mean_cores")
    sources = {**dict.fromkeys(names, ENDED), "cpu_s": LAST}
    return {**dict.fromkeys(names), "cpu_s": cpu_s, "sources": sources}


def _join(joined: Joined, earlier: Count, now: Count) -> Count:
    return None if earlier is None or now is None else joined((earlier, now))

"""What a trial took beside time: memory, processor time, and the memory and energy of a GPU.

It is reported with the result, each figure with its source, and no score reads it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from algoperf.machine import hardware, processor_time
from algoperf.machine.nvml import EnergyCounter

Count = float | None
Joined = Callable[[Iterable[float]], float]
# How the figures of the processes that a trial ran in are joined.
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
    """Counts what a trial takes, on from where an earlier process of it was saved.

    `peak_device_bytes()` is None where the framework has no device that counts. The processor time
    is that since the process began; the energy that since the meter was made.
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
        """Count on from what `totals` said in an earlier process; what it lacks stays unknown."""
        self._earlier = totals

    def totals(self) -> dict[str, Count]:
        """Bytes, processor seconds and joules so far; None of what nothing counts."""
        now = self._now()
        if self._earlier is None:
            return now
        return {
            name: _join(JOINED[name], self._earlier.get(name), value) for name, value in now.items()
        }

    def report(self, wall_s: float) -> dict[str, Any]:
        """What the result says: `totals`, the mean of the cores in use over `wall_s` seconds, and
        under `sources` where each figure is from, or why it is None.
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
    """What is known of a trial whose process ended without a result: `cpu_s` seconds of processor
    time, in that process alone.
    """
    names = (*JOINED, "mean_cores")
    sources = {**dict.fromkeys(names, ENDED), "cpu_s": LAST}
    return {**dict.fromkeys(names), "cpu_s": cpu_s, "sources": sources}


def _join(joined: Joined, earlier: Count, now: Count) -> Count:
    return None if earlier is None or now is None else joined((earlier, now))

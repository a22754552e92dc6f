"""Where the time of a run goes: one stopwatch for each part, and what they add up to."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

Now = Callable[[], float]
PARTS = ("submission", "evaluation", "logging", "checkpoint", "set_up", "recompilation")


class Stopwatch:
    """Accumulated seconds of one part of a run, on a monotonic clock."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._accumulated_s = 0.0
        self._started_at_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds so far, the running stretch included."""
        started_at_s = self._started_at_s  # once: the progress line reads this from another thread
        if started_at_s is None:
            return self._accumulated_s
        return self._accumulated_s + self._now() - started_at_s

    def add(self, seconds: float) -> None:
        """Count seconds measured elsewhere; negative ones take back what was counted here."""
        self._accumulated_s += seconds

    @contextlib.contextmanager
    def running(self, drain: Callable[[], None] | None = None) -> Iterator[None]:
        """Run for the length of the block. `drain` is called before the watch stops, at its
        expense, so that work still queued on a device is counted here and not in the next part.
        """
        assert self._started_at_s is None, "a stopwatch that runs cannot be started"
        self._started_at_s = self._now()
        try:
            yield
            if drain is not None:
                drain()
        finally:
            self._accumulated_s = self.elapsed_s
            self._started_at_s = None


class Ledger:
    """The parts of a run, each timed by itself, against the wall clock since `started_at_s`.

    `other` is what no part claims: wall minus the parts. It is reported, not hidden in a part.
    """

    def __init__(self, now: Now = time.perf_counter, started_at_s: float | None = None) -> None:
        self._now = now
        self._started_at_s = now() if started_at_s is None else started_at_s
        watches = (Stopwatch(now) for _ in PARTS)
        self.submission, self.evaluation, self.logging, self.checkpoint, *rest = watches
        self.set_up, self.recompilation = rest
        self.earlier_wall_s = 0.0  # of the processes that the trial ran in before
        self.data_wait_s = 0.0  # inside `submission`
        self.first_step_s: float | None = (
            None  # `submission` at the end of step 1, compilation included
        )

    def totals(self) -> dict[str, float | None]:
        """Seconds of each part, `other` and `wall`; data wait and first step are within
        `submission`.
        """
        wall_s = self.earlier_wall_s + self._now() - self._started_at_s
        parts = {f"{part}_s": getattr(self, part).elapsed_s for part in PARTS}
        return {
            **parts,
            "other_s": wall_s - sum(parts.values()),
            "wall_s": wall_s,
            "data_wait_s": self.data_wait_s,
            "first_step_s": self.first_step_s,
        }

    def go_on(self, totals: Mapping[str, float | None]) -> None:
        """Count on from what `totals` said in an earlier process of the trial."""
        for part in PARTS:
            getattr(self, part).add(totals[f"{part}_s"])
        self.earlier_wall_s = totals["wall_s"] or 0.0
        self.data_wait_s = totals["data_wait_s"] or 0.0
        self.first_step_s = totals["first_step_s"]

    def forgive(self, seconds: float) -> None:
        """Move seconds from the submission's clock to recompilation."""
        self.submission.add(-seconds)
        self.recompilation.add(seconds)


class InFlight:
    """Keeps the host at most `limit` steps ahead of the device.

    An asynchronous framework returns before its work is done; unbounded, the host's clock reads far
    too little (in JAX 32 steps were queued, and the clock read half the true time).
    """

    def __init__(self, wait: Callable[[object], None], limit: int = 2) -> None:
        self._wait = wait
        self._limit = limit
        self._markers: list[object] = []

    def add(self, marker: object) -> None:
        """Note a step just dispatched, and wait until at most `limit` are unfinished."""
        self._markers.append(marker)
        if len(self._markers) > self._limit:
            self._wait(self._markers.pop(0))

    def clear(self) -> None:
        """Forget all markers, after a drain."""
        self._markers.clear()

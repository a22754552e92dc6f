"""Measure where the time of a trial goes: one stopwatch for each part, and their sum."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping

Now = Callable[[], float]
# What the initialisation of a submission's state may take beside compiling without being charged:
# seconds, and seconds for each of the model's numbers, as filling some arrays of their size takes.
FREE_INITIALISATION_S, FREE_S_PER_NUMBER = 0.1, 16e-9
PARTS = ("submission", "evaluation", "logging", "checkpoint", "set_up", "recompilation")


class Stopwatch:
    """The accumulated time of one part of a trial, on a monotonic clock.

    Args:
        now: Returns the clock's time in seconds.
    """

    def __init__(self, now: Now) -> None:
        self._now = now
        self._accumulated_s = 0.0
        self._started_at_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """The accumulated seconds, including the stretch that is running now."""
        # The progress line calls this from another thread, so the value is read only once.
        started_at_s = self._started_at_s
        if started_at_s is None:
            return self._accumulated_s
        return self._accumulated_s + self._now() - started_at_s

    def add(self, seconds: float) -> None:
        """Add seconds that were measured elsewhere; negative ones take back time counted here."""
        self._accumulated_s += seconds

    @contextlib.contextmanager
    def running(self, drain: Callable[[], None] | None = None) -> Iterator[None]:
        """Run the stopwatch while in the block.

        Args:
            drain: Called before the stopwatch stops. It waits for the work that is still queued on
                a device, so that this work is counted here and not in the next part.
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
    """The time of a trial by parts, against the wall clock.

    `totals` also reports `other`, the wall time that belongs to no part, so that it is not hidden
    in one of them.

    Args:
        now: Returns the clock's time in seconds.
        started_at_s: When the wall clock started, by the same clock; None means now.

    Attributes:
        submission: The submission's time, which counts against the budget.
        evaluation: The time of evaluations.
        logging: The time of writing logs.
        checkpoint: The time of writing checkpoints.
        set_up: The time until training starts.
        recompilation: Compilation that was repeated after a resume, which is not charged.
        initialisation_s: How long `init_optimizer_state` took in this process, in seconds; it is
            part of `set_up`, but for what was charged.
        charged_s: How much of `submission` is its initialisation, in seconds.
        earlier_wall_s: The wall time of the earlier processes that the trial ran in, in seconds.
        data_wait_s: How much of `submission` was spent waiting for data, in seconds.
        first_step_s: `submission` at the end of step 1, compilation included, in seconds; None
            before.
    """

    def __init__(self, now: Now = time.perf_counter, started_at_s: float | None = None) -> None:
        self._now = now
        self._started_at_s = now() if started_at_s is None else started_at_s
        watches = (Stopwatch(now) for _ in PARTS)
        self.submission, self.evaluation, self.logging, self.checkpoint, *rest = watches
        self.set_up, self.recompilation = rest
        self.initialisation_s = self.charged_s = 0.0
        self._initialising_at_s = self._started_at_s
        self.earlier_wall_s = 0.0  # Wall time of the trial's earlier processes.
        self.data_wait_s = 0.0  # It is part of `submission`.
        self.first_step_s: float | None = (
            None  # `submission` at the end of step 1, compilation included
        )

    def totals(self) -> dict[str, float | None]:
        """Return the seconds of each part, of `other`, and of the wall clock.

        Returns:
            '<part>_s' for each of `PARTS`, 'other_s', 'wall_s', and 'data_wait_s',
            'first_step_s' and 'charged_s', which are contained in 'submission_s', and
            'initialisation_s'. The parts and `other` add up to the wall time.
        """
        wall_s = self.earlier_wall_s + self._now() - self._started_at_s
        parts = {f"{part}_s": getattr(self, part).elapsed_s for part in PARTS}
        return {
            **parts,
            "other_s": wall_s - sum(parts.values()),
            "wall_s": wall_s,
            "data_wait_s": self.data_wait_s,
            "first_step_s": self.first_step_s,
            "initialisation_s": self.initialisation_s,
            "charged_s": self.charged_s,
        }

    def go_on(self, totals: Mapping[str, float | None]) -> None:
        """Continue from the totals of an earlier process of the trial.

        Args:
            totals: What `totals` returned there.
        """
        for part in PARTS:
            getattr(self, part).add(totals[f"{part}_s"])
        self.earlier_wall_s = totals["wall_s"] or 0.0
        self.data_wait_s = totals["data_wait_s"] or 0.0
        self.first_step_s = totals["first_step_s"]
        # Older versions charged nothing.
        self.initialisation_s = totals.get("initialisation_s") or 0.0
        self.charged_s = totals.get("charged_s") or 0.0

    def follow(self, totals: Mapping[str, float | None]) -> None:
        """Take the totals of another ledger of the same trial in place of one's own.

        Args:
            totals: What `totals` returned there.
        """
        for part in PARTS:
            watch = getattr(self, part)
            watch.add((totals[f"{part}_s"] or 0.0) - watch.elapsed_s)

    def begin_initialisation(self) -> None:
        """Time the initialisation of the submission's state from here; it is part of the set-up."""
        self._initialising_at_s = self._now()

    def end_initialisation(self, compiled_s: float, numbers: int) -> None:
        """Charge the submission for what its initialisation hides from the clock.

        Setting a state up is free, as AlgoPerf has it. Compiling is not, and neither is what goes
        beyond the time in which arrays for a model of this size can be made.

        Args:
            compiled_s: The seconds in which the framework says that it compiled.
            numbers: How many parameters the model has.
        """
        self.initialisation_s = self._now() - self._initialising_at_s
        free_s = FREE_INITIALISATION_S + FREE_S_PER_NUMBER * numbers
        rest_s = max(0.0, self.initialisation_s - compiled_s)
        self.charged_s = min(compiled_s, self.initialisation_s) + max(0.0, rest_s - free_s)
        self.submission.add(self.charged_s)
        self.set_up.add(-self.charged_s)

    def forget_initialisation(self) -> None:
        """Take back what this process's initialisation was charged, before `go_on`: the trial's
        first process was.
        """
        self.submission.add(-self.charged_s)
        self.set_up.add(self.charged_s)
        self.charged_s = 0.0

    def forgive(self, seconds: float) -> None:
        """Move seconds from `submission` to `recompilation`, so that they are not charged."""
        self.submission.add(-seconds)
        self.recompilation.add(seconds)


class InFlight:
    """Keeps the host at most a few steps ahead of the device.

    An asynchronous framework returns before its work is done. Without a limit the host's clock
    reads far too little: in JAX 32 steps were queued, and the clock showed half the true time.

    To be woken costs a host whose cores are busy with the model some milliseconds, most of them for
    what it does next on cold caches. So quick steps are waited for a few at a time: up to
    `together`, as far as they take no longer than `together_s`.

    Args:
        mark: Returns a value that the step just dispatched computes, for which `wait` can wait.
        wait: Waits until the step with the given marker is finished on the device.
        now: The clock, in seconds.
        limit: How many unfinished steps are allowed where they are not quick.
        together: How many quick steps may be waited for at once; as many may be unfinished then.
        together_s: What they may take, in seconds.
    """

    def __init__(
        self,
        mark: Callable[[], object],
        wait: Callable[[object], None],
        now: Now,
        limit: int = 2,
        together: int = 4,
        together_s: float = 0.5,
    ) -> None:
        self._mark = mark
        self._wait = wait
        self._now = now
        self._limit = limit
        self._together = together
        self._together_s = together_s
        self._step_s = math.inf  # of the last steps that were waited for
        self._unmarked = 0
        self._marked: list[tuple[object, int]] = []  # and the steps since the marker before
        self._waited_at_s: float | None = None

    def add(self) -> None:
        """Record a step that was just dispatched; wait where too many are unfinished."""
        self._unmarked += 1
        together = min(self._together, max(1, int(self._together_s / self._step_s)))
        if self._unmarked < together:
            return
        self._marked.append((self._mark(), self._unmarked))
        self._unmarked = 0
        while sum(steps for _, steps in self._marked) > max(self._limit, together):
            marker, steps = self._marked.pop(0)
            self._wait(marker)
            waited_at_s = self._now()
            if self._waited_at_s is not None:
                self._step_s = max((waited_at_s - self._waited_at_s) / steps, 1e-9)
            self._waited_at_s = waited_at_s

    def clear(self) -> None:
        """Forget all recorded steps, after the device has finished them."""
        self._unmarked, self._waited_at_s = 0, None
        self._marked.clear()

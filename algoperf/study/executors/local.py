"""Run many `algoperf run`s on this machine, a few at a time, each on cores of its own.

A run that has a result is skipped. A signal, to this process or to one of the runs, stops them all,
after they have saved their trials.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from algoperf.errors import UserError
from algoperf.machine import stopping

CAN_PIN = hasattr(os, "sched_getaffinity")
LOOK_S = 0.25  # Between looks at whether a run may end.
PROGRAM = (sys.executable, "-P", "-m", "algoperf")


class Task(Protocol):
    """One `algoperf run` below a folder `out`; a task must be hashable."""

    @property
    def experiment(self) -> str:
        """The name of the folder of its runs, with which notes about it begin."""

    def command(self, out: Path) -> list[str]:
        """Return the command-line arguments, of which 'run' is the first."""

    def has_ended(self, out: Path) -> bool:
        """Return whether nothing is left to run."""

    def prepare(self, out: Path) -> None:
        """Prepare the folder just before the task runs."""


def run(
    todo: Sequence[Task],
    out: Path,
    workers: int,
    note: Callable[[str], None],
    threads: int = 1,
    standard_input: str | None = None,
) -> int:
    """Run the tasks that have no result yet.

    Args:
        todo: The tasks.
        out: The folder of the runs.
        workers: How many run at a time.
        note: Called with a line for the user after each run.
        threads: The number of cores of each run.
        standard_input: What each run reads there; None where it is this process's.

    Returns:
        The number of runs that failed.

    Raises:
        UserError: This process may not use so many cores.
        InterruptedRunError: A signal stopped the runs, which have saved their trials and ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    # All commands are built before any task runs, since building one may write the file of a
    # tuning point that tasks of both frameworks share.
    commands = {job: job.command(out) for job in todo if not job.has_ended(out)}
    shares: queue.SimpleQueue[frozenset[int] | None] = queue.SimpleQueue()
    for share in _shares(workers, threads):
        shares.put(share)
    processes = Processes(standard_input)

    def work(job: Task) -> bool:
        if processes.are_stopped:
            return True
        job.prepare(out)
        share = shares.get()
        try:
            ended = processes.run([*PROGRAM, *commands[job]], share)
        finally:
            shares.put(share)
        if ended is None:
            return True
        note(f"{job.experiment}: {_said(ended)}")
        if stopping.has_stopped(ended.returncode, processes.are_stopped):
            processes.stop()  # Whoever asked one run to stop meant all of them.
            return True
        return ended.returncode == 0

    with processes.stops, ThreadPoolExecutor(workers) as pool:
        failed = sum(not good for good in pool.map(work, commands))
    processes.stops.check(out)
    return failed


class Processes:
    """The runs that are in progress, each the leader of a process group of its own.

    A signal to this process or from its terminal is passed on to them once, as SIGTERM. A Ctrl-C
    after the grace time (`stopping.GRACE_S`) ends them without saving.

    Args:
        standard_input: What each run reads there; None where it is this process's.

    Attributes:
        stops: Answers the signals while it is entered.
    """

    def __init__(self, standard_input: str | None = None) -> None:
        self._standard_input = standard_input
        self.stops = stopping.Stops(self._ask, self._end)
        self._going: set[subprocess.Popen[str]] = set()
        self._lock = threading.RLock()  # A signal may arrive while another one is handled.

    @property
    def are_stopped(self) -> bool:
        """Whether a signal has arrived, after which no more runs start."""
        return self.stops.are_asked

    def stop(self) -> None:
        """Ask the runs to save their trials and to end, as a signal to this process does."""
        if self.stops.remember():
            self._ask()

    def run(
        self,
        command: Sequence[str],
        cores: frozenset[int] | None,
        is_enough: Callable[[], bool] | None = None,
    ) -> "subprocess.CompletedProcess[str] | None":
        """Run a command until it ends.

        Args:
            command: The program and its arguments.
            cores: The cores that it may use; None leaves them as they are.
            is_enough: Asked now and then; once it returns True the command is asked to save its
                trials and to end. None lets it run.

        Returns:
            The ended process with its output, or None where a signal has stopped the runs.
        """
        with self._lock:
            if self.are_stopped:
                return None
            with stopping.held_back():
                process = subprocess.Popen(
                    command,
                    stdin=None if self._standard_input is None else subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    process_group=0,
                )
            self._going.add(process)
        if self.are_stopped:  # A signal came in between, and has asked the others.
            process.terminate()
        if cores is not None:
            # The child could only pin itself before it runs if this process were forked.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, cores)
        try:
            output, errors = self._communicate(process, is_enough)
        finally:
            with self._lock:
                self._going.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def _communicate(
        self, process: "subprocess.Popen[str]", is_enough: Callable[[], bool] | None
    ) -> tuple[str, str]:
        """Wait for a process and return its output; end it where that is asked."""
        given = self._standard_input
        while is_enough is not None:
            try:
                return process.communicate(given, timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                given = None  # It is sent already.
                if is_enough():
                    process.terminate()
                    break
        return process.communicate(given)

    def _ask(self) -> None:
        with self._lock:
            for process in self._going:
                process.terminate()

    def _end(self) -> None:
        with self._lock:
            for process in self._going:
                process.kill()  # Its trial's process ends with it.


def _said(ended: "subprocess.CompletedProcess[str]") -> str:
    """Return the line in which a run reports its trial, or the best one of several.

    Indented lines give details, and the last line says where the runs are. Of a run that failed it
    is the last line.
    """
    if ended.returncode == 0:
        *lines, last = ended.stdout.strip().split("\n")
        return next((line for line in reversed(lines) if line[:1].strip()), last)
    return (ended.stderr.strip() or ended.stdout.strip()).rpartition("\n")[2]


def _shares(workers: int, threads: int) -> Iterator[frozenset[int] | None]:
    """Return the cores for each worker; None where processes cannot be pinned to cores."""
    if not CAN_PIN:
        return iter([None] * workers)
    available = sorted(os.sched_getaffinity(0))
    if workers * threads > len(available):
        of_each = f" with {threads} threads each" if threads > 1 else ""
        raise UserError(
            f"--workers {workers}{of_each}: this process may use only {len(available)} cores"
        )
    return iter(
        [frozenset(available[first * threads :][:threads]) for first in range(workers)],
    )

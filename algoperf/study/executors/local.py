"""Run many `algoperf run`s on this machine, a few at a time, each on cores of its own.

A run that has a result is skipped, and one that another process works on is left to it. A signal,
to this process or to one of the runs, stops them all, after they have saved their trials.
"""

import contextlib
import dataclasses
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from algoperf.errors import UserError
from algoperf.machine import stopping
from algoperf.study.executors import executor
from algoperf.study.executors.executor import Note, Task

CAN_PIN = hasattr(os, "sched_getaffinity")
PROGRAM = executor.PROGRAM
LOOK_S = 0.25  # Between looks at whether a run may end.


@dataclasses.dataclass(frozen=True)
class Local:
    """Runs tasks on this machine; see `executor.Executor`.

    Attributes:
        workers: How many run at a time.
        threads: The number of cores of each run.
    """

    workers: int = 1
    threads: int = 1
    keeps_secrets: ClassVar[bool] = True

    def run(self, todo: Sequence[Task], out: Path, note: Note, secret: str | None = None) -> int:
        """Run the tasks that have no result yet, each on cores of its own.

        Args:
            todo: The tasks.
            out: The folder of the runs.
            note: Called with a line for the user after each run.
            secret: What each run reads from its standard input; None where it is this process's.

        Returns:
            The number of runs that failed.

        Raises:
            UserError: This process may not use so many cores.
            InterruptedRunError: A signal stopped the runs, which have saved their trials and ended.
        """
        return run(todo, out, self.workers, note, self.threads, secret)


def run(
    todo: Sequence[Task],
    out: Path,
    workers: int,
    note: Note,
    threads: int = 1,
    standard_input: str | None = None,
) -> int:
    """Run the tasks that have no result yet, as `Local.run` does."""
    out.mkdir(parents=True, exist_ok=True)
    # All commands are built before any task runs, since building one may write the file of a
    # tuning point that tasks of both frameworks share.
    commands = {job: job.command(out) for job in todo if not job.has_ended(out)}
    shares = list(_shares(workers, threads))
    processes = Processes(standard_input)
    board = executor.Board(list(commands), out, note)

    def work(share: frozenset[int] | None) -> int:
        failed = 0
        while (job := board.take(lambda: processes.are_stopped)) is not None:
            if not executor.prepare(job, out):
                board.put_back(job)
                continue
            ended = processes.run([*PROGRAM, *commands[job]], share)
            if ended is None:
                break
            if executor.is_taken(ended):
                board.put_back(job)
                continue
            note(f"{job.experiment}: {executor.last_words(ended)}")
            if stopping.has_stopped(ended.returncode, processes.are_stopped):
                processes.stop()  # Whoever asked one run to stop meant all of them.
                break
            failed += ended.returncode != 0
        return failed

    with processes.stops, ThreadPoolExecutor(workers) as pool:
        failed = sum(pool.map(work, shares))
    processes.stops.check(out)
    return failed + board.failed


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

"""Many `algoperf run`s, a few at a time, each on cores of its own; what has a result is skipped,
and a signal stops them all with what they have done saved.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Protocol

from algoperf.errors import UserError
from algoperf.machine.supervision import InterruptedRunError, answering

CAN_PIN = hasattr(os, "sched_getaffinity")
PROGRAM = (sys.executable, "-P", "-m", "algoperf")
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Task(Protocol):
    """One `algoperf run` below a folder `out`; a task can be hashed."""

    @property
    def experiment(self) -> str:
        """The folder of its runs, which its note begins with."""

    def command(self, out: Path) -> list[str]:
        """The arguments, `run` first."""

    def has_ended(self, out: Path) -> bool:
        """Whether there is nothing left to run."""

    def prepare(self, out: Path) -> None:
        """What is done just before it runs."""


def run(
    todo: Sequence[Task],
    out: Path,
    workers: int,
    note: Callable[[str], None],
    threads: int = 1,
) -> int:
    """Run the tasks that have no result, `workers` at a time, each on `threads` cores; return how
    many failed.

    Raises UserError where this process may not use so many cores, and InterruptedRunError after a
    signal, once the runs have saved what they had and ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Before any of them runs: jobs of both frameworks share the file of a tuning point.
    commands = {job: job.command(out) for job in todo if not job.has_ended(out)}
    shares: queue.SimpleQueue[frozenset[int] | None] = queue.SimpleQueue()
    for share in _shares(workers, threads):
        shares.put(share)
    processes = Processes()

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
        return ended.returncode == 0

    with processes.stopping(), ThreadPoolExecutor(workers) as pool:
        failed = sum(not good for good in pool.map(work, commands))
    if processes.are_stopped:
        raise InterruptedRunError(str(out))
    return failed


class Processes:
    """The runs that are going on, each the leader of a process group: a signal to this process, or
    from its terminal, reaches them once, as SIGTERM; a second one ends them without saving.
    """

    def __init__(self) -> None:
        self.are_stopped = False
        self._going: set[subprocess.Popen[str]] = set()
        self._lock = threading.RLock()  # a signal may arrive while one is answered

    def run(
        self, command: Sequence[str], cores: frozenset[int] | None
    ) -> "subprocess.CompletedProcess[str] | None":
        """Run the command on those cores to its end; None where no more are to start."""
        with self._lock:
            if self.are_stopped:
                return None
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
            )
            self._going.add(process)
        if cores is not None:
            # From here, not in the child before it runs: that would take a fork of this process.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, cores)
        try:
            output, errors = process.communicate()
        finally:
            with self._lock:
                self._going.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """While in the block, signals stop the runs instead of this process."""

        def stop(number: int, frame: FrameType | None) -> None:
            with self._lock:
                self.are_stopped = True
                for process in self._going:
                    process.terminate()

        ignored = signal.SIG_IGN  # as under nohup
        with answering([each for each in STOPPING if signal.getsignal(each) is not ignored], stop):
            yield


def _said(ended: "subprocess.CompletedProcess[str]") -> str:
    """What a run said of its last trial, in the line before the closing one, or last before it
    failed.
    """
    if ended.returncode == 0:
        return ended.stdout.strip().split("\n")[-2:][0]
    return (ended.stderr.strip() or ended.stdout.strip()).rpartition("\n")[2]


def _shares(workers: int, threads: int) -> Iterator[frozenset[int] | None]:
    """The cores of each worker; None where processes cannot be pinned."""
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

"""What an executor is given, and what it does: carry out many `algoperf run`s somewhere."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from algoperf.machine import supervision
from algoperf.study.study import lasting_result

PROGRAM = (sys.executable, "-P", "-m", "algoperf")
POLL_S = 1.0  # between looks at tasks that other processes work on
RETRY_S = 10.0  # before a task is tried again that another process was quicker to begin
Note = Callable[[str], None]


class Task(Protocol):
    """One `algoperf run` below a folder `out`; a task must be hashable."""

    @property
    def experiment(self) -> str:
        """The name of the folder of its runs, with which notes about it begin."""

    def command(self, out: Path) -> list[str]:
        """Return the command-line arguments, of which 'run' is the first."""

    def folders(self, out: Path) -> list[Path]:
        """Return the run folders of its trials."""

    def has_ended(self, out: Path) -> bool:
        """Return whether nothing is left to run."""

    def prepare(self, out: Path) -> None:
        """Prepare the folder just before the task runs."""


class Executor(Protocol):
    """Where tasks run: on this machine, or as jobs of a cluster."""

    @property
    def keeps_secrets(self) -> bool:
        """Whether a secret can be given to the standard input of its runs."""

    def run(self, todo: Sequence[Task], out: Path, note: Note, secret: str | None = None) -> int:
        """Run the tasks that have no result yet, and wait until all have ended.

        Any number of processes, on any machines, may do so for the same tasks and the same folder:
        each task is run once.

        Args:
            todo: The tasks.
            out: The folder of the runs.
            note: Called with a line for the user after each run.
            secret: What each run reads from its standard input; None where it is this process's.

        Returns:
            The number of runs that failed.

        Raises:
            UserError: Something that is asked for is not to be had.
            InterruptedRunError: A signal stopped this process.
        """


class Board:
    """The tasks that are left; each is taken once, when no other process works on it.

    Args:
        todo: The tasks.
        out: The folder of the runs.
        note: Called with a line for the user about each task that another process has ended.

    Attributes:
        failed: How many tasks other processes have tried, and failed, since this one began. They
            are not tried here as well.
    """

    def __init__(self, todo: Sequence[Task], out: Path, note: Note) -> None:
        self._left, self._out, self._note = list(todo), out, note
        self._elsewhere: set[Task] = set()
        self._not_before_s: dict[Task, float] = {}
        self._lock = threading.Lock()
        self.failed = 0

    def take(self, are_stopped: Callable[[], bool]) -> Task | None:
        """Return the next task that is free; None once there is none left.

        Args:
            are_stopped: Whether no more tasks are to begin.
        """
        while not are_stopped():
            with self._lock:
                for task in list(self._left):
                    if self._is_free(task):
                        self._left.remove(task)
                        return task
                if not self._left:
                    return None
            time.sleep(POLL_S)
        return None

    def put_back(self, task: Task) -> None:
        """Put a task back that another process was quicker to begin."""
        with self._lock:
            self._not_before_s[task] = time.monotonic() + RETRY_S
            self._elsewhere.add(task)
            self._left.append(task)

    def _is_free(self, task: Task) -> bool:
        if task.has_ended(self._out):
            self._left.remove(task)
            self._note(f"{label(task, self._out)}: ended by another process")
            return False
        if is_busy(task, self._out):
            self._elsewhere.add(task)
            return False
        if task in self._elsewhere and has_failed(task, self._out):
            self._left.remove(task)
            self.failed += 1
            self._note(f"{label(task, self._out)}: failed in another process")
            return False
        return self._not_before_s.get(task, 0.0) <= time.monotonic()


def label(task: Task, out: Path) -> str:
    """Return the first run folder of a task, from the folder of the runs."""
    return next((str(folder.relative_to(out)) for folder in task.folders(out)), task.experiment)


def is_busy(task: Task, out: Path) -> bool:
    """Return whether some process, on whatever machine, works on a task."""
    return any(map(supervision.is_locked, task.folders(out)))


def has_failed(task: Task, out: Path) -> bool:
    """Return whether a trial of a task has a result that says that it failed."""
    results = map(lasting_result, task.folders(out))
    return any(result is not None and result["status"] == "failed" for result in results)


def prepare(task: Task, out: Path) -> bool:
    """Prepare the folders of a task, unless another process works on it.

    Returns:
        Whether none does.
    """
    existing = [folder for folder in task.folders(out) if folder.is_dir()]
    with supervision.locked_all(existing) as are_free:
        if are_free:
            task.prepare(out)
    return are_free


def is_taken(ended: "subprocess.CompletedProcess[str]") -> bool:
    """Return whether a run left because another process works on its trial."""
    return ended.returncode == 2 and supervision.BUSY in ended.stderr


def last_words(ended: "subprocess.CompletedProcess[str]") -> str:
    """Return the line in which a run reports its trial, or the best one of several.

    Indented lines give details, and the last line says where the runs are. Of a run that failed it
    is the last line.
    """
    if ended.returncode == 0:
        *lines, last = ended.stdout.strip().split("\n")
        return next((line for line in reversed(lines) if line[:1].strip()), last)
    return (ended.stderr.strip() or ended.stdout.strip()).rpartition("\n")[2]

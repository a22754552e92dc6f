"""Orders: what the jobs of a cluster are to run, and how each ended, as files below a run folder.

They are all that a starter and its jobs have in common, so the starter may end, and another one of
the same command finds the jobs again. An order is written before its jobs are submitted, under a
name that the jobs bear as well.
"""

import dataclasses
import os
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import hardware, stopping
from algoperf.machine.supervision import INTERRUPTED
from algoperf.run_folder import run_log
from algoperf.study.executors import executor
from algoperf.study.executors.executor import PROGRAM, Task
from algoperf.study.executors.local import Processes

FOLDER = ".jobs"  # below the folder of the runs
MISTAKE = 2


@dataclasses.dataclass(frozen=True)
class Order:
    """Tasks that were given to a cluster together.

    Attributes:
        path: The order's file.
        content: What it holds: 'executor', the name of the cluster's kind; 'folder', the one that
            its commands are run in; 'threads', the cores of each; 'tasks', for each its
            'experiment', 'command' and the run 'folders' of its trials, from the folder of the
            runs.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name that its jobs have on the cluster, too."""
        return self.path.stem

    @property
    def tasks(self) -> list[Mapping[str, Any]]:
        """What each of its jobs runs, by the job's number."""
        return list(self.content["tasks"])

    def index(self, folders: Sequence[str]) -> int | None:
        """Return which of its jobs works in these run folders; None where none does."""
        listed = [list(task["folders"]) for task in self.tasks]
        return listed.index(list(folders)) if list(folders) in listed else None

    def outcome(self, index: int) -> dict[str, Any] | None:
        """Return how a job ended: its exit 'code', its last 'line' and its 'host'; or None."""
        return run_log.read_json(_outcome(self.path, index))

    def remove(self) -> None:
        """Remove its files; the logs of its jobs stay."""
        for index in range(len(self.tasks)):
            _outcome(self.path, index).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def folders(task: Task, out: Path) -> list[str]:
    """Return the run folders of a task as an order names them."""
    return [path.relative_to(out).as_posix() for path in task.folders(out)]


def write(kind: str, commands: Mapping[Task, Sequence[str]], out: Path, threads: int) -> Order:
    """Write an order for tasks and their commands.

    Args:
        kind: The name of the cluster's kind.
        commands: The arguments of `algoperf` for each task.
        out: The folder of the runs.
        threads: The cores of each.
    """
    path = out / FOLDER / f"algoperf-{secrets.token_hex(4)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "executor": kind,
        "folder": str(Path.cwd()),
        "threads": threads,
        "tasks": [
            {
                "experiment": task.experiment,
                "command": list(command),
                "folders": folders(task, out),
            }
            for task, command in commands.items()
        ],
    }
    run_log.write_json(path, content)
    return Order(path.resolve(), content)


def read_all(out: Path, kind: str | None = None) -> list[Order]:
    """Return the orders below a folder of runs that can be read.

    Args:
        out: The folder of the runs.
        kind: The name of a cluster's kind; None for all.
    """
    found_orders = []
    for path in sorted((out / FOLDER).glob("algoperf-*.json")):
        content = run_log.read_json(path) or {}
        if isinstance(content.get("tasks"), list) and kind in (None, content.get("executor")):
            found_orders.append(Order(path.resolve(), content))
    return found_orders


def carry_out(path: str, index: int) -> int:
    """Run one task of an order, in its job; called by the cluster.

    Signals are passed on to the run, which saves its trial. How the run ended is written beside the
    order, unless it was stopped: then it is to be run again.

    Args:
        path: The order's file.
        index: The number of the task.

    Returns:
        The exit code of the run: `INTERRUPTED` where it was stopped.
    """
    content = run_log.read_json(Path(path)) or {}
    processes = Processes()
    try:
        words = list(content["tasks"][index]["command"])
        os.chdir(content["folder"])
        with hardware.limited_to(content["threads"]), processes.stops:
            code, line = _run(processes, words)
    except (OSError, UserError, LookupError, TypeError) as error:
        code, line = MISTAKE, f"{path} cannot be carried out here: {error!r}"
    if stopping.has_stopped(code, processes.are_stopped):
        return INTERRUPTED
    ended = {"code": code, "line": line, "host": platform.node()}
    run_log.write_json(_outcome(Path(path), index), ended)
    return code


def _run(processes: Processes, words: Sequence[str]) -> tuple[int, str]:
    """Run a command, again and again while another process works on its trial."""
    while True:
        ended = processes.run([*PROGRAM, *words], None)
        if ended is None:
            return INTERRUPTED, ""
        if not executor.is_taken(ended):
            return ended.returncode, executor.last_words(ended)
        for _ in range(int(executor.RETRY_S)):
            if not processes.are_stopped:
                time.sleep(1)


def _outcome(path: Path, index: int) -> Path:
    return path.with_name(f"{path.stem}.{index}.outcome")

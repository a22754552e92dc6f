"""Orders: what the jobs of a cluster are to run, and how each ended, as files below a run folder.

They are all that a starter and its jobs have in common, so the starter may end, and another one of
the same command finds the jobs again. An order is written before its jobs are submitted, under a
name that the jobs bear as well.
"""

import dataclasses
import platform
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algoperf.run_folder import run_log

if TYPE_CHECKING:
    from algoperf.study.executors.executor import Task

FOLDER = ".jobs"  # below the folder of the runs


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


def folders(task: "Task", out: Path) -> list[str]:
    """Return the run folders of a task as an order names them."""
    return [path.relative_to(out).as_posix() for path in task.folders(out)]


def write(kind: str, commands: "Mapping[Task, Sequence[str]]", out: Path, threads: int) -> Order:
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


def write_outcome(path: Path, index: int, code: int, line: str) -> None:
    """Write how a job ended, beside its order.

    Args:
        path: The order's file.
        index: The job's number.
        code: The exit code of its run.
        line: The last line of its run.
    """
    ended = {"code": code, "line": line, "host": platform.node()}
    run_log.write_json(_outcome(path, index), ended)


def _outcome(path: Path, index: int) -> Path:
    return path.with_name(f"{path.stem}.{index}.outcome")

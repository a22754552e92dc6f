"""Run tasks as jobs of a cluster, of whatever kind, and wait for them.

The jobs are known by the orders below the folder of the runs (`orders`), and how each ended by what
it wrote there; of the cluster nothing is asked but which jobs it has.
"""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from algoperf.machine import stopping
from algoperf.study.executors import executor, orders
from algoperf.study.executors.executor import Note, Task
from algoperf.study.executors.orders import Order

POLL_S = 2.0  # between looks at the jobs
LOOKS = 3  # that find a job neither on the cluster nor ended, before it counts as lost
Job = tuple[str, int]  # the name of an order, and the number of one of its jobs


class Cluster(Protocol):
    """Where jobs run."""

    @property
    def name(self) -> str:
        """The name of its kind, as orders have it."""

    @property
    def threads(self) -> int:
        """The cores of each job."""

    def submit(self, order: Order) -> None:
        """Submit a job for each task of an order, which calls `job.carry_out`.

        Raises:
            UserError: The cluster refuses it.
        """

    def alive(self, listed: Collection[Order]) -> set[Job] | None:
        """Return which jobs of some orders wait or run; None where the cluster does not answer."""

    def commands(self, listed: Collection[Order]) -> str:
        """Return what a user can type to look at the jobs of some orders, and to end them."""


def run(cluster: Cluster, todo: Sequence[Task], out: Path, note: Note) -> int:
    """Run tasks as `executor.Executor.run` says.

    A signal ends this process alone: its jobs go on, and the same command finds them.

    Raises:
        InterruptedRunError: A signal came.
    """
    out.mkdir(parents=True, exist_ok=True)
    watch = _Watch(cluster, [task for task in todo if not task.has_ended(out)], out, note)
    with stopping.Stops() as stops:
        watch.begin()
        while watch.is_needed and not stops.are_asked:
            time.sleep(POLL_S)
            watch.look()
    if stops.are_asked:
        watch.leave()
        stops.check(out)
    return watch.failed


class _Watch:
    """The tasks that a starter waits for: with a job, or with another process that runs them."""

    def __init__(self, cluster: Cluster, todo: Sequence[Task], out: Path, note: Note) -> None:
        self._cluster, self._out, self._note = cluster, out, note
        # Building a command may write a file that tasks share.
        self._commands = {task: task.command(out) for task in todo}
        self._jobs: dict[Task, tuple[Order, int]] = {}
        self._without = list(todo)
        self._missed: dict[Task, int] = {}
        self.failed = 0

    @property
    def is_needed(self) -> bool:
        """Whether a task is left."""
        return bool(self._jobs or self._without)

    @property
    def _orders(self) -> list[Order]:
        return list({order.name: order for order, _ in self._jobs.values()}.values())

    def begin(self) -> None:
        """Find the jobs that an earlier starter left, and submit the others."""
        earlier = orders.read_all(self._out, self._cluster.name)
        alive = self._cluster.alive(earlier) if earlier else set()
        for order in earlier if alive is not None else []:
            jobs = [job for job in alive or () if job[0] == order.name]
            for task in self._without:
                index = order.index(orders.folders(task, self._out))
                if index is not None and ((order.name, index) in jobs):
                    self._jobs[task] = order, index
            if not jobs:
                order.remove()
        self._without = [task for task in self._without if task not in self._jobs]
        if self._jobs:
            self._note(f"{len(self._jobs)} jobs of before go on")
        self._submit()

    def look(self) -> None:
        """See which tasks have ended, and submit those that another process has left."""
        alive = self._cluster.alive(self._orders) if self._jobs else set()
        for task, (order, index) in list(self._jobs.items()):
            ended = order.outcome(index)
            if ended is not None:
                self._end(task, ended["code"], ended["line"])
            elif alive is not None and (order.name, index) not in alive:
                self._missed[task] = self._missed.get(task, 0) + 1
                if self._missed[task] >= LOOKS:
                    self._end(
                        task,
                        1,
                        f"its job was cancelled or lost; its logs are in {order.path.parent}",
                    )
            else:
                self._missed.pop(task, None)
        self._submit()

    def leave(self) -> None:
        """Say that the jobs go on."""
        if self._jobs:
            self._note(
                f"{len(self._jobs)} jobs go on, and the same command finds them: "
                f"{self._cluster.commands(self._orders)}"
            )

    def _end(self, task: Task, code: int, line: str) -> None:
        order, _ = self._jobs.pop(task)
        self.failed += code != 0
        self._note(f"{executor.label(task, self._out)}: {line}" if code else line)
        if order not in self._orders:
            order.remove()

    def _submit(self) -> None:
        """Submit the tasks that nobody works on, and drop those that have ended by now."""
        for task in list(self._without):
            if task.has_ended(self._out):
                self._without.remove(task)
                self._note(f"{executor.label(task, self._out)}: ended by another process")
        free = [task for task in self._without if not executor.is_busy(task, self._out)]
        free = [task for task in free if executor.prepare(task, self._out)]
        if not free:
            return
        commands = {task: self._commands[task] for task in free}
        order = orders.write(self._cluster.name, commands, self._out, self._cluster.threads)
        try:
            self._cluster.submit(order)
        except BaseException:
            order.remove()
            raise
        self._jobs |= {task: (order, index) for index, task in enumerate(free)}
        self._without = [task for task in self._without if task not in free]
        self._note(f"submitted: {len(free)} jobs; {self._cluster.commands([order])}")

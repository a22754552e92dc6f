"""Run tasks on a cluster of Ray, or on an instance of Ray that this process starts for itself.

Each task has an actor of its own, which is detached: it lives on when the starter has ended, and
Ray starts it anew, on whatever machine, when its own has died. What it does is to start the task's
job and to wait for it. A job that was asked to stop has saved its trial, and its actor dies, so
that Ray starts it again.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from algoperf.errors import UserError
from algoperf.machine import supervision
from algoperf.machine.supervision import INTERRUPTED
from algoperf.study.executors import cluster, job
from algoperf.study.executors.executor import Note, Task
from algoperf.study.executors.orders import Order

NAMESPACE = "algoperf"
ALWAYS = -1  # how often Ray starts an actor anew
OWN = "local"  # the address of an instance that this process starts


@dataclasses.dataclass(frozen=True)
class RayCluster:
    """Runs tasks as detached actors of Ray; see `executor.Executor`.

    Attributes:
        threads: The cores of each job.
        memory_gb: The memory that Ray sets apart for each job; None for none.
        gpus: The GPUs of each job.
        address: The cluster's address, 'auto' for the one on this machine, 'local' for an instance
            of this process's own; None for what RAY_ADDRESS says, else 'local'.
    """

    threads: int = 1
    memory_gb: float | None = None
    gpus: int = 0
    address: str | None = None
    name: ClassVar[str] = "ray"
    keeps_secrets: ClassVar[bool] = False

    def run(self, todo: Sequence[Task], out: Path, note: Note, secret: str | None = None) -> int:
        """Run the tasks that have no result yet, and wait until all have ended.

        Args:
            todo: The tasks.
            out: The folder of the runs, which all machines see.
            note: Called with a line for the user after each run.
            secret: None, since Ray would write it down.

        Returns:
            The number of runs that failed.

        Raises:
            UserError: There is no Ray here, or no cluster at the address.
            InterruptedRunError: A signal stopped this process; its jobs go on, but those of an
                instance of its own.
        """
        assert secret is None
        ray = _ray()
        address = self.address or os.environ.get("RAY_ADDRESS") or OWN
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Nothing is sent elsewhere.
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                **({"include_dashboard": False} if address == OWN else {}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--executor ray: no cluster at {address!r}: {error}") from error
        try:
            self._check(ray)
            return cluster.run(self, todo, out, note)
        finally:
            ray.shutdown()

    def submit(self, order: Order) -> None:
        """Start an actor for each task of an order."""
        ray = _ray()
        resources: dict[str, Any] = {"num_cpus": self.threads}
        if self.gpus:
            resources["num_gpus"] = self.gpus
        if self.memory_gb is not None:
            resources["memory"] = round(self.memory_gb * 2**30)
        path = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        for index in range(len(order.tasks)):
            ray.remote(Keeper).options(
                name=_actor(order.name, index),
                lifetime="detached",
                max_restarts=ALWAYS,
                runtime_env={"env_vars": path},
                **resources,
            ).remote(str(order.path), index)

    def alive(self, listed: Collection[Order]) -> set[cluster.Job] | None:
        """Return which jobs of some orders have an actor, be it one that waits to be started."""
        names = set(_ray().util.list_named_actors())
        return {
            (order.name, index)
            for order in listed
            for index in range(len(order.tasks))
            if _actor(order.name, index) in names
        }

    def commands(self, listed: Collection[Order]) -> str:
        """Return what shows the cluster's work."""
        return "to look: ray status"

    def _check(self, ray: ModuleType) -> None:
        """Raise UserError where no machine of the cluster has what a job asks for."""
        asked = {"CPU": float(self.threads), "GPU": float(self.gpus)}
        asked["memory"] = (self.memory_gb or 0.0) * 2**30
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for machine in machines:
            if all(machine.get(name, 0.0) >= amount for name, amount in asked.items()):
                return
        raise UserError(
            f"--executor ray: none of the cluster's {len(machines)} machines has {self.threads} "
            f"cores, {self.gpus} GPUs and {self.memory_gb or 0:g} GB of memory for a job"
        )


class Keeper:
    """Keeps the job of one task going, as an actor of Ray.

    Args:
        path: The order's file.
        index: The number of the task.
    """

    def __init__(self, path: str, index: int) -> None:
        words = [sys.executable, "-P", "-m", __name__, path, str(index)]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        code = self._process.wait()
        if code == INTERRUPTED or code < 0:
            os._exit(1)  # Ray starts this actor again, where there is room.
        ray = _ray()
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def main(arguments: Sequence[str]) -> int:
    """Run the job of a task: the process that a `Keeper` starts.

    Args:
        arguments: The order's file, and the number of the task.

    Returns:
        The exit code of the run.
    """
    supervision.die_with_starter()
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    path, index = arguments
    return job.carry_out(path, int(index))


def _actor(order: str, index: int) -> str:
    return f"{order}-{index}"


def _ray() -> ModuleType:
    if importlib.util.find_spec("ray") is None:
        raise UserError("--executor ray needs Ray: pip install 'algoperf[ray]'")
    return importlib.import_module("ray")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Several devices that train one JAX model: all of one process, or a share in each of several.

Several processes run one program over global arrays, which `jax.distributed` introduces to one
another: on processors they add up by gloo, on GPUs by NCCL. What the loop asks
(`algoperf.backends.ranks`) goes through sockets of this machine, since it is numbers of the host
that they ask of one another after each step: 0.05 ms, where JAX's own ways take 0.3 to 5 ms
(`tests/benchmarks/jax_agreement.py`), and wait for the devices.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import jax

from algoperf.backends.ranks import Alone, Ranks
from algoperf.errors import UserError
from algoperf.machine import hardware

# A trial stands still while it is evaluated, for however long. Who has died is seen by its process.
PATIENCE_S = 30 * 24 * 3600
LOOK_S = 0.01  # How often a process looks for the first one, until that is there.


class JaxRanks:
    """A group of processes on one machine (see `algoperf.backends.ranks.Ranks`).

    Making one joins the group of `jax.distributed`.

    Args:
        rank: The number of this process.
        count: How many there are.
        devices: How many devices they have together, each the same number.
        meeting: A path of at most 100 bytes, at which nothing is, by which they find one another.
        shard: What their devices divide among them.
    """

    def __init__(
        self, rank: int, count: int, devices: int, meeting: str, shard: str | None = None
    ) -> None:
        self.rank, self.count, self.shard = rank, count, shard
        # An average in the optimizer's state, and what a full form lays out as it wants to.
        self.hand_over_parts = True
        self._lines = _lines(rank, count, meeting)
        share = devices // count
        jax.config.update("jax_num_cpu_devices", share)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # It would answer the signals by which a trial is asked to stop.
        jax.config.update("jax_enable_preemption_service", False)
        # The cores are shared. XLA reads it when it makes its devices.
        os.environ.setdefault("NPROC", str(max(1, hardware.thread_count() // count)))
        # In a folder of our own: no port that another program may have, or connect to.
        coordinator = f"unix:{meeting}_jax"
        jax.distributed.initialize(
            coordinator,
            count,
            rank,
            local_device_ids=list(range(rank * share, (rank + 1) * share)),
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=PATIENCE_S,
            coordinator_bind_address=coordinator,
        )

    def largest(self, value: int) -> int:
        """Return the largest of what the processes give."""
        return int(max(self.gathered(int(value))))

    def from_first(self, value: Any) -> Any:
        """Return what rank 0 gives."""
        if self.rank:
            return self._hear()[0]
        self._tell(value)
        return value

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process gives, plain values as JSON has them, by rank."""
        if self.rank:
            self._tell(value)
            values: list[Any] = self._hear()[0]
        else:
            values = [value, *self._hear()]
            self._tell(values)
        return values

    def wait(self) -> None:
        """Return once every process has come here."""
        self.gathered(None)

    def _tell(self, value: Any) -> None:
        content = json.dumps(value).encode()
        with _in_words():
            for line in self._lines:
                line.send_bytes(content)

    def _hear(self) -> list[Any]:
        with _in_words():
            return [json.loads(line.recv_bytes()) for line in self._lines]


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise ConnectionError("connection closed by another process of the trial") from error


def _lines(rank: int, count: int, meeting: str) -> list[Connection]:
    """Return the lines of rank 0 to the others, by rank, or that of another one to rank 0."""
    if rank:
        while True:
            try:
                line: Any = Client(meeting, "AF_UNIX")
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(LOOK_S)
            else:
                line.send(rank)
                return [line]
    with Listener(meeting, "AF_UNIX", backlog=count) as listener:
        lines: dict[int, Any] = {}
        for _ in range(1, count):
            line = listener.accept()
            lines[line.recv()] = line
    return [lines[rank] for rank in sorted(lines)]


def join(
    rank: int, devices: int, meeting: str, shard: str | None = None, processes: int | None = None
) -> Ranks:
    """Let this process train on so many devices; see `algoperf.backends.join`.

    On a processor so many devices are made of its cores.
    """
    if processes is not None and processes > 1:
        ranks: Ranks = JaxRanks(rank, processes, devices, meeting, shard)
    else:
        ranks = Alone(shard=shard)
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError as error:
            raise UserError(
                f"--devices {devices}: JAX has computed in this process before"
            ) from error
    if jax.device_count() != devices:
        raise UserError(
            f"--devices {devices}: JAX trains on all devices of the machine, here "
            f"{jax.device_count()}; hide some from it, as by CUDA_VISIBLE_DEVICES"
        )
    return ranks

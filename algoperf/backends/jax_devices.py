"""Several devices that train one JAX model: all of one process, or a share in each of several.

Several processes run one program over global arrays, which `jax.distributed` introduces to one
another: on processors they add up by gloo, on GPUs by NCCL. What the loop asks after each step goes
through sockets (`algoperf.backends.meeting`), since it is numbers of the host: 0.03 ms, where
JAX's own ways take 0.3 ms (a barrier, which tells no value) to 16 ms (`process_allgather`, which
waits for the devices), by `tests/benchmarks/jax_agreement.py`.
"""

import os

import jax

from algoperf.backends.meeting import Meeting
from algoperf.backends.ranks import Alone, Ranks
from algoperf.errors import UserError
from algoperf.machine import hardware

# A trial stands still while it is evaluated, for however long. Who has died is seen by its process.
PATIENCE_S = 30 * 24 * 3600


class JaxRanks(Meeting):
    """A group of processes on one machine (see `algoperf.backends.ranks.Ranks`).

    Making one joins the group of `jax.distributed`.

    Args:
        rank: The number of this process.
        count: How many there are.
        devices: How many devices they have together, each the same number.
        meeting: A path of at most 100 bytes, at which nothing is, by which they find one another.
        shard: What their devices divide among them.
    """

    # An average in the optimizer's state, and what a full form lays out as it wants to.
    hand_over_parts = True

    def __init__(
        self, rank: int, count: int, devices: int, meeting: str, shard: str | None = None
    ) -> None:
        super().__init__(rank, count, meeting)
        self.shard = shard
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


def join(
    rank: int, devices: int, meeting: str, shard: str | None = None, processes: int | None = None
) -> Ranks:
    """Let this process train on so many devices; see `algoperf.backends.join`."""
    if processes is not None and processes > 1:
        ranks: Ranks = JaxRanks(rank, processes, devices, meeting, shard)
        _count(devices)
        return ranks
    have(devices)
    return Alone(shard=shard)


def have(devices: int) -> None:
    """Let this process have so many devices. On a processor they are made of its cores.

    Raises:
        UserError: There are others, or JAX has computed before.
    """
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:
        raise UserError(f"--devices {devices}: JAX has computed in this process before") from error
    _count(devices)


def _count(devices: int) -> None:
    """Raise UserError where JAX has not so many devices, in all processes together."""
    try:
        count = jax.device_count()
    except RuntimeError as error:  # Of several processes one asks for a GPU that is not there.
        raise UserError(f"--devices {devices}: JAX cannot have them here ({error})") from error
    if count != devices:
        raise UserError(
            f"--devices {devices}: JAX trains on all devices of the machine, here {count}; hide "
            "some from it, as by CUDA_VISIBLE_DEVICES"
        )

"""Several devices that train one JAX model, all of them of one process."""

import jax

from algoperf.backends.ranks import Alone, Ranks
from algoperf.errors import UserError


def join(rank: int, devices: int, meeting: str, shard: str | None = None) -> Ranks:
    """Let this process train on so many devices; see `algoperf.backends.join`."""
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
    if jax.local_device_count() != devices:
        raise UserError(
            f"--devices {devices}: JAX trains on all devices of the machine, here "
            f"{jax.local_device_count()}; hide some from it, as by CUDA_VISIBLE_DEVICES"
        )

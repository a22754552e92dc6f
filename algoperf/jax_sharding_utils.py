"""How arrays lie on the devices in JAX: copied to all, or cut along the batch. AlgoPerf's names,
for submissions that jit their update over global arrays.

JAX is imported when a function is called.
"""

from typing import Any


def get_mesh() -> Any:
    """The mesh of all local devices, along the one axis 'batch'."""
    import jax

    devices = jax.local_devices()
    return jax.make_mesh(
        (len(devices),),
        ("batch",),
        devices=devices,
        axis_types=(jax.sharding.AxisType.Auto,),  # linen's Embed needs it
    )


def get_replicate_sharding() -> Any:
    """The sharding that copies an array to every device."""
    import jax

    return jax.sharding.NamedSharding(get_mesh(), jax.sharding.PartitionSpec())


def get_batch_dim_sharding() -> Any:
    """The sharding that cuts an array's first axis into one part a device."""
    import jax

    return jax.sharding.NamedSharding(get_mesh(), jax.sharding.PartitionSpec("batch"))


def replicate(tree: Any) -> Any:
    """Copy a tree's arrays to every device."""
    import jax

    return jax.device_put(tree, get_replicate_sharding())


def shard_along_batch_dim(tree: Any) -> Any:
    """Cut the first axis of a tree's arrays into one part a device."""
    import jax

    return jax.device_put(tree, get_batch_dim_sharding())

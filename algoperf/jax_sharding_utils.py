"""How arrays are laid out over the devices in JAX: copied to all, or split along the batch.

The names are AlgoPerf's, for submissions that jit their update over global arrays. JAX is
imported when a function is called, not when this module is.
"""

from typing import Any


def get_mesh() -> Any:
    """Return the mesh of all local devices, along a single axis named 'batch'."""
    import jax

    devices = jax.local_devices()
    return jax.make_mesh(
        (len(devices),),
        ("batch",),
        devices=devices,
        axis_types=(jax.sharding.AxisType.Auto,),  # linen's Embed needs it
    )


def get_replicate_sharding() -> Any:
    """Return the sharding that copies an array to every device."""
    import jax

    return jax.sharding.NamedSharding(get_mesh(), jax.sharding.PartitionSpec())


def get_batch_dim_sharding() -> Any:
    """Return the sharding that splits an array's first axis into one part for each device."""
    import jax

    return jax.sharding.NamedSharding(get_mesh(), jax.sharding.PartitionSpec("batch"))


def replicate(tree: Any) -> Any:
    """Return the tree with its arrays copied to every device."""
    import jax

    return jax.device_put(tree, get_replicate_sharding())


def shard_along_batch_dim(tree: Any) -> Any:
    """Return the tree with the first axis of its arrays split into one part for each device."""
    import jax

    return jax.device_put(tree, get_batch_dim_sharding())

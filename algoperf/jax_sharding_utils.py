"""How arrays are laid out over the devices in JAX: copied to all, split along the batch, or split
along their largest axis.

The names are AlgoPerf's, for submissions that jit their update over global arrays, but for
`get_largest_axis_sharding`. JAX is imported when a function is called, not when this module is.
"""

from collections.abc import Sequence
from typing import Any


def get_mesh() -> Any:
    """Return the mesh of all devices, those of all processes that train together, along a single
    axis named 'batch'.
    """
    import jax

    devices = jax.devices()
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


def get_largest_axis_sharding(shape: Sequence[int]) -> Any:
    """Return the sharding that splits an array along its largest axis that divides by the number of
    devices, the first of equals: that of parameters under `--shard parameters`.

    Args:
        shape: The array's shape.

    Returns:
        The sharding; that which copies the array to every device where no axis divides.
    """
    import jax

    mesh = get_mesh()
    axes = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    largest = max(axes, key=lambda axis: shape[axis], default=None)
    names = () if largest is None else (*[None] * largest, "batch")
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*names))


def replicate(tree: Any) -> Any:
    """Return the tree with its arrays copied to every device."""
    return place(tree, get_replicate_sharding())


def shard_along_batch_dim(tree: Any) -> Any:
    """Return the tree with the first axis of its arrays split into one part for each device."""
    return place(tree, get_batch_dim_sharding())


def place(tree: Any, shardings: Any) -> Any:
    """Return the tree with its arrays laid out over the devices.

    Args:
        tree: Arrays; those that a process has for itself are the same in all processes.
        shardings: The sharding of each, or one for all.
    """
    import jax

    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    # Of a process's own array `device_put` to several processes makes one without readable parts.
    return jax.jit(lambda tree: tree, out_shardings=shardings)(tree)

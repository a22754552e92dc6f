"""Names that JAX had when version 0.5 was current and has removed since.

Each does what its replacement does.
"""

from typing import Any

import jax
import jax.numpy as jnp


def removed() -> dict[str, dict[str, Any]]:
    """Return the removed names with their replacements, by module."""
    trees = {
        name: getattr(jax.tree_util, name)
        for name in dir(jax.tree_util)
        if name.startswith("tree_") and not hasattr(jax, name)
    }
    put = {"device_put_replicated": _put_replicated, "device_put_sharded": _put_sharded}
    return {
        "jax": {**trees, **put},
        "jax.random": {"KeyArray": jax.Array},
        "jax.numpy": {"clip": _clip},
    }


def _clip(
    a: Any,
    a_min: Any = None,
    a_max: Any = None,
    *,
    min: Any = None,
    max: Any = None,
) -> jax.Array:
    return jnp.clip(a, a_min if min is None else min, a_max if max is None else max)


def _put_replicated(tree: Any, devices: Any) -> Any:
    return jax.tree.map(lambda leaf: _put([leaf] * len(devices), devices), tree)


def _put_sharded(shards: Any, devices: Any) -> Any:
    return jax.tree.map(lambda *leaves: _put(list(leaves), devices), *shards)


def _put(leaves: list[Any], devices: Any) -> jax.Array:
    """Return one leaf for each device, stacked along a new first axis."""
    mesh = jax.sharding.Mesh(list(devices), ("batch",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    stacked: jax.Array = jax.device_put(jnp.stack(leaves), sharding)
    return stacked

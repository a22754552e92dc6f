"""The leading axis of devices that `jax.pmap` needs.

Parameters have one copy for each local device, and batches are split into as many parts.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import jax_utils

from algoperf.backends import jax_backend
from algoperf.errors import UserError


class DeviceAxis:
    """Adds the axis of devices for the submission, and removes it for the rest of the library."""

    def __init__(self) -> None:
        self._devices = jax.local_devices()
        mesh = jax.sharding.Mesh(self._devices, ("batch",))
        self._stacked = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))

    def add(self, tree: Any) -> Any:
        """Return the tree with its arrays stacked, with one copy for each device.

        Raises:
            UserError: Each device is to have a part of them only.
        """
        arrays = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
        if not all(array.is_fully_replicated for array in arrays):
            raise UserError(
                "--shard parameters: this submission runs under jax.pmap, where each device has "
                "all parameters"
            )
        return self.settle(jax_utils.replicate(tree, self._devices))

    def settle(self, tree: Any, beside: Any = None) -> Any:
        """Return the tree with the sharding that a step under `pmap(axis_name="batch")` gives it.
        `replicate` gives stacked arrays another name for their axis, and the step would be compiled
        once for each of the two names.
        """

        def named(leaf: Any) -> Any:
            is_stacked = (
                isinstance(leaf, jax.Array)
                and leaf.ndim > 0
                and leaf.sharding.is_equivalent_to(self._stacked, leaf.ndim)
            )
            return jax.device_put(leaf, self._stacked) if is_stacked else leaf

        return jax.tree.map(named, tree)

    def first(self, tree: Any) -> Any:
        """Return the tree with only the first device's part of its arrays."""
        return jax.tree.map(lambda leaf: leaf[0], tree)

    def first_state(self, model_state: Any) -> Any:
        """The model state to evaluate: each device has running statistics of its own rows, and
        their mean over the devices counts, as in version 0.5's evaluation; of the rest, which is
        the same on all devices, the first device's part.
        """
        running = jax_backend.statistics(model_state)
        if not running or len(self._devices) == 1:
            return self.first(model_state)
        mean = jax.tree.map(lambda leaf: leaf.mean(0), running)
        rest = {name: each for name, each in model_state.items() if name not in running}
        return {**self.first(rest), **mean}

    def cut(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the batch with its arrays in the shape (devices, rows / devices, ...).

        `pmap` moves the parts to their devices.

        Args:
            batch: Arrays of the shape (rows, ...) by name.

        Raises:
            UserError: The number of rows is no multiple of the number of devices.
        """
        count = len(self._devices)
        rows = len(next(iter(batch.values())))
        if rows % count:
            raise UserError(
                f"a batch of {rows} does not divide over {count} devices; choose a multiple with "
                "--batch-size"
            )
        return {name: value.reshape(count, -1, *value.shape[1:]) for name, value in batch.items()}

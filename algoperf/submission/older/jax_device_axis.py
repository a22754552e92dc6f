"""The leading axis of devices that `jax.pmap` wants: parameters once for every local device,
batches cut into as many parts.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import jax_utils

from algoperf.backends import jax_backend
from algoperf.errors import UserError


class DeviceAxis:
    """Adds the axis for the submission and takes it off for the rest of the library."""

    def __init__(self) -> None:
        self._devices = jax.local_devices()
        mesh = jax.sharding.Mesh(self._devices, ("batch",))
        self._stacked = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))

    def add(self, tree: Any) -> Any:
        """A copy of the tree's arrays for every device, stacked."""
        return self.settle(jax_utils.replicate(tree, self._devices))

    def settle(self, tree: Any) -> Any:
        """The tree with its stacked arrays named as a step under `pmap(axis_name="batch")` leaves
        them: `replicate` names their axis otherwise, and the step would be compiled for each.
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
        """The first device's part of the tree's arrays."""
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
        """The batch's arrays as (devices, rows / devices, ...); pmap puts the parts where they
        belong.
        """
        count = len(self._devices)
        rows = len(next(iter(batch.values())))
        if rows % count:
            raise UserError(
                f"a batch of {rows} does not divide over {count} devices; choose a multiple with "
                "--batch-size"
            )
        return {name: value.reshape(count, -1, *value.shape[1:]) for name, value in batch.items()}

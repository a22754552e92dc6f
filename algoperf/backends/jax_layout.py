"""Where parameters and optimizer state lie on the devices in JAX: whole on each of them, or with a
part on each (`--shard`).

Only where arrays lie before and after a step is said here. What of them a computation needs, and
when, XLA's partitioner finds out and moves; gradients lie as what they update does.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from algoperf import jax_sharding_utils
from algoperf.backends.ranks import OPTIMIZER, PARAMETERS

HOST = "pinned_host"  # JAX's name of the host's memory that a device reads by itself.


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the devices divide among them: one of `backends.ranks`' kinds, or None for nothing.

    A divided array is split along its largest axis that divides by the number of devices; one that
    has no such axis, as a scalar, is whole on each device.

    With `offload` the optimizer's state lies in the host's memory between steps, divided alike.
    """

    shard: str | None = None
    offload: bool = False

    def of_params(self, tree: Any) -> Any:
        """Return the sharding of each parameter of a tree, or one for all."""
        return _shardings(tree, divided=self.shard == PARAMETERS)

    def of_state(self, tree: Any) -> Any:
        """Return the sharding of each array of an optimizer state between steps, or one for all."""
        shardings = self.of_state_in_step(tree)
        if not self.offload:
            return shardings
        return jax.tree.map(lambda each: each.with_memory_kind(HOST), shardings)

    def of_state_in_step(self, tree: Any) -> Any:
        """Return the sharding of each array of an optimizer state within a step, or one for all."""
        return _shardings(tree, divided=self.shard in (OPTIMIZER, PARAMETERS))


def _shardings(tree: Any, *, divided: bool) -> Any:
    if not divided:
        return jax_sharding_utils.get_replicate_sharding()
    of_shape = jax_sharding_utils.get_largest_axis_sharding
    return jax.tree.map(lambda leaf: of_shape(np.shape(leaf)), tree)

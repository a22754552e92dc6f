"""The published contract of version 0.5, adapted to the current one. Nothing outside this package
knows its particulars.

Where it differs: the package is named `algorithmic_efficiency`; dropout is fixed when the model is
initialised; in JAX the update runs under `jax.pmap`, so that parameters, states and batches carry a
leading axis of devices; and it calls functions that JAX and NumPy have removed since.
"""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

from algoperf import spec
from algoperf.submission.older import names
from algoperf.submission.older.workload import OlderWorkload


@dataclasses.dataclass(frozen=True)
class Contract:
    """Which generation of the published contract a submission in the full form is written for.

    `older`: that of version 0.5. `device_axis`: its update runs under `jax.pmap`.
    """

    older: bool = False
    device_axis: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """What a submission sees: its workload, and batches as `place` leaves them. `first` makes of
    its parameters what the rest of the library works with, and `first_state` of its model state.
    """

    workload: Any
    place: Callable[[Any], Any]
    first: Callable[[Any], Any] = lambda tree: tree
    first_state: Callable[[Any], Any] = lambda tree: tree


def preparation(
    contract: Contract, framework: str, uses_removed: bool
) -> Callable[[ModuleType], None]:
    """Make the older package's name importable in this process where the contract is the older one;
    return what each module of the submission needs before it runs. `uses_removed`: its source
    mentions names that are gone, as some do that are written for the current contract.
    """
    if contract.older:
        names.install_package()
    if contract.older or uses_removed:
        return names.supply_removed(framework)
    return lambda module: None


def settling(contract: Contract, settle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What places a submission's first optimizer state: `settle`, the framework's, or the axis of
    devices.
    """
    if not contract.device_axis:
        return settle
    from algoperf.submission.older.jax_device_axis import DeviceAxis

    return DeviceAxis().settle


def view(
    contract: Contract, bound: spec.Workload, place: Callable[[Any], Any], hyperparameters: Any
) -> View:
    """What a submission written for the contract sees of a workload whose batches `place` puts on
    the device.
    """
    if not contract.older:
        return View(bound, place)
    if not contract.device_axis:
        return View(OlderWorkload(bound, hyperparameters, None), place)
    from algoperf.submission.older.jax_device_axis import DeviceAxis

    axis = DeviceAxis()
    return View(OlderWorkload(bound, hyperparameters, axis), axis.cut, axis.first, axis.first_state)

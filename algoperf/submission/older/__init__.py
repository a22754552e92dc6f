"""Adapt submissions that are written for version 0.5 of the published contract to the current one.

Nothing outside this package knows the details. The older contract differs in four ways. Its
package is named `algorithmic_efficiency`. Dropout is fixed when the model is initialised. In JAX
the update runs under `jax.pmap`, so that parameters, states and batches have a leading axis of
devices. And its submissions call functions that JAX and NumPy have removed since.
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
    """The generation of the published contract that a full-form submission is written for.

    Attributes:
        older: Whether it is that of version 0.5.
        device_axis: Whether its update runs under `jax.pmap`.
    """

    older: bool = False
    device_axis: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """The objects that a submission sees, in the form that its contract has.

    Attributes:
        workload: The workload.
        place: Puts a batch on the device.
        first: Converts the submission's parameters to the form that the rest of the library uses.
        first_state: Converts its model state to that form.
    """

    workload: Any
    place: Callable[[Any], Any]
    first: Callable[[Any], Any] = lambda tree: tree
    first_state: Callable[[Any], Any] = lambda tree: tree


def preparation(
    contract: Contract, framework: str, uses_removed: bool
) -> Callable[[ModuleType], None]:
    """Return a function that each module of the submission is given to before it runs.

    For the older contract this also makes the older package's name importable in this process.

    Args:
        contract: The generation of the contract.
        framework: The framework of the trial.
        uses_removed: Whether the source mentions names that JAX or NumPy has removed, as also some
            submissions do that are written for the current contract.
    """
    if contract.older:
        names.install_package()
    if contract.older or uses_removed:
        return names.supply_removed(framework)
    return lambda module: None


def settling(contract: Contract, settle: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that places a submission's first optimizer state on the device.

    Args:
        contract: The generation of the contract.
        settle: The framework's own function, which is used unless states have an axis of devices.
    """
    if not contract.device_axis:
        return settle
    from algoperf.submission.older.jax_device_axis import DeviceAxis

    return DeviceAxis().settle


def view(
    contract: Contract, bound: spec.Workload, place: Callable[[Any], Any], hyperparameters: Any
) -> View:
    """Return what a submission written for this contract sees of a workload and its batches.

    Args:
        contract: The generation of the contract.
        bound: The workload.
        place: Puts a batch on the device.
        hyperparameters: The trial's hyperparameters, which may fix the dropout rate.
    """
    if not contract.older:
        return View(bound, place)
    if not contract.device_axis:
        return View(OlderWorkload(bound, hyperparameters, None), place)
    from algoperf.submission.older.jax_device_axis import DeviceAxis

    axis = DeviceAxis()
    return View(OlderWorkload(bound, hyperparameters, axis), axis.cut, axis.first, axis.first_state)

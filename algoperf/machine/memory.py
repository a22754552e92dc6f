"""Estimate whether a trial has enough memory, and tell whether the system ended one for lack of it.

No trial is refused. How much a submission keeps is not known before it runs, so the need is an
estimate, and a low one: it leaves out activations and the framework's own memory.
"""

import contextlib
import math
import resource
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from algoperf.spec import ParameterShapeTree

FLOAT_BYTES = 4
# Each parameter is kept with its gradient and two moments, as optimizers like Adam need.
TRAINING_COPIES = 4
# While a checkpoint is written, the parameters and moments are copied to the host's memory.
CHECKPOINT_COPIES = 3
# How many of these are divided among the processes of a trial, by what they divide.
DIVIDED_COPIES = {None: 0, "optimizer": 2, "parameters": TRAINING_COPIES}
ESTIMATE = (
    "bytes = 4 x parameters x (parameter, gradient, two optimizer moments; and while a checkpoint "
    "is written, a copy of all but the gradient; of frozen ones the parameter alone; a copy of all "
    "for each further device that evaluates, or one for those of PyTorch's that are processors); "
    "without activations"
)
# Versions 2 and 1 of Linux's control groups name these files differently.
NAMES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def count(shapes: ParameterShapeTree) -> int:
    """Return the number of single values in a tree of parameters.

    Args:
        shapes: Nested mappings with `ShapeTuple` leaves.
    """
    if isinstance(shapes, Mapping):
        return sum(count(each) for each in shapes.values())
    return math.prod(shapes.shape_tuple)


def check(
    parameters: int,
    *,
    checkpoints: bool,
    free_device_bytes: int | None,
    frozen: int = 0,
    has_referee: bool = False,
    processes: int = 1,
    shard: str | None = None,
    evaluators: int = 0,
    evaluators_share: bool = False,
) -> tuple[dict[str, Any], str | None]:
    """Compare the memory that training needs at least with the memory that is available.

    Args:
        parameters: The number of parameters that train.
        checkpoints: Whether checkpoints are written, which takes a copy in the host's memory.
        free_device_bytes: The device's free memory in bytes; None where the parameters live in the
            host's memory.
        frozen: The number of frozen parameters, which have neither gradients nor moments.
        has_referee: Whether another process evaluates, to which the parameters are copied.
        processes: How many processes of this machine train the trial, each with a copy.
        shard: What they divide instead of copying it: 'optimizer', the moments, or 'parameters',
            with their gradients and moments.
        evaluators: How many devices evaluate beside the referee's first, each with a copy of all
            parameters; those in the host's memory count there.
        evaluators_share: Whether those in the host's memory have one copy of what trains together.

    Returns:
        The figures for `meta_data_<n>.json`, and a warning, or None where the memory may suffice.
    """
    divided = DIVIDED_COPIES[shard]
    training_copies = TRAINING_COPIES - divided + divided / processes
    divided = min(divided, CHECKPOINT_COPIES)
    checkpoint_copies = CHECKPOINT_COPIES - divided + divided / processes
    of_training = FLOAT_BYTES * (math.ceil(training_copies * parameters) + frozen)
    of_host = FLOAT_BYTES * (math.ceil(checkpoint_copies * parameters) + frozen)
    of_host = of_host if checkpoints else 0
    on_host = free_device_bytes is None
    of_host = processes * (of_host + (of_training if on_host else 0))
    of_host += FLOAT_BYTES * parameters if has_referee else 0
    if evaluators:
        copies = 1 if evaluators_share or not on_host else evaluators
        # What accelerators copy theirs from is in the host's memory.
        of_host += FLOAT_BYTES * (copies * parameters + (evaluators * frozen if on_host else 0))
        of_training += 0 if on_host else FLOAT_BYTES * (parameters + frozen)
    needs = {
        "memory": (of_host, available_bytes()),
        "the device's memory": (0 if on_host else of_training, free_device_bytes),
    }
    balance = {
        "parameters": parameters,
        **({"frozen_parameters": frozen} if frozen else {}),
        "needed_bytes": needs["memory"][0],
        "available_bytes": needs["memory"][1],
        "needed_device_bytes": None if on_host else of_training,
        "available_device_bytes": free_device_bytes,
        "estimate": ESTIMATE,
    }
    lacking = [
        f"{name} may not suffice: at least {_gigabytes(needed)} for {parameters:,} parameters, "
        f"{_gigabytes(available)} available"
        for name, (needed, available) in needs.items()
        if available is not None and needed > available
    ]
    return balance, "; ".join(lacking) or None


def available_bytes(root: Path = Path("/")) -> int:
    """Return how many more bytes of memory this process may use.

    It is the least of three: what the machine has available, what is left of the limits of the
    process's control groups (such as a container's), and what is left of its own limit (`ulimit
    -v`).

    Args:
        root: The root of the file system; a test gives another one.
    """
    left = [int(psutil.virtual_memory().available)]
    for group in _groups(root):
        for limit_name, usage_name in NAMES:
            limit, usage = _number(group / limit_name), _number(group / usage_name)
            if limit is not None and usage is not None:
                left.append(max(0, limit - usage + _reclaimable(group)))
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    if own != resource.RLIM_INFINITY:
        left.append(max(0, own - int(psutil.Process().memory_info().vms)))
    return min(left)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes of this control group the kernel has killed for lack of memory.

    Args:
        root: The root of the file system; a test gives another one.

    Returns:
        None where the kernel does not count them.
    """
    for group in _groups(root):
        for name in ("memory.events", "memory.oom_control"):
            count = _entry(group / name, "oom_kill")
            if count is not None:
                return count
    return None


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the memory control groups that this process is in, its own first."""
    lines: Iterable[str] = ()
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = mount / controllers
        # In a container the path may be one of the host's, of which only the mount exists here.
        group = base / path.strip("/")
        yield from (each for each in (group, *group.parents) if each.is_relative_to(base))


def _reclaimable(group: Path) -> int:
    """Return the bytes of file pages that count as used but that the kernel gives up first."""
    names = ("total_inactive_file", "inactive_file")
    return next(filter(None, (_entry(group / "memory.stat", name) for name in names)), 0)


def _entry(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None


def _number(path: Path) -> int | None:
    """Return the number in a file, or None where the file says 'max' or does not exist."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"

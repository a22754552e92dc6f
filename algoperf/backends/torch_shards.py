"""What several PyTorch processes divide among them (`--shard`).

Of the optimizer's state: each parameter is owned by one process, which alone has its gradient when
the optimizer steps, so that it alone makes a state for it, and which then gives the others what it
made of the parameter (ZeRO's first stage, Rajbhandari et al. 2020, arXiv:1910.02054). PyTorch's own
ZeroRedundancyOptimizer makes its optimizer from a class and arguments; a submission returns one
that is made, or several, with schedulers that hold them, so here they are left as they are.

Of parameters: PyTorch's `fully_shard`, block by block. Parameters, gradients and whatever an
optimizer makes of them are DTensors, of which each process has the rows of one part.
"""

import functools
import heapq
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed
from torch import nn

from algoperf.backends.computation import is_block
from algoperf.errors import UserError
from algoperf.run_folder import state_kinds

distributed: Any = torch.distributed
Tensors = Sequence[torch.Tensor]
# Whose fused operations know no divided tensors.
UNFUSED = (torch.optim.SGD, torch.optim.Adagrad)
BROADCAST_BYTES = 25 << 20  # at a time, as DistributedDataParallel adds gradients up


def is_divided(tensor: Any) -> bool:
    """Return whether each process has a part of a tensor."""
    return state_kinds.is_kind(tensor, "torch.distributed.tensor", "DTensor")


def whole(tensor: Any) -> torch.Tensor:
    """Return the whole of a tensor; where it is divided, all processes must ask for it."""
    return tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[no-any-return]


def part(tensor: Any) -> torch.Tensor:
    """Return what this process has of a tensor, in the same memory."""
    return tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[no-any-return]


def divided(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """Return a whole tensor, the same in all processes, as `like` is divided."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def divide(model: nn.Module, device: torch.device, count: int) -> nn.Module:
    """Divide the parameters of a model among so many processes, in place; return the model.

    A block's parameters are put together when it computes, those outside of blocks in the whole
    of a forward and backward pass; so are those of blocks that compute by more than their
    `forward`. A backward pass leaves the mean of the processes' gradients.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (count,))
    # `fully_shard` takes no parameter without axes.
    scalars = {value for value in model.parameters() if value.ndim == 0}
    for value in scalars:
        value.register_hook(_mean)
    blocks = [
        module
        for name, module in model.named_modules()
        if is_block(name.rpartition(".")[2]) and _computes_by_forward_alone(module)
    ]
    # A model's output may be a view; what computes the loss here writes to none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    whole_and_parts: list[Any] = [*reversed(blocks), model]
    for module in whole_and_parts:
        fully_shard(module, mesh=mesh, ignored_params=scalars)
        if device.type == "cpu":  # Gloo adds up, and takes no mean.
            module.set_force_sum_reduction_for_comms(True)
    _let_copy(model)
    return model


def _computes_by_forward_alone(block: nn.Module) -> bool:
    """Return whether a module has parameters, and no method of its own to be called but `forward`:
    parameters are put together for calls of the module, and for nothing else.
    """
    kinds = type(block).__mro__[: type(block).__mro__.index(nn.Module)]
    public = {
        name
        for kind in kinds
        if not kind.__module__.startswith("torch.")
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }
    return public <= {"forward"} and any(True for _ in block.parameters())


def _let_copy(module: nn.Module) -> None:
    """Have `copy.deepcopy` make a `_copied` of a module, which `fully_shard` does not let it."""
    patched: Any = module
    patched.__deepcopy__ = functools.partial(_copied, module)


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return a module of copied parameters and buffers, as whoever averages parameters needs: it
    holds them, divided as they are, and does not compute.
    """
    if id(module) in memo:
        return memo[id(module)]  # type: ignore[no-any-return]
    kind: Any = type(module)
    twin: Any = object.__new__(kind.__mro__[2] if issubclass(kind, _sharded()) else kind)
    twin.__dict__.update(vars(module))
    for name in [each for each in vars(twin) if each.endswith("_hooks")]:
        twin.__dict__[name] = type(vars(module)[name])()
    for name in ("_parameters", "_buffers"):
        twin.__dict__[name] = {
            key: _copied_tensor(value, memo) for key, value in vars(module)[name].items()
        }
    memo[id(module)] = twin
    twin.__dict__["_modules"] = {
        name: None if child is None else _copied(child, memo)
        for name, child in vars(module)["_modules"].items()
    }
    twin.forward = _refuse_to_compute
    _let_copy(twin)
    return twin  # type: ignore[no-any-return]


def _copied_tensor(tensor: torch.Tensor | None, memo: dict[int, Any]) -> torch.Tensor | None:
    if tensor is None:
        return None
    if id(tensor) not in memo:
        copied = tensor.detach().clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if is_parameter else copied
    twin: torch.Tensor = memo[id(tensor)]
    return twin


def _sharded() -> type:
    from torch.distributed.fsdp import FSDPModule

    return FSDPModule


def _refuse_to_compute(*_: Any, **__: Any) -> NoReturn:
    raise UserError(
        "--shard parameters: a copy of the model holds its parameters and does not compute"
    )


def _mean(gradient: torch.Tensor) -> torch.Tensor:
    total = gradient.clone()
    distributed.all_reduce(total)
    return total.div_(distributed.get_world_size())


def step_plainly(optimizers: Iterable[Any]) -> None:
    """Have optimizers step by operations that know divided tensors, where it is theirs to choose.

    In PyTorch 2.13 many of those that take a list of tensors do not (`_foreach_copy_`), nor do the
    fused ones but Adam's. What is computed stays the same.
    """
    for optimizer in optimizers:
        for group in getattr(optimizer, "param_groups", []):
            if not any(map(is_divided, group["params"])):
                continue
            if "foreach" in group and group["foreach"] is None:
                group["foreach"] = False
            if group.get("fused") and isinstance(optimizer, UNFUSED):
                group["fused"] = False
                # Else a gradient scaler leaves it to the fused operation to leave a step out.
                optimizer._step_supports_amp_scaling = False


def owners(sizes: Sequence[int], count: int) -> list[int]:
    """Return which of so many processes owns each of several parameters.

    The largest come first, and each goes to the process that has least so far, the first of
    several such.

    Args:
        sizes: How many numbers each parameter has.
        count: How many processes there are.
    """
    loads = [(0, rank) for rank in range(count)]
    by_index = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        load, rank = heapq.heappop(loads)
        by_index[index] = rank
        heapq.heappush(loads, (load + sizes[index], rank))
    return by_index


class Owned:
    """Which process has the optimizer's state of which parameters.

    Args:
        parameters: All parameters that train, in an order that is the same in all processes.
        rank: The number of this process,
        count: and how many there are.
    """

    def __init__(self, parameters: Tensors, rank: int, count: int) -> None:
        self._owners = owners([value.numel() for value in parameters], count)
        self._count = count
        pairs = list(zip(parameters, self._owners, strict=True))
        self._others = [value for value, owner in pairs if owner != rank]
        self._parameters = parameters

    def hide(self) -> None:
        """Drop the gradients of the parameters that other processes own."""
        for value in self._others:
            value.grad = None

    def drop_states(self, optimizers: Iterable[Any]) -> None:
        """Drop what optimizers have made for the parameters of others before their first step."""
        others = {id(value) for value in self._others}
        for optimizer in optimizers:
            states = getattr(optimizer, "state", None)
            if isinstance(states, dict):
                for key in [each for each in states if id(each) in others]:
                    del states[key]

    def indices_of_others(self, optimizer: Any) -> frozenset[int]:
        """Return the places, in an optimizer's `state_dict`, of the parameters that other processes
        own.
        """
        others = {id(value) for value in self._others}
        parameters = (value for group in optimizer.param_groups for value in group["params"])
        return frozenset(index for index, value in enumerate(parameters) if id(value) in others)

    def spread(self, parameters: Tensors | None = None) -> None:
        """Give every process the values that the owners have.

        Args:
            parameters: As many tensors as there are parameters, in their order, such as those of a
                copy of the model; None for the parameters themselves.
        """
        tensors = self._parameters if parameters is None else parameters
        for rank in range(self._count):
            own = [
                value.detach()
                for value, owner in zip(tensors, self._owners, strict=True)
                if owner == rank
            ]
            if own:
                group = distributed.group.WORLD
                distributed._broadcast_coalesced(group, own, BROADCAST_BYTES, rank)

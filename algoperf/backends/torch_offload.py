"""An optimizer's state in the host's memory between steps (`--offload`), in PyTorch.

PyTorch's own `CPUOffloadPolicy` goes with `fully_shard`, and takes parameters and gradients along,
with optimizers that step on the processor. Here an optimizer steps where it would, on the device,
whatever it is and whatever is divided: what it keeps by parameter (`optimizer.state`) is brought
there before, and put away after.

Tensors are moved in place, so that whoever else holds one has what is moved. These stay:

- what is on the host by itself, as PyTorch's own counts of steps are;
- what shares memory with a parameter, or with another tensor of the state, which would be two
  copies afterwards;
- what an optimizer keeps elsewhere than in `state`, which cannot be seen.
"""

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from algoperf.backends import torch_shards

Move = Callable[[torch.Tensor], torch.Tensor]


def to_pinned_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy in memory of the host that a device reads without another copy."""
    away = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return away.copy_(tensor)


class HostStates:
    """The states of optimizers, in the host's memory but for when they are asked for.

    Args:
        optimizers: The optimizers.
        parameters: The parameters that they train.
        device: The device of the parameters.
        to_host: Returns a copy of a tensor in the host's memory,
        to_device: and one on the device; None for the device's own.
        is_on_device: Whether a tensor is on the device; None for what the tensor says.
    """

    def __init__(
        self,
        optimizers: Sequence[Any],
        parameters: Sequence[torch.Tensor],
        device: torch.device,
        to_host: Move = to_pinned_host,
        to_device: Move | None = None,
        is_on_device: Callable[[torch.Tensor], bool] | None = None,
    ) -> None:
        self._optimizers, self._parameters = optimizers, parameters
        self._to_host = to_host
        self._to_device: Move = to_device or (lambda tensor: tensor.to(device, non_blocking=True))
        self._is_on_device = is_on_device or (lambda tensor: tensor.device.type == device.type)
        self._away: list[torch.Tensor] = []

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """Have the states on the device while in the block."""
        self.bring()
        try:
            yield
        finally:
            self.put_away()

    @torch.no_grad()
    def bring(self) -> None:
        """Bring what was put away, and is part of the states still, to the device."""
        now = self._tensors()
        away, self._away = self._away, []
        for tensor in away:
            if id(tensor) in now:
                tensor.data = self._to_device(tensor.data)

    @torch.no_grad()
    def put_away(self) -> None:
        """Put what can be moved into the host's memory."""
        for tensor in self._movable():
            tensor.data = self._to_host(tensor.data)
            self._away.append(tensor)

    def _movable(self) -> list[torch.Tensor]:
        """Return what is on the device, and in memory that is nobody else's."""
        tensors = self._tensors()
        sharers = collections.Counter(
            _memory(torch_shards.part(tensor)) for tensor in (*tensors.values(), *self._parameters)
        )
        return [
            tensor
            for tensor in tensors.values()
            if self._is_on_device(tensor) and sharers[_memory(tensor)] == 1
        ]

    def _tensors(self) -> dict[int, torch.Tensor]:
        """Return the tensors of all states by their identity."""
        return {
            id(tensor): tensor
            for optimizer in self._optimizers
            for tensor in _tensors(dict(getattr(optimizer, "state", None) or {}))
        }


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that a tree holds; of one that is divided, this process's part."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, torch.Tensor):
        yield torch_shards.part(value) if torch_shards.is_divided(value) else value


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

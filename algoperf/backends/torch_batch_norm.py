"""Batch norm's running statistics in a PyTorch module: when they are used, updated, copied.

It works on PyTorch's own layers (`nn.BatchNorm1d` and the like) and what inherits from them, by
their documented attributes: `training` says whether a layer uses the batch's statistics, and
`track_running_stats` whether it then updates the running ones.
"""

import contextlib
import functools
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from algoperf.errors import UserError

BatchNorm = nn.modules.batchnorm._BatchNorm
STATISTICS = ("running_mean", "running_var")


def layers(module: nn.Module) -> list[BatchNorm]:
    """The batch norms of a module that have running statistics, in the module's order."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, BatchNorm) and layer.running_mean is not None
    ]


def names(module: nn.Module) -> list[str]:
    """PyTorch's names of all running statistics, as `block_0.batch_norm_0.running_mean`."""
    return list(statistics(module))


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    """The running statistics by PyTorch's names."""
    return {
        f"{path}.{leaf}" if path else leaf: getattr(layer, leaf)
        for path, layer in module.named_modules()
        if isinstance(layer, BatchNorm) and layer.running_mean is not None
        for leaf in STATISTICS
    }


def switch(
    batch_norms: Iterable[BatchNorm], *, use_running_average: bool, update_statistics: bool
) -> None:
    """Say what the layers do in the passes to come: use the running statistics or the batch's, and
    in the second case whether the running ones are updated.
    """
    for layer in batch_norms:
        # Setting a module's attribute is slow, and most passes are as the one before.
        if layer.training is use_running_average:
            layer.training = not use_running_average
        if layer.track_running_stats is not update_statistics:
            layer.track_running_stats = update_statistics


Total = Callable[[torch.Tensor], torch.Tensor]


def share(module: nn.Module, total: Total) -> None:
    """Have the batch norms of a module take a batch's statistics over the rows of all processes.

    A layer with a forward of its own says how: it has an attribute `total`, a function which its
    sums over the rows pass through.

    Args:
        module: The module.
        total: Returns the sum of a tensor over the processes; gradients flow through it.

    Raises:
        UserError: A layer with a forward of its own has no `total`.
    """
    for path, layer in module.named_modules():
        if not isinstance(layer, BatchNorm):
            continue
        patched: Any = layer
        if hasattr(layer, "total"):
            patched.total = total
        elif type(layer).forward is BatchNorm.forward:
            patched.forward = functools.partial(_forward, layer, total)
        else:
            raise UserError(
                f"batch norm {path!r} has a forward of its own and no `total`: it cannot be "
                "trained on several devices"
            )


def _forward(layer: BatchNorm, total: Total, inputs: torch.Tensor) -> torch.Tensor:
    """Batch norm of `inputs` of (N, C, ...), by the convention of PyTorch's layer."""
    if not layer.training and layer.running_mean is not None:
        return BatchNorm.forward(layer, inputs)
    axes = [0, *range(2, inputs.ndim)]
    wide = [-1, *[1] * (inputs.ndim - 2)]
    values = inputs.float()
    count = total(torch.tensor(float(values.numel() // values.shape[1]), device=values.device))
    mean_C = total(values.sum(axes)) / count
    centred = values - mean_C.view(wide)
    var_C = total(centred.square().sum(axes)) / count
    if layer.training and layer.track_running_stats and layer.running_mean is not None:
        _take_in(layer, mean_C.detach(), (var_C * count / (count - 1)).detach())
    normalised = centred * torch.rsqrt(var_C + layer.eps).view(wide)
    if layer.affine:
        normalised = normalised * layer.weight.view(wide) + layer.bias.view(wide)
    return normalised.to(inputs.dtype)


def _take_in(layer: BatchNorm, mean_C: torch.Tensor, var_C: torch.Tensor) -> None:
    """Update the running statistics by a batch's mean and unbiased variance."""
    share = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if share is None:  # the plain mean of all batches
            share = 1.0 / float(layer.num_batches_tracked)
    assert share is not None
    for running, new in ((layer.running_mean, mean_C), (layer.running_var, var_C)):
        assert running is not None
        running.lerp_(new.to(running.dtype), share)


def restart_counts(batch_norms: Iterable[BatchNorm]) -> None:
    """Set the layers' counts of batches to 0."""
    for layer in batch_norms:
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.zero_()


def follow(source: nn.Module, other: nn.Module) -> None:
    """Copy the running statistics of `source` to another module with the same batch norms in the
    same order, as a copy of it has, or a wrapper of a copy.

    Raises UserError where the number of batch norms differs.
    """
    if other is source:
        return
    own, theirs = layers(source), layers(other)
    if len(own) != len(theirs):
        raise UserError(
            f"eval_params returned a module with {len(theirs)} batch norms, expected the model's "
            f"{len(own)}"
        )
    with torch.no_grad():
        for layer, copy in zip(own, theirs, strict=True):
            for buffer, copied in zip(layer.buffers(), copy.buffers(), strict=True):
                if copied is not buffer:
                    copied.copy_(buffer)


class Kept:
    """A copy of a module's running statistics, which can be put back."""

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [buffer for layer in layers(module) for buffer in layer.buffers()]
        self._copies = [buffer.clone() for buffer in self._buffers]

    def put_back(self) -> None:
        """Make the statistics what they were."""
        for buffer, copy in zip(self._buffers, self._copies, strict=True):
            buffer.copy_(copy)


class Repeated(contextlib.AbstractContextManager[None]):
    """Within it, layers repeat the pass in which this was made: they do what they were switched to
    then, and what they update are copies, since the pass has updated the running statistics.
    """

    def __init__(self, batch_norms: list[BatchNorm]) -> None:
        self._layers = batch_norms
        self._switches = self._now()
        self._after: list[tuple[bool, bool]] = []
        self._buffers: list[dict[str, torch.Tensor]] = []

    def _now(self) -> list[tuple[bool, bool]]:
        return [(layer.training, layer.track_running_stats) for layer in self._layers]

    def _set(self, switches: list[tuple[bool, bool]]) -> None:
        for layer, (training, track_running_stats) in zip(self._layers, switches, strict=True):
            layer.training, layer.track_running_stats = training, track_running_stats

    def __enter__(self) -> None:
        self._after = self._now()
        self._set(self._switches)
        self._buffers = [dict(layer.named_buffers(recurse=False)) for layer in self._layers]
        for layer, buffers in zip(self._layers, self._buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(layer, name, buffer.clone())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._set(self._after)
        for layer, buffers in zip(self._layers, self._buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(layer, name, buffer)

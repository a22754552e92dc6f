"""A run's precision and activation checkpointing (`algoperf.backends.computation`) in PyTorch."""

import contextlib
import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from algoperf.backends import torch_batch_norm
from algoperf.backends.computation import is_block

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Within it, PyTorch computes what it can in that precision, and the rest in float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, TYPES[precision])


def checkpoint_blocks(model: nn.Module) -> None:
    """From now on the model's blocks compute their activations anew in the backward pass."""
    for name, module in model.named_modules():
        if is_block(name.rpartition(".")[2]):
            batch_norms = torch_batch_norm.layers(module)
            module.forward = functools.partial(_forward, module, batch_norms)


def _forward(
    module: nn.Module,
    batch_norms: list[torch_batch_norm.BatchNorm],
    *args: Any,
    **kwargs: Any,
) -> Any:
    forward = functools.partial(type(module).forward, module)
    if not (module.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    if not batch_norms or torch.compiler.is_compiling():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    contexts = functools.partial(_contexts, batch_norms)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(
    batch_norms: list[torch_batch_norm.BatchNorm],
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """What the forward pass of a block and its repetition run in."""
    return contextlib.nullcontext(), torch_batch_norm.Repeated(batch_norms)

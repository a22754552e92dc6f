"""A run's precision and activation checkpointing (`algoperf.backends.computation`) in PyTorch."""

import contextlib
import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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
            module.forward = functools.partial(_forward, module)


def _forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = functools.partial(type(module).forward, module)
    if not (module.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)

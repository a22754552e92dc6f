"""What a technique adds to a PyTorch model, and what it freezes (see
`algoperf.workload.trainable`). It acts on the outputs of layers by hooks, and the model knows
nothing of it.

Shapes: B batch, T tokens, P virtual tokens, D width of a layer's output.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from algoperf.backends import torch_shards
from algoperf.workload import parameters
from algoperf.workload.trainable import Shapes, Trainable


def _lora(layer: Any, hidden: torch.Tensor, output: torch.Tensor, scale: float) -> torch.Tensor:
    """Add (alpha / rank) B A x, by two thin products (Hu et al. 2022, section 4.1)."""
    added: torch.Tensor = output + scale * layer.lora_b(layer.lora_a(hidden))
    return added


def _adapter(layer: Any, hidden: torch.Tensor, output: torch.Tensor, scale: float) -> torch.Tensor:
    """Add up(gelu(down(output))) (Houlsby et al. 2019, section 2.1)."""
    added: torch.Tensor = output + layer.adapter_up(functional.gelu(layer.adapter_down(output)))
    return added


def _prompt(
    layer: Any, token_BT: torch.Tensor, output_BTD: torch.Tensor, scale: float
) -> torch.Tensor:
    """Put the virtual tokens before the others: (B, P + T, D)."""
    prompt_BPD = layer.prompt.weight.expand(len(output_BTD), -1, -1)
    return torch.cat([prompt_BPD, output_BTD], 1)


ADD: Mapping[str, Callable[..., torch.Tensor]] = {
    "lora": _lora,
    "adapter": _adapter,
    "prompt": _prompt,
}


def _hook(
    kind: str, scale: float, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any
) -> torch.Tensor:
    return ADD[kind](layer, inputs[0], output, scale)


def shapes(module: nn.Module, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes in JAX's layout, by their `names`, of all that is no counter."""
    return {
        names[torch_name]: parameters.jax_shape(names[torch_name], tuple(value.shape))
        for torch_name, value in module.state_dict().items()
        if value.dtype.is_floating_point
    }


def values(
    module: nn.Module, names: Mapping[str, str], wanted: Collection[str]
) -> dict[str, np.ndarray]:
    """Return the wanted ones in PyTorch's layout, by their `names`; on the CPU no copies.

    Where they are divided among processes, all of these must ask.
    """
    state = module.state_dict() if wanted else {}
    return {
        names[torch_name]: torch_shards.whole(value).numpy(force=True)
        for torch_name, value in state.items()
        if names[torch_name] in wanted
    }


def tune(model: nn.Module, trainable: Trainable, names: Mapping[str, str]) -> None:
    """Change the module in place: frozen parameters become buffers, so that `parameters()` has what
    trains alone, and layers get what is added to them. `names` are the neutral ones by PyTorch's.
    """
    for torch_name, name in names.items():
        if name in trainable.frozen:
            path, _, leaf = torch_name.rpartition(".")
            layer = model.get_submodule(path)
            value = getattr(layer, leaf).detach()
            delattr(layer, leaf)
            layer.register_buffer(leaf, value)
    for path, kind in trainable.kinds.items():
        layer = model.get_submodule(path.replace("/", "."))
        prefix = f"{path}/"
        below = {
            name.removeprefix(prefix): shape
            for name, shape in trainable.added.items()
            if name.startswith(prefix)
        }
        _add_modules(layer, below)
        layer.register_forward_hook(functools.partial(_hook, kind, trainable.scale))


def _add_modules(layer: nn.Module, shapes: Shapes) -> None:
    """A dense layer for each kernel, an embedding for each embedding; values come later."""
    for name, shape in shapes.items():
        child, leaf = name.split("/")
        if leaf == "embedding":
            layer.add_module(child, nn.Embedding(shape[0], shape[1]))
        elif leaf == "kernel":
            has_bias = f"{child}/bias" in shapes
            layer.add_module(child, nn.Linear(shape[0], shape[1], bias=has_bias))

"""What the gates of a workload need of PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from algoperf import spec
from algoperf.backends import shared
from algoperf.workload import parameters


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function: PyTorch runs it as it is."""
    return function


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's parameters by PyTorch's names; buffers are none."""
    return {name: tuple(value.shape) for name, value in params.named_parameters()}


def types_by_name(bound: Any, values: Mapping[str, np.ndarray]) -> dict[str, spec.ParameterType]:
    """Return the types that a submission sees, by the parameters' names."""
    module = bound.from_neutral(values)
    names = {id(tensor): name for name, tensor in _tensors(bound).items()}
    return {
        names[id(value)]: bound.model_params_types[name]
        for name, value in module.named_parameters()
    }


def losses_and_gradients(
    bound: Any,
    backend: Any,
    values: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    label_smoothings: Sequence[float],
) -> list[tuple[float, dict[str, np.ndarray]]]:
    """Return a batch's training loss, without dropout, and its gradients by name in JAX's layout,
    for each label smoothing.
    """
    module, _ = bound.state_from_neutral(values)
    placed = backend.place(batch)
    results = []
    for label_smoothing in label_smoothings:
        settings = shared.StepSettings(label_smoothing=label_smoothing, dropout_rate=0.0)
        module.zero_grad()
        loss, _ = shared.training_loss(bound, module, placed, None, None, settings)
        loss.backward()
        gradients = {
            name: parameters.from_torch(name, tensor.grad.cpu().numpy())
            for name, tensor in _tensors(bound).items()
        }
        results.append((loss.item(), gradients))
    module.zero_grad()
    return results


def _tensors(bound: Any) -> dict[str, Any]:
    return {name: parameter.tensor for name, parameter in bound.parameters.items()}

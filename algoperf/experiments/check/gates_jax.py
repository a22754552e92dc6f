"""What the gates of a workload need of JAX."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from algoperf import spec
from algoperf.backends import shared


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled."""
    return jax.jit(function)


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of nested dicts of arrays by path."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(key.key for key in path): value.shape for path, value in flat}


def types_by_name(bound: Any, values: Mapping[str, np.ndarray]) -> dict[str, spec.ParameterType]:
    """Return the types that a submission sees, by the parameters' names."""
    names = jax.tree.leaves(bound.parameters.tree(lambda parameter: parameter.name))
    return dict(zip(names, jax.tree.leaves(bound.model_params_types), strict=True))


def loss_and_gradients(
    bound: Any,
    backend: Any,
    values: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    settings: shared.StepSettings,
) -> tuple[float, dict[str, np.ndarray]]:
    """Return a batch's training loss and its gradients by name, in JAX's layout."""
    rng, placed = backend.random_state((0, 0)), backend.place(batch)
    params, state = bound.state_from_neutral(values)

    def loss_of(params: Any) -> Any:
        return shared.training_loss(bound, params, placed, state, rng, settings)[0]

    loss, gradients = compiled(jax.value_and_grad(loss_of))(params)
    return float(loss), bound.to_neutral(gradients)

"""What the gates of a workload need of JAX."""

from collections.abc import Callable, Mapping, Sequence
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
    rng, placed = backend.random_state((0, 0)), backend.place(batch)
    params, state = bound.state_from_neutral(values)

    def loss_of(params: Any, label_smoothing: Any) -> Any:
        settings = shared.StepSettings(label_smoothing=label_smoothing, dropout_rate=0.0)
        return shared.training_loss(bound, params, placed, state, rng, settings)[0]

    function = compiled(jax.value_and_grad(loss_of))  # once: the smoothing is an argument
    results = [function(params, smoothing) for smoothing in label_smoothings]
    return [(float(loss), bound.to_neutral(gradients)) for loss, gradients in results]

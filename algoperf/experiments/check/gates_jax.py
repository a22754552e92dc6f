"""What the gates of a workload need of JAX."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from algoperf import spec
from algoperf.backends import shared

SUFFIX = "jax"


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled."""
    return jax.jit(function)


def state_of(bound: Any, values: Mapping[str, np.ndarray]) -> tuple[Any, Any]:
    """Return (parameters, model state) of values by name, in JAX's layout."""
    params, frozen = bound.split(values)
    return params, {"frozen": frozen} if frozen else None


def initial_values(bound: Any, random_state: Any) -> dict[str, np.ndarray]:
    """Return what the model starts from by name, in JAX's layout, what is frozen as well."""
    params, state = bound.init_model_fn(random_state)
    state = dict(state or {})
    frozen = state.pop("frozen", {})
    values: dict[str, np.ndarray] = bound.to_neutral({**params, **state})
    values.update(bound.to_neutral(frozen))
    return values


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
    params, state = state_of(bound, values)

    def loss_of(params: Any) -> Any:
        return shared.training_loss(bound, params, placed, state, rng, settings)[0]

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
    return float(loss), bound.to_neutral(gradients)

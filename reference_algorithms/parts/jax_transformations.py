"""optax transformations that several algorithms share."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from algoperf import spec
from reference_algorithms import adamw, schedules

# (directions, gradients, parameters) -> directions, each a tree
Change = Callable[[Any, Any, Any], Any]


def with_cosine(
    direction: Any, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the transformation with decoupled weight decay and the rate's warm-up and decay."""
    return optax.chain(
        direction,
        optax.add_decayed_weights(hyperparameters.weight_decay),
        optax.scale_by_learning_rate(schedules.warmup_cosine(hyperparameters, info)),
    )


def matrices_apart(
    params: spec.Parameters,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
    for_matrices: Any,
) -> Any:
    """Return the transformation for the hidden matrices, with AdamW for the rest."""
    adam = optax.scale_by_adam(*adamw.betas(hyperparameters))
    for_others = with_cosine(adam, hyperparameters, info)
    labels = params.tree(lambda parameter: "matrix" if parameter.is_matrix else "other")
    return optax.partition({"matrix": for_matrices, "other": for_others}, labels)


def change_adam(b1: float, b2: float, change: Change) -> Any:
    """Adam whose directions, bias-corrected, pass through `change`."""
    adam = optax.scale_by_adam(b1, b2)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        directions, state = adam.update(gradients, state, params)
        return change(directions, gradients, params), state

    return optax.GradientTransformation(adam.init, update)


def orthogonalize(matrix: Any) -> Any:
    """Bring all singular values near 1 by optax's Newton-Schulz iteration, as Muon does."""
    muon = contrib.scale_by_muon(beta=0.0, nesterov=False)
    return muon.update(matrix, muon.init(matrix))[0]


def each(function: Callable[..., tuple[Any, Any]], tree: Any, *others: Any) -> tuple[Any, Any]:
    """Map a function of leaves that returns (direction, state); return a tree of either.

    `others` have the structure of `tree`, or a tree of their own, such as a state, at its leaves.
    """
    results = jax.tree.map(function, tree, *others)
    directions = jax.tree.map(lambda _, result: result[0], tree, results)
    return directions, jax.tree.map(lambda _, result: result[1], tree, results)

"""DiLoCo: AdamW, whose way over every few steps Nesterov momentum takes as a gradient; one worker.

Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models",
algorithm 1 with one worker, which Kallusky et al. 2025 study as "SNOO: Step-K Nesterov Outer
Optimizer". After `inner_steps` of AdamW, the parameters of the last outer step less those now are
the outer gradient; the outer step starts from the former, and AdamW, whose state stays, from the
latter's result. The schedule and the weight decay are AdamW's alone. An evaluation measures the
parameters that train, between outer steps, too. The outer momentum is a half: with 0.9, as for many
workers, ag_news was not learned in 400 steps. The outer optimizer is ours in both frameworks:
optax's and pytorch_optimizer's lookahead take the outer step without Nesterov momentum.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = {
    **adamw.DEFAULTS,
    "inner_steps": 10,
    "outer_learning_rate": 0.7,
    "outer_momentum": 0.5,
}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "inner_steps": {"feasible_points": [5, 10, 20, 50]},
    "outer_learning_rate": {"feasible_points": [0.5, 0.7, 1.0]},
    "outer_momentum": {"feasible_points": [0.5, 0.8, 0.9]},
}
learning_rate = adamw.learning_rate


def outer_step(
    anchor: Any, trained: Any, momentum: Any, rate: float, decay: float
) -> tuple[Any, Any]:
    """Return (parameter, momentum) after an outer step; the same formula for both frameworks.

    Args:
        anchor: The parameter after the last outer step.
        trained: The parameter after the inner steps since.
        momentum: The outer momentum.
        rate: The outer learning rate.
        decay: The momentum's decay.
    """
    gradient = anchor - trained
    momentum = decay * momentum + gradient
    return anchor - rate * (gradient + decay * momentum), momentum


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    inner = adamw.jax_optimizer(hyperparameters, info)
    inner_steps = int(hyperparameters.inner_steps)
    rate, decay = hyperparameters.outer_learning_rate, hyperparameters.outer_momentum

    def init(params: Any) -> Any:
        anchors = jax.tree.map(jnp.copy, params)  # ours, since params are donated
        return jnp.zeros([], jnp.int32), inner.init(params), anchors, optax.tree.zeros_like(params)

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        count, inner_state, anchors, momenta = state
        updates, inner_state = inner.update(gradients, inner_state, params)
        trained = optax.apply_updates(params, updates)

        def outer() -> tuple[Any, Any, Any]:
            def one(anchor: Any, trained: Any, momentum: Any) -> tuple[Any, Any]:
                return outer_step(anchor, trained, momentum, rate, decay)

            moved, renewed = jax_transformations.each(one, anchors, trained, momenta)
            return optax.tree.sub(moved, params), moved, renewed

        count = (count + 1) % inner_steps
        updates, anchors, momenta = jax.lax.cond(
            count == 0, outer, lambda: (updates, anchors, momenta)
        )
        return updates, (count, inner_state, anchors, momenta)

    return optax.GradientTransformation(init, update)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    from reference_algorithms.parts import torch_optimizers

    rate, decay = hyperparameters.outer_learning_rate, hyperparameters.outer_momentum

    def outer(anchor: Any, trained: Any, momentum: Any) -> tuple[Any, Any]:
        return outer_step(anchor, trained, momentum, rate, decay)

    inner = torch_optimizers.adamw_for(params.tensors(), hyperparameters)
    optimizer = torch_optimizers.Outer(inner, int(hyperparameters.inner_steps), outer)
    return torch_optimizers.with_cosine(optimizer, hyperparameters, info)

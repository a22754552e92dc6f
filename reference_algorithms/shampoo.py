"""Shampoo: hidden matrices preconditioned from both sides, AdamW for the rest.

Gupta et al. 2018, "Shampoo: Preconditioned Stochastic Tensor Optimization", algorithm 1, with what
made it work at scale (Anil et al. 2021, "Scalable Second Order Optimization for Deep Learning";
Shi et al. 2023, "A Distributed Data-Parallel PyTorch Implementation of the Distributed Shampoo"):
averages L, R of G G', G' G instead of sums, their inverse fourth roots renewed every 10 updates,
momentum, and the size of the update taken from AdamW's (grafting), which takes the first 9 steps
alone. The roots are of L + 1e-6 of its largest eigenvalue. Both frameworks' forms are ours: optax
has none, and pytorch_optimizer's Shampoo mixes the momentum with preconditioned updates.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate
RENEW_EVERY = 10
RIDGE = 1e-6
TINY = 1e-30  # keeps a gradient of zeros from dividing by zero


def inverse_fourth_root(statistic: Any, linalg: Any) -> Any:
    """The root of a positive semidefinite matrix; `linalg` is the framework's module."""
    values, vectors = linalg.eigh(statistic)
    values = values.clip(0) + RIDGE * values.max() + TINY
    return (vectors * values**-0.25) @ vectors.T


def grafted(mean: Any, direction: Any, roots: tuple[Any, Any], linalg: Any) -> Any:
    """Momentum between the roots, as long as Adam's direction."""
    left, right = roots
    preconditioned = left @ mean @ right
    ratio = linalg.norm(direction) / (linalg.norm(preconditioned) + TINY)
    return preconditioned * ratio


def jax_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the optax transformation."""
    from reference_algorithms.parts import jax_transformations

    beta1, beta2 = adamw.betas(hyperparameters)
    shampoo = jax_transformations.with_cosine(
        _scale_by_shampoo(beta1, beta2), hyperparameters, info
    )
    return jax_transformations.matrices_apart(params, hyperparameters, info, shampoo)


def _scale_by_shampoo(beta1: float, beta2: float) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    adam = optax.scale_by_adam(beta1, beta2)

    def init(params: Any) -> Any:
        def factors(leaf: Any) -> Any:
            # L, R and their roots, each an array of its own since all are donated
            return [jnp.zeros((size, size), leaf.dtype) for size in (*leaf.shape, *leaf.shape)]

        return adam.init(params), jax.tree.map(factors, params)

    def update(gradients: Any, state: Any, _: Any = None) -> tuple[Any, Any]:
        adam_state, factors = state
        directions, adam_state = adam.update(gradients, adam_state)
        step = adam_state.count

        def one(gradient: Any, direction: Any, mean: Any, factors: Any) -> tuple[Any, Any]:
            left, right, *roots = factors
            left = beta2 * left + (1 - beta2) * gradient @ gradient.T
            right = beta2 * right + (1 - beta2) * gradient.T @ gradient
            roots = jax.lax.cond(
                step % RENEW_EVERY == 0,
                lambda: [inverse_fourth_root(side, jnp.linalg) for side in (left, right)],
                lambda: roots,
            )
            changed = grafted(mean, direction, tuple(roots), jnp.linalg)
            return jnp.where(step < RENEW_EVERY, direction, changed), [left, right, *roots]

        directions, factors = jax_transformations.each(
            one, gradients, directions, adam_state.mu, factors
        )
        return directions, (adam_state, factors)

    return optax.GradientTransformation(init, update)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    from reference_algorithms.parts import torch_optimizers

    betas = adamw.betas(hyperparameters)
    decay = hyperparameters.weight_decay
    return torch_optimizers.matrices_apart(
        params,
        hyperparameters,
        info,
        lambda matrices: torch_optimizers.ChangedAdam(matrices, _precondition, betas, decay),
    )


def _precondition(
    directions: Any, _: Any, gradients: Any, states: list[dict[str, Any]], group: dict[str, Any]
) -> Any:
    """Replace Adam's directions by Shampoo's of the same lengths; renews `states`."""
    import torch

    _, beta2 = group["betas"]
    started, due = group["step"] >= RENEW_EVERY, group["step"] % RENEW_EVERY == 0
    for index, (gradient, state) in enumerate(zip(gradients, states, strict=True)):
        for side, product in (("left", gradient @ gradient.T), ("right", gradient.T @ gradient)):
            if side not in state:
                state[side] = torch.zeros_like(product)
            state[side].mul_(beta2).add_(product, alpha=1 - beta2)
            if due:
                state[f"{side}_root"] = inverse_fourth_root(state[side], torch.linalg)
        if started:
            roots = (state["left_root"], state["right_root"])
            directions[index] = grafted(state["exp_avg"], directions[index], roots, torch.linalg)
    return directions

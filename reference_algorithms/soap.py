"""SOAP: Adam in the eigenbasis of Shampoo's factors for hidden matrices, AdamW for the rest.

Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam", algorithm 3, as in the
authors' code: the first gradient only starts the basis, which is renewed every 10 updates by a
step of power iteration and a QR decomposition, and weights decay after the update. JAX's form is
ours; pytorch_optimizer's follows the authors'.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules
from reference_algorithms.parts import libraries

DEFAULTS = {**adamw.DEFAULTS, "one_minus_beta1": 0.05}
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate
RENEW_EVERY = 10
EPS = 1e-8


def jax_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    beta1, beta2 = adamw.betas(hyperparameters)
    schedule = schedules.warmup_cosine(hyperparameters, info)
    decay = hyperparameters.weight_decay

    def init(tree: Any) -> Any:
        def zeros(leaf: Any) -> Any:
            # mean, square; L, R; their bases
            shapes = [leaf.shape] * 2 + [(size, size) for size in (*leaf.shape, *leaf.shape)]
            return [jnp.zeros(shape, leaf.dtype) for shape in shapes]

        return jnp.zeros([], jnp.int32), jax.tree.map(zeros, tree)

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        count, states = state
        rate = schedule(count) * (count > 0)
        correction = jnp.sqrt(1 - beta2**count) / (1 - beta1 ** jnp.maximum(count, 1))

        def one(gradient: Any, state: Any, weight: Any) -> tuple[Any, Any]:
            direction, state = _soap(gradient, state, count, beta1, beta2)
            step = -rate * correction * direction
            return step - schedule(count) * decay * (count > 0) * (weight + step), state

        updates, states = jax_transformations.each(one, gradients, states, params)
        return updates, (count + 1, states)

    soap = optax.GradientTransformation(init, update)
    return jax_transformations.matrices_apart(params, hyperparameters, info, soap)


def _soap(gradient: Any, state: Any, count: Any, beta1: float, beta2: float) -> tuple[Any, Any]:
    """Return (direction without bias correction, state) of one matrix."""
    import jax
    import jax.numpy as jnp

    mean, square, left, right, left_basis, right_basis = state
    rotated = left_basis.T @ gradient @ right_basis
    later = count > 0  # before, mean and square stay zero
    mean = beta1 * mean + (1 - beta1) * gradient * later
    square = beta2 * square + (1 - beta2) * rotated**2 * later
    scaled = (left_basis.T @ mean @ right_basis) / (jnp.sqrt(square) + EPS)
    direction = left_basis @ scaled @ right_basis.T
    left = beta2 * left + (1 - beta2) * gradient @ gradient.T
    right = beta2 * right + (1 - beta2) * gradient.T @ gradient

    def keep() -> Any:
        return square, left_basis, right_basis

    def renew() -> Any:
        rows, new_left = _power_iteration(left, left_basis)
        columns, new_right = _power_iteration(right, right_basis)
        return square[rows][:, columns], new_left, new_right

    def start() -> Any:
        return square, *(jnp.linalg.eigh(factor)[1][:, ::-1] for factor in (left, right))

    branch = jnp.where(later, (count % RENEW_EVERY == 0).astype(jnp.int32), 2)
    square, left_basis, right_basis = jax.lax.switch(branch, (keep, renew, start))
    return direction, [mean, square, left, right, left_basis, right_basis]


def _power_iteration(factor: Any, basis: Any) -> tuple[Any, Any]:
    """Return (order of the old basis by estimated eigenvalue, falling; the new basis)."""
    import jax.numpy as jnp

    product = factor @ basis
    order = jnp.argsort((basis * product).sum(axis=0), descending=True)
    return order, jnp.linalg.qr(product[:, order])[0]


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    library = libraries.optional("pytorch_optimizer")

    from reference_algorithms.parts import torch_optimizers

    def soap(matrices: Any) -> Any:
        return library.SOAP(
            matrices,
            lr=1.0,
            betas=adamw.betas(hyperparameters),
            weight_decay=hyperparameters.weight_decay,
            precondition_frequency=RENEW_EVERY,
            eps=EPS,
        )

    return torch_optimizers.matrices_apart(params, hyperparameters, info, soap)

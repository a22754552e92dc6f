"""MARS: AdamW on gradients corrected by the last step's gradient.

Yuan et al. 2024, "MARS: Unleashing the Power of Variance Reduction for Training Large Models",
algorithm 2 in the approximate form (MARS-AdamW): c_t = g_t + gamma beta1 / (1 - beta1)
(g_t - g_(t-1)), clipped to norm 1 in each tensor. As in the authors' code, g_0 is 0 and eps is
added before the bias correction; unlike there, vectors are treated as matrices are.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw
from reference_algorithms.parts import libraries

DEFAULTS = {**adamw.DEFAULTS, "one_minus_beta1": 0.05, "gamma": 0.025}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "gamma": {"min": 5e-3, "max": 0.1, "scaling": "log"},
}
learning_rate = adamw.learning_rate
EPS = 1e-8


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    beta1, beta2 = adamw.betas(hyperparameters)
    weight = hyperparameters.gamma * beta1 / (1 - beta1)

    def init(params: Any) -> Any:
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(3)]
        return (jnp.zeros([], jnp.int32), *zeros)

    def corrected(gradient: Any, last: Any) -> Any:
        change = gradient + weight * (gradient - last)
        return change / jnp.maximum(jnp.linalg.norm(change), 1.0)

    def update(gradients: Any, state: Any, _: Any = None) -> tuple[Any, Any]:
        count, mean, square, last = state
        change = jax.tree.map(corrected, gradients, last)
        mean = optax.tree.update_moment(change, mean, beta1, 1)
        square = optax.tree.update_moment(change, square, beta2, 2)
        first, second = 1 - beta1 ** (count + 1), jnp.sqrt(1 - beta2 ** (count + 1))
        directions = jax.tree.map(
            lambda m, v: m * second / (first * (jnp.sqrt(v) + EPS)), mean, square
        )
        return directions, (count + 1, mean, square, gradients)

    mars = optax.GradientTransformation(init, update)
    return jax_transformations.with_cosine(mars, hyperparameters, info)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    return libraries.pytorch_optimizer(
        "MARS",
        params,
        hyperparameters,
        info,
        betas=adamw.betas(hyperparameters),
        gamma=hyperparameters.gamma,
        optimize_1d=True,
        lr_1d=1.0,
        eps=EPS,
    )

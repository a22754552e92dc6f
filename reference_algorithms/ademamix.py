"""AdEMAMix: AdamW with a second, much slower average of the gradients.

Pagliardini et al. 2024, "The AdEMAMix Optimizer: Better, Faster, Older", algorithm 1. The slow
average's weight alpha and its beta3 rise over the whole step hint; beta3 in equal steps of the
average's half-life.
"""

import math
from typing import Any

from algoperf import spec
from reference_algorithms import adamw
from reference_algorithms.parts import libraries

DEFAULTS = {**adamw.DEFAULTS, "beta3": 0.99, "alpha": 5.0}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "beta3": {"feasible_points": [0.99, 0.999, 0.9999]},
    "alpha": {"feasible_points": [2.0, 5.0, 8.0]},
}
learning_rate = adamw.learning_rate


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import jax.numpy as jnp
    from optax import contrib

    from reference_algorithms.parts import jax_transformations

    beta1, beta3 = 1 - hyperparameters.one_minus_beta1, hyperparameters.beta3
    alpha, first, last = hyperparameters.alpha, math.log(beta1), math.log(beta3)

    def share(count: Any) -> Any:
        return jnp.minimum((count + 1.0) / info.step_hint, 1.0)

    def rising_beta3(count: Any) -> Any:
        done = share(count)
        return jnp.exp(first * last / ((1 - done) * last + done * first))

    direction = contrib.scale_by_ademamix(
        beta1, hyperparameters.beta2, rising_beta3, lambda count: alpha * share(count)
    )
    return jax_transformations.with_cosine(direction, hyperparameters, info)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    beta1, beta2 = adamw.betas(hyperparameters)
    return libraries.pytorch_optimizer(
        "AdEMAMix",
        params,
        hyperparameters,
        info,
        betas=(beta1, beta2, hyperparameters.beta3),
        alpha=hyperparameters.alpha,
        t_alpha_beta3=float(info.step_hint),
    )

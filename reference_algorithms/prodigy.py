"""Prodigy: AdamW that estimates its own rate; `learning_rate` multiplies the estimate.

Mishchenko and Defazio 2023, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
algorithm 4, with bias correction and, since the rate warms up, the authors' safeguard.
`first_estimate` is the paper's d_0.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules
from reference_algorithms.parts import libraries

DEFAULTS = {**adamw.DEFAULTS, "learning_rate": 1.0, "first_estimate": 1e-5}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "learning_rate": {"feasible_points": [0.5, 1.0, 2.0]},
    "first_estimate": {"feasible_points": [1e-6, 1e-5, 1e-4]},
}
learning_rate = adamw.learning_rate  # the factor; the estimate is in the optimizer's state


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax
    from optax import contrib

    prodigy = contrib.prodigy(
        schedules.warmup_cosine(hyperparameters, info),
        betas=adamw.betas(hyperparameters),
        estim_lr0=hyperparameters.first_estimate,
        weight_decay=hyperparameters.weight_decay,
        safeguard_warmup=True,
    )

    def init(params: Any) -> Any:  # its state keeps them, and ours are donated at the first step
        return prodigy.init(jax.tree.map(jnp.copy, params))

    return optax.GradientTransformationExtraArgs(init, prodigy.update)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    return libraries.pytorch_optimizer(
        "Prodigy",
        params,
        hyperparameters,
        info,
        betas=adamw.betas(hyperparameters),
        d0=hyperparameters.first_estimate,
        bias_correction=True,
        safeguard_warmup=True,
    )

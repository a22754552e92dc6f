"""ADOPT: Adam that divides by the second moment of the steps before, with clipping.

Taniguchi et al. 2024, "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate",
algorithm 2, clipped at (t - 1)^(1/4) as in the authors' code: the first gradient only starts the
second moment. pytorch_optimizer counts one step further unless told.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw
from reference_algorithms.parts import libraries

DEFAULTS = adamw.DEFAULTS
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate
EPS = 1e-6


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    from optax import contrib

    from reference_algorithms.parts import jax_transformations

    beta1, beta2 = adamw.betas(hyperparameters)
    adopt = contrib.scale_by_adopt(beta1, beta2, EPS)
    return jax_transformations.with_cosine(adopt, hyperparameters, info)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    return libraries.pytorch_optimizer(
        "ADOPT",
        params,
        hyperparameters,
        info,
        betas=adamw.betas(hyperparameters),
        eps=EPS,
        clip_lambda=lambda step: (step - 1) ** 0.25,
    )

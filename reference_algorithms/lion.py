"""Lion: the sign of an interpolated momentum, with decoupled weight decay.

Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2. The rate is 3 to 10
times smaller than AdamW's and the decay as much larger, as the authors recommend.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules
from reference_algorithms.parts import libraries

DEFAULTS = {**adamw.DEFAULTS, "learning_rate": 5e-4, "weight_decay": 0.2}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "learning_rate": {"min": 3e-5, "max": 3e-3, "scaling": "log"},
    "weight_decay": {"min": 3e-3, "max": 1.0, "scaling": "log"},
}
learning_rate = adamw.learning_rate


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import optax

    beta1, beta2 = adamw.betas(hyperparameters)
    schedule = schedules.warmup_cosine(hyperparameters, info)
    return optax.lion(schedule, beta1, beta2, weight_decay=hyperparameters.weight_decay)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    return libraries.pytorch_optimizer(
        "Lion", params, hyperparameters, info, betas=adamw.betas(hyperparameters)
    )

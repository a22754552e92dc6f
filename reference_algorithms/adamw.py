"""AdamW: Adam with decoupled weight decay, a linear warm-up and a cosine decay.

Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2. Every parameter
decays, as in AlgoPerf's baselines.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import schedules

DEFAULTS = {
    "learning_rate": 2e-3,
    "one_minus_beta1": 0.1,
    "beta2": 0.99,
    "weight_decay": 0.05,
    "warmup_factor": 0.05,
    "grad_clip": 1.0,
}
SEARCH_SPACE = {
    "learning_rate": {"min": 3e-4, "max": 1e-2, "scaling": "log"},
    "one_minus_beta1": {"min": 0.02, "max": 0.2, "scaling": "log"},
    "beta2": {"feasible_points": [0.95, 0.99, 0.999]},
    "weight_decay": {"min": 1e-3, "max": 0.3, "scaling": "log"},
    "warmup_factor": {"feasible_points": [0.02, 0.05, 0.1]},
    "grad_clip": {"feasible_points": [1.0]},
}


def learning_rate(step: Any, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the learning rate of the update at `step`, counted from 0."""
    return schedules.warmup_cosine(hyperparameters, info)(step)


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import optax

    return optax.adamw(
        schedules.warmup_cosine(hyperparameters, info),
        b1=1 - hyperparameters.one_minus_beta1,
        b2=hyperparameters.beta2,
        weight_decay=hyperparameters.weight_decay,
    )


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler; fused is the fastest form on CPU, too."""
    import torch

    optimizer = torch.optim.AdamW(
        params.tensors(),
        lr=1.0,
        betas=(1 - hyperparameters.one_minus_beta1, hyperparameters.beta2),
        weight_decay=hyperparameters.weight_decay,
        fused=True,
    )
    return optimizer, schedules.for_torch(optimizer, schedules.warmup_cosine(hyperparameters, info))

"""AdamW: Adam with decoupled weight decay, a linear warm-up and a cosine decay.

Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2. Every parameter
decays, as in AlgoPerf's baselines.
"""

from collections.abc import Mapping
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
FUSED = {"fused": True}  # the fastest form on CPU, too
SEARCH_SPACE = {
    "learning_rate": {"min": 3e-4, "max": 1e-2, "scaling": "log"},
    "one_minus_beta1": {"min": 0.02, "max": 0.2, "scaling": "log"},
    "beta2": {"feasible_points": [0.95, 0.99, 0.999]},
    "weight_decay": {"min": 1e-3, "max": 0.3, "scaling": "log"},
    "warmup_factor": {"feasible_points": [0.02, 0.05, 0.1]},
    "grad_clip": {"feasible_points": [1.0]},
}


def betas(hyperparameters: spec.Hyperparameters) -> tuple[float, float]:
    """Return Adam's two decay rates."""
    return 1 - hyperparameters.one_minus_beta1, hyperparameters.beta2


def learning_rate(step: Any, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the learning rate of the update at `step`, counted from 0."""
    return schedules.warmup_cosine(hyperparameters, info)(step)


def jax_optimizer(
    hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo, name: str = "adamw"
) -> Any:
    """Return the optax transformation; `name` is for variants of Adam with the same arguments."""
    import optax

    beta1, beta2 = betas(hyperparameters)
    return getattr(optax, name)(
        schedules.warmup_cosine(hyperparameters, info),
        b1=beta1,
        b2=beta2,
        weight_decay=hyperparameters.weight_decay,
    )


def torch_optimizer(
    params: spec.Parameters,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
    name: str = "AdamW",
    options: Mapping[str, Any] = FUSED,
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    import torch

    optimizer = getattr(torch.optim, name)(
        params.tensors(),
        lr=1.0,
        betas=betas(hyperparameters),
        weight_decay=hyperparameters.weight_decay,
        **options,
    )
    return optimizer, schedules.for_torch(optimizer, schedules.warmup_cosine(hyperparameters, info))

"""Momentum: SGD with heavy-ball momentum, a linear warm-up and a linear decay.

The algorithm that AlgoPerf's baselines call heavy ball.

Polyak 1964, "Some methods of speeding up the convergence of iteration methods", in the form of
Sutskever et al. 2013, equations 1 and 2, with the learning rate outside the sum. Weight decay is
L2, added to the gradient of every parameter, as in AlgoPerf's baselines.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import schedules

DEFAULTS = {
    "learning_rate": 0.05,
    "one_minus_beta1": 0.1,
    "weight_decay": 1e-4,
    "warmup_factor": 0.05,
    "decay_steps_factor": 0.9,
    "end_factor": 0.01,
    "grad_clip": 1.0,
}
SEARCH_SPACE = {
    "learning_rate": {"min": 0.01, "max": 1.0, "scaling": "log"},
    "one_minus_beta1": {"min": 0.02, "max": 0.3, "scaling": "log"},
    "weight_decay": {"min": 1e-6, "max": 1e-3, "scaling": "log"},
    "warmup_factor": {"feasible_points": [0.05]},
    "decay_steps_factor": {"feasible_points": [0.9]},
    "end_factor": {"feasible_points": [0.01]},
    "grad_clip": {"feasible_points": [1.0]},
}


def learning_rate(step: Any, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the learning rate of the update at `step`, counted from 0."""
    return schedules.warmup_linear(hyperparameters, info)(step)


def jax_optimizer(
    hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo, nesterov: bool = False
) -> Any:
    """Return the optax transformation; `nesterov` is for the algorithm of that name."""
    import optax

    schedule = schedules.warmup_linear(hyperparameters, info)
    return optax.chain(
        optax.add_decayed_weights(hyperparameters.weight_decay),
        optax.sgd(schedule, 1 - hyperparameters.one_minus_beta1, nesterov=nesterov),
    )


def torch_optimizer(
    params: spec.Parameters,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
    nesterov: bool = False,
) -> Any:
    """Return the PyTorch optimizer and its scheduler; fused is the fastest form on CPU, too."""
    import torch

    optimizer = torch.optim.SGD(
        params.tensors(),
        lr=1.0,
        momentum=1 - hyperparameters.one_minus_beta1,
        weight_decay=hyperparameters.weight_decay,
        nesterov=nesterov,
        fused=True,
    )
    return optimizer, schedules.for_torch(optimizer, schedules.warmup_linear(hyperparameters, info))

"""Schedule-free AdamW: averages its steps instead of decaying the rate.

Defazio et al. 2024, "The Road Less Scheduled", algorithm 1. Training runs at y, between the steps'
z and their average x; x is what an evaluation measures. Weight decay is taken at y.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules
from reference_algorithms.parts import libraries

DEFAULTS = {**adamw.DEFAULTS, "learning_rate": 5e-3}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "learning_rate": {"min": 1e-3, "max": 3e-2, "scaling": "log"},
}


def learning_rate(step: Any, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the learning rate of the update at `step`, counted from 0."""
    return schedules.warmup_constant(hyperparameters, info)(step)


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import optax
    from optax import contrib

    schedule = schedules.warmup_constant(hyperparameters, info)
    beta1, beta2 = adamw.betas(hyperparameters)
    adamw_without_momentum = optax.chain(
        optax.scale_by_rms(beta2, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(hyperparameters.weight_decay),
        optax.scale_by_learning_rate(schedule),
    )
    # It counts its own steps from 1, and those of what it wraps from 0.
    return contrib.schedule_free(
        adamw_without_momentum,
        lambda count: schedule(count - 1),
        b1=beta1,
    )


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    optimizer = libraries.optional("schedulefree").AdamWScheduleFree(
        params.tensors(),
        lr=1.0,
        betas=adamw.betas(hyperparameters),
        weight_decay=hyperparameters.weight_decay,
    )
    optimizer.train()  # it steps in no other mode
    schedule = schedules.warmup_constant(hyperparameters, info)
    return optimizer, schedules.for_torch(optimizer, schedule)


def eval_params(params: Any, optimizer_state: Any) -> Any:
    """Return the average x = y + (z - y) (1 - 1 / beta1); what trains is left as it is."""
    if not hasattr(params, "named_parameters"):
        from optax import contrib

        return contrib.schedule_free_eval_params(optimizer_state, params)
    return _module_at_average(params, optimizer_state)


def _module_at_average(module: Any, optimizer: Any) -> Any:
    """A copy of the module; the library's own switch there and back would round what trains."""
    import copy

    import torch

    average = copy.deepcopy(module)
    beta1, _ = optimizer.param_groups[0]["betas"]
    with torch.no_grad():
        for trained, evaluated in zip(module.parameters(), average.parameters(), strict=True):
            if "z" in optimizer.state[trained]:
                evaluated.lerp_(optimizer.state[trained]["z"], 1 - 1 / beta1)
    return average

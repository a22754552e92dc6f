"""Adafactor: Adam with a factored second moment and steps relative to the parameter's size.

Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", algorithm
6: no momentum, updates clipped to a root mean square of 1, and a relative step of at most
1 / sqrt(t), which `learning_rate` caps. Decoupled weight decay is added. optax leaves dimensions
under 128 unfactored and does not scale its weight decay; both are set to PyTorch's here.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules

DEFAULTS = {
    "learning_rate": 0.03,
    "beta2_decay": 0.8,
    "weight_decay": 0.01,
    "warmup_factor": 0.05,
    "grad_clip": 1.0,
}
SEARCH_SPACE = {
    "learning_rate": {"min": 3e-3, "max": 0.3, "scaling": "log"},
    "beta2_decay": {"feasible_points": [0.7, 0.8, 0.9]},
    "weight_decay": {"min": 1e-4, "max": 0.1, "scaling": "log"},
    **{name: adamw.SEARCH_SPACE[name] for name in ("warmup_factor", "grad_clip")},
}
learning_rate = adamw.learning_rate


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import jax.numpy as jnp
    import optax

    schedule = schedules.warmup_cosine(hyperparameters, info)
    decay = hyperparameters.weight_decay
    return optax.chain(
        optax.adafactor(
            lambda count: jnp.minimum(schedule(count), (count + 1.0) ** -0.5),
            min_dim_size_to_factor=1,
            decay_rate=hyperparameters.beta2_decay,
        ),
        optax.add_decayed_weights(lambda count: -decay * schedule(count)),
    )


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    import torch

    from reference_algorithms.parts import torch_optimizers

    optimizer = torch.optim.Adafactor(
        params.tensors(),
        lr=1.0,
        beta2_decay=-hyperparameters.beta2_decay,
        eps=(1e-15, 1e-3),  # the first one's square bounds the second moment
        weight_decay=hyperparameters.weight_decay,
    )
    return torch_optimizers.with_cosine(optimizer, hyperparameters, info)

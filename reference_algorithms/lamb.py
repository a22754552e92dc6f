"""LAMB: AdamW whose update, in each layer, has a size relative to the layer's own.

You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
algorithm 2, with phi the identity. The ratio is 1 where the layer or its update is 0, as in optax.
PyTorch's form is ours, since pytorch_optimizer's has no bias correction and clips the norm.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules

DEFAULTS = {**adamw.DEFAULTS, "learning_rate": 0.01}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "learning_rate": {"min": 1e-3, "max": 0.1, "scaling": "log"},
}
learning_rate = adamw.learning_rate
EPS = 1e-6


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import optax

    beta1, beta2 = adamw.betas(hyperparameters)
    schedule = schedules.warmup_cosine(hyperparameters, info)
    return optax.lamb(schedule, beta1, beta2, EPS, weight_decay=hyperparameters.weight_decay)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    import torch

    from reference_algorithms.parts import torch_optimizers

    decay = hyperparameters.weight_decay

    def in_proportion(directions: Any, tensors: Any, *_: Any) -> Any:
        torch._foreach_add_(directions, tensors, alpha=decay)
        sizes = torch.stack(torch._foreach_norm(tensors))
        lengths = torch.stack(torch._foreach_norm(directions))
        ratios = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, 1.0)
        torch._foreach_mul_(directions, ratios.unbind())
        return directions

    betas = adamw.betas(hyperparameters)
    optimizer = torch_optimizers.ChangedAdam(params.tensors(), in_proportion, betas, eps=EPS)
    return torch_optimizers.with_cosine(optimizer, hyperparameters, info)

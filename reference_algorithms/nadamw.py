"""NAdamW: Adam with Nesterov momentum and decoupled weight decay, warm-up and cosine decay.

Dozat 2016, "Incorporating Nesterov Momentum into Adam", algorithm 2 with constant mu and without
its factor on the second moment; weight decay as in AdamW. PyTorch schedules Dozat's mu as
beta1 (1 - 0.96^(t momentum_decay) / 2): a huge momentum_decay makes it constant, as optax's is.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, schedules

DEFAULTS = adamw.DEFAULTS
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import optax

    return optax.nadamw(
        schedules.warmup_cosine(hyperparameters, info),
        b1=1 - hyperparameters.one_minus_beta1,
        b2=hyperparameters.beta2,
        weight_decay=hyperparameters.weight_decay,
    )


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler; foreach halves its time on CPU."""
    import torch

    optimizer = torch.optim.NAdam(
        params.tensors(),
        lr=1.0,
        betas=(1 - hyperparameters.one_minus_beta1, hyperparameters.beta2),
        weight_decay=hyperparameters.weight_decay,
        momentum_decay=1e6,
        decoupled_weight_decay=True,
        foreach=True,
    )
    return optimizer, schedules.for_torch(optimizer, schedules.warmup_cosine(hyperparameters, info))

"""Signum: the sign of the momentum, with decoupled weight decay.

Bernstein et al. 2018, "signSGD: Compressed Optimisation for Non-Convex Problems", algorithm 1;
the decay is added to the sign.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw
from reference_algorithms.parts import libraries

DEFAULTS = {
    "learning_rate": 5e-4,
    "one_minus_beta1": 0.05,
    "weight_decay": 0.2,
    "warmup_factor": 0.05,
    "grad_clip": 1.0,
}
SEARCH_SPACE = {
    "learning_rate": {"min": 3e-5, "max": 3e-3, "scaling": "log"},
    "one_minus_beta1": adamw.SEARCH_SPACE["one_minus_beta1"],
    "weight_decay": {"min": 3e-3, "max": 1.0, "scaling": "log"},
    **{name: adamw.SEARCH_SPACE[name] for name in ("warmup_factor", "grad_clip")},
}
learning_rate = adamw.learning_rate


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import optax

    from reference_algorithms.parts import jax_transformations

    momentum = optax.ema(1 - hyperparameters.one_minus_beta1, debias=False)
    sign = optax.chain(momentum, optax.scale_by_sign())
    return jax_transformations.with_cosine(sign, hyperparameters, info)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    momentum = 1 - hyperparameters.one_minus_beta1
    return libraries.pytorch_optimizer("SignSGD", params, hyperparameters, info, momentum=momentum)

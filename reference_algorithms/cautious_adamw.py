"""Cautious AdamW: AdamW that leaves out, in each step, what the gradient now points against.

Liang et al. 2024, "Cautious Optimizers: Improving Training with One Line of Code", algorithm 1:
the entries left are scaled up by n / (count + 1), in each tensor. Weight decay is not masked.
Neither optax nor pytorch_optimizer has it with Adam.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate


def jax_optimizer(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    import jax

    from reference_algorithms.parts import jax_transformations

    def masked(direction: Any, gradient: Any) -> Any:
        agrees = direction * gradient > 0
        return direction * agrees * (agrees.size / (agrees.sum() + 1))

    def cautious(directions: Any, gradients: Any, _: Any) -> Any:
        return jax.tree.map(masked, directions, gradients)

    beta1, beta2 = adamw.betas(hyperparameters)
    adam = jax_transformations.change_adam(beta1, beta2, cautious)
    return jax_transformations.with_cosine(adam, hyperparameters, info)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    import torch

    from reference_algorithms.parts import torch_optimizers

    def cautious(directions: Any, _: Any, gradients: Any, *__: Any) -> Any:
        agrees = torch._foreach_mul(directions, gradients)  # soon 1 where the signs agree, else 0
        torch._foreach_sign_(agrees)
        torch._foreach_clamp_min_(agrees, 0.0)
        for direction, mask in zip(directions, agrees, strict=True):
            direction.mul_(mask).mul_(mask.numel() / (mask.sum() + 1))
        return directions

    betas = adamw.betas(hyperparameters)
    optimizer = torch_optimizers.ChangedAdam(
        params.tensors(), cautious, betas, hyperparameters.weight_decay
    )
    return torch_optimizers.with_cosine(optimizer, hyperparameters, info)

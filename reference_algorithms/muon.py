"""Muon: momentum with all singular values near 1 for hidden matrices, AdamW for the rest.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with Nesterov
momentum and five Newton-Schulz steps; the scale 0.2 sqrt(max(rows, columns)), which makes updates
as large as AdamW's and lets both share rate and weight decay, is from Liu et al. 2025, "Muon is
Scalable for LLM Training", equation 4. Both frameworks work in float32. torch.optim.Muon works in
bfloat16, which took 600 ms a step on a CPU where this takes 20.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = {**adamw.DEFAULTS, "momentum": 0.95}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "momentum": {"feasible_points": [0.9, 0.95]},
}
learning_rate = adamw.learning_rate


def scale(matrix: Any) -> float:
    """Adam's usual size of an update, Liu et al. 2025."""
    return float(0.2 * max(matrix.shape) ** 0.5)


def jax_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the optax transformation."""
    import jax
    import optax

    from reference_algorithms.parts import jax_transformations

    def orthogonalized(directions: Any, _: Any = None) -> Any:
        return jax.tree.map(
            lambda each: scale(each) * jax_transformations.orthogonalize(each), directions
        )

    # optax's own momentum corrects the bias of its two parts apart; Jordan's has no correction.
    momentum = optax.trace(hyperparameters.momentum, nesterov=True)
    direction = optax.chain(momentum, optax.stateless(orthogonalized))
    muon = jax_transformations.with_cosine(direction, hyperparameters, info)
    return jax_transformations.matrices_apart(params, hyperparameters, info, muon)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    from reference_algorithms.parts import torch_optimizers

    def orthogonalized(directions: Any, *_: Any) -> Any:
        return [scale(each) * torch_optimizers.orthogonalize(each) for each in directions]

    momentum, decay = hyperparameters.momentum, hyperparameters.weight_decay

    def muon(matrices: Any) -> Any:
        return torch_optimizers.ChangedMomentum(
            matrices, orthogonalized, momentum, decay, nesterov=True
        )

    return torch_optimizers.matrices_apart(params, hyperparameters, info, muon)

"""NorMuon: Muon with one size of the update for all neurons, AdamW for the rest.

Li et al. 2025, "NorMuon: Making Muon more efficient and scalable", algorithm 1: after Muon's
orthogonalisation each neuron's row is divided by the root of an average of its mean squares, and
all rows together are scaled to a root mean square of 0.2. The momentum is Nesterov's, as in the
authors' code. Both frameworks work in float32; optax has none, and pytorch_optimizer's NorMuon
orthogonalises in bfloat16, which a CPU does slowly and no other framework to the same digits.
"""

from typing import Any

from algoperf import spec
from reference_algorithms import adamw, muon

DEFAULTS = {**muon.DEFAULTS, "neuron_beta2": 0.95}
SEARCH_SPACE = {
    **muon.SEARCH_SPACE,
    "neuron_beta2": {"feasible_points": [0.9, 0.95, 0.99]},
}
learning_rate = adamw.learning_rate
RMS = 0.2
EPS = 1e-10


def normalized(orthogonal: Any, square: Any, beta2: float, inputs_axis: int) -> tuple[Any, Any]:
    """Return (the update, the neurons' mean squares); the same formula for both frameworks.

    Args:
        orthogonal: The orthogonalised momentum of one matrix.
        square: The average of the neurons' mean squares, of length 1 along `inputs_axis`.
        beta2: The average's decay.
        inputs_axis: The axis along which a neuron's weights lie.
    """
    now = (orthogonal**2).mean(axis=inputs_axis, keepdims=True)
    square = beta2 * square + (1 - beta2) * now
    update = orthogonal / (square**0.5 + EPS)
    return update * (RMS / ((update**2).mean() ** 0.5 + EPS)), square


def jax_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    beta2 = hyperparameters.neuron_beta2

    def init(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros((1, leaf.shape[1]), leaf.dtype), tree)

    def one(direction: Any, square: Any) -> tuple[Any, Any]:
        return normalized(jax_transformations.orthogonalize(direction), square, beta2, 0)

    def update(directions: Any, squares: Any, _: Any = None) -> tuple[Any, Any]:
        return jax_transformations.each(one, directions, squares)

    momentum = optax.trace(hyperparameters.momentum, nesterov=True)
    direction = optax.chain(momentum, optax.GradientTransformation(init, update))
    normuon = jax_transformations.with_cosine(direction, hyperparameters, info)
    return jax_transformations.matrices_apart(params, hyperparameters, info, normuon)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    from reference_algorithms.parts import torch_optimizers

    beta2 = hyperparameters.neuron_beta2

    def change(directions: Any, _: Any, __: Any, states: Any, ___: Any) -> Any:
        updates = []
        for direction, state in zip(directions, states, strict=True):
            if "neuron_square" not in state:
                state["neuron_square"] = direction.new_zeros((len(direction), 1))
            orthogonal = torch_optimizers.orthogonalize(direction)
            update, state["neuron_square"] = normalized(
                orthogonal, state["neuron_square"], beta2, 1
            )
            updates.append(update)
        return updates

    momentum, decay = hyperparameters.momentum, hyperparameters.weight_decay

    def normuon(matrices: Any) -> Any:
        return torch_optimizers.ChangedMomentum(matrices, change, momentum, decay, nesterov=True)

    return torch_optimizers.matrices_apart(params, hyperparameters, info, normuon)

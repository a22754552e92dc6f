"""Scion: in each layer the longest step that the layer's norm allows, against the momentum.

Pethick et al. 2025, "Training Deep Learning Models with Norm-Constrained LMOs", algorithm 1 with
decoupled weight decay, which is its algorithm 2 for balls of a radius of 1 / weight_decay. The
momentum d is an average of gradients, and a layer's step the point of its unit ball that lies
farthest along d (the linear minimisation oracle). The norms are the paper's:

- hidden matrices and convolutions: spectral, sqrt(outputs / inputs) U V' of the singular value
  decomposition of d, by Muon's Newton-Schulz steps; of a convolution over its window's size;
- embeddings: each row with a root mean square of 1;
- the output layer, and embeddings that it shares: `output_scale` sign(d) / inputs;
- vectors (biases, scales): a root mean square of 1.

AdamW has no part in it. The initial weights are the workload's, not on the balls' surfaces. Both
frameworks' forms are ours: optax has none, and pytorch_optimizer's SCION orthogonalises in
bfloat16, which a CPU does slowly and no other framework to the same digits.
"""

import math
from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = {
    "learning_rate": 0.01,
    "one_minus_beta1": 0.1,
    "output_scale": 16.0,
    "weight_decay": 0.05,
    "warmup_factor": 0.05,
    "grad_clip": 1.0,
}
SEARCH_SPACE = {
    "learning_rate": {"min": 1e-3, "max": 0.1, "scaling": "log"},
    "one_minus_beta1": {"min": 0.02, "max": 0.5, "scaling": "log"},
    "output_scale": {"feasible_points": [4.0, 16.0, 60.0]},
    "weight_decay": adamw.SEARCH_SPACE["weight_decay"],
    **{name: adamw.SEARCH_SPACE[name] for name in ("warmup_factor", "grad_clip")},
}
learning_rate = adamw.learning_rate
EPS = 1e-8  # as in the authors' code


def norm_of(parameter: spec.Parameter) -> str:
    """Return the name of the norm of a parameter's steps."""
    if len(parameter.shape) < 2:
        return "vector"
    if parameter.type is spec.ParameterType.EMBEDDING:
        return "shared table" if parameter.is_output else "table"
    if parameter.is_output:
        return "output"
    module = parameter.name.split("/")[-2:-1]
    return "transposed" if "transposed" in "".join(module) else "hidden"


def normalized(total: Any) -> Any:
    """Each row (or the vector) with a root mean square of 1; for both frameworks."""
    axis = -1 if total.shape else None
    return total / ((total**2).mean(axis=axis, keepdims=True) ** 0.5 + EPS)


def spectral_scale(outputs: int, inputs: int, window: tuple[int, ...]) -> float:
    """How long a hidden layer's step is, in the spectral norm."""
    return math.sqrt(outputs / inputs) / math.prod(window)


def jax_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    output_scale = hyperparameters.output_scale

    def step(norm: str, total: Any) -> Any:
        if norm in ("vector", "table"):
            return normalized(total)
        if norm in ("output", "shared table"):
            inputs = total.shape[-1] if norm == "shared table" else math.prod(total.shape[:-1])
            return jnp.sign(total) * (output_scale / inputs)
        *window, inputs, outputs = total.shape
        orthogonal = jax_transformations.orthogonalize(total.reshape(-1, outputs))
        return orthogonal.reshape(total.shape) * spectral_scale(outputs, inputs, tuple(window))

    norms = params.tree(norm_of)
    direction = optax.chain(
        optax.trace(1 - hyperparameters.one_minus_beta1),  # its scale does not matter
        optax.stateless(lambda totals, _: jax.tree.map(step, norms, totals)),
    )
    return jax_transformations.with_cosine(direction, hyperparameters, info)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    from reference_algorithms.parts import torch_optimizers

    output_scale = hyperparameters.output_scale

    def step(norm: str, total: Any) -> Any:
        if norm in ("vector", "table"):
            return normalized(total)
        if norm in ("output", "shared table"):
            return total.sign() * (output_scale / math.prod(total.shape[1:]))
        by_outputs = total.transpose(0, 1) if norm == "transposed" else total
        outputs, inputs, *window = by_outputs.shape
        orthogonal = torch_optimizers.orthogonalize(by_outputs.flatten(1))
        orthogonal = orthogonal.reshape(by_outputs.shape)
        orthogonal = orthogonal * spectral_scale(outputs, inputs, tuple(window))
        return orthogonal.transpose(0, 1) if norm == "transposed" else orthogonal

    def change(totals: Any, _: Any, __: Any, ___: Any, group: Any) -> Any:
        return [step(group["norm"], total) for total in totals]

    by_norm: dict[str, list[Any]] = {}
    for parameter in params.values():
        by_norm.setdefault(norm_of(parameter), []).append(parameter.tensor)
    optimizer = torch_optimizers.ChangedMomentum(
        [{"params": tensors, "norm": norm} for norm, tensors in by_norm.items()],
        change,
        1 - hyperparameters.one_minus_beta1,
        hyperparameters.weight_decay,
    )
    return torch_optimizers.with_cosine(optimizer, hyperparameters, info)

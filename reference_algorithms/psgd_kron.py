"""PSGD Kron: hidden matrices whitened from both sides by fitted factors, AdamW for the rest.

Li 2018, "Preconditioned Stochastic Gradient Descent" (the criterion, and Kronecker products), with
the fit without inverses of Li 2024, "Stochastic Hessian Fittings with Lie Groups". The momentum M
becomes P M R. P = Q Q and R = S S, of symmetric Q and S, are fitted to whiten the gradient G: each
fit goes a step down the criterion g' (P x R) g + tr (P x R)^-1, least at the inverse root of the
mean of g g', in the quadratic form Q <- A Q A with A = I - a (P G R R G' P - n I), n being the
columns of G, which leaves Q positive definite. P M R is clipped to a root mean square of 1.1.

No random number is drawn, so both frameworks do the same. The published forms draw a probe v, of
which the mean of v' P^-1 v is the trace, noise that damps G, when to balance the factors, and some
when to fit. Here the first two are their expectations, factors are balanced at each fit, and fits
grow rarer on a schedule. psgd-jax (optax has none) and pytorch_optimizer's Kron draw the probe each
from its framework's generator, and so cannot agree: both forms here are ours.
"""

import functools
from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate
FIT_RATE = 0.1
BOUND_DECAY = 0.9
DAMPING = 2**-11.5  # of the mean |G|: the root of float32's epsilon
FLOOR = 1e-8  # added to it, so that gradients of zeros do not let the factors grow for ever
LARGEST_RMS = 1.1
TINY = 1e-30  # keeps zeros from dividing by zero
# A fit at each of the first 500 updates, then at every 2nd, 4th, ... 32nd, half as often after each
# 700 more: about psgd-jax's probability, which falls to 0.03. With rarer ones, which halve after
# 100, 200, 300 updates, ag_news' loss was 0.33 after 200 updates, and with these 0.31 (one seed).
FLAT, HALVE, LAST_HALVING = 500, 700, 5


def is_due(count: Any) -> Any:
    """Whether the factors are fitted at update `count`, from 0, an int or one of JAX's."""
    halvings = (count + HALVE - FLAT) // HALVE
    halvings = halvings - (halvings - LAST_HALVING) * (halvings > LAST_HALVING)
    return count % (1 << halvings) == 0


def fit(gradient: Any, factors: Any) -> list[Any]:
    """Return the factors after one step towards whitening; the same formula for both frameworks.

    Args:
        gradient: The gradient of one matrix.
        factors: Q, S and what bounds the criterion's curvature in each, 0 before the first fit.
    """
    left, right, left_bound, right_bound = factors
    rows, columns = gradient.shape
    left_root, right_root = left @ left, right @ right
    whitened = left_root @ gradient @ right_root
    noise = (DAMPING * abs(gradient).mean() + FLOOR) ** 2
    covariance = whitened @ whitened.T
    covariance = covariance + noise * (right_root**2).sum() * (left_root @ left_root)
    left, left_bound = _renewed(left, left_bound, covariance, columns)
    covariance = whitened.T @ whitened
    covariance = covariance + noise * (left_root**2).sum() * (right_root @ right_root)
    right, right_bound = _renewed(right, right_bound, covariance, rows)
    balance = (abs(right).max() / abs(left).max()) ** 0.5
    return [left * balance, right / balance, left_bound, right_bound]


def _renewed(factor: Any, bound: Any, covariance: Any, size: int) -> tuple[Any, Any]:
    """Return (factor, bound); a white `covariance` is `size` times the identity."""
    largest = _spectral_norm(covariance) + size
    bound = largest + BOUND_DECAY * (bound - largest).clip(0)  # falls slowly, rises at once
    rate = FIT_RATE / 2 / bound
    factor = factor - rate * (covariance @ factor - size * factor)
    factor = factor - rate * (factor @ covariance - size * factor)
    return (factor + factor.T) / 2, bound


def _spectral_norm(covariance: Any) -> Any:
    """Bound it from below by power iteration from the longest row."""
    longest = (covariance**2).sum(axis=1).argmax().reshape(1)  # an array: no GPU waits for it
    vector = covariance[longest][0]
    for _ in range(2):
        vector = covariance @ (vector / ((vector**2).sum() ** 0.5 + TINY))
    return (vector**2).sum() ** 0.5


def precondition(mean: Any, factors: Any) -> Any:
    """Return the momentum between the factors, clipped; the same formula for both frameworks."""
    left, right = factors[:2]
    direction = left @ (left @ mean @ right) @ right
    rms = (direction**2).mean() ** 0.5
    return direction * (LARGEST_RMS / (rms + TINY)).clip(max=1.0)


def jax_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    from reference_algorithms.parts import jax_transformations

    momentum = optax.ema(1 - hyperparameters.one_minus_beta1)

    def init(tree: Any) -> Any:
        def identities(leaf: Any) -> Any:
            bounds = [jnp.zeros([], leaf.dtype) for _ in range(2)]
            return [*(jnp.eye(size, dtype=leaf.dtype) for size in leaf.shape), *bounds]

        return momentum.init(tree), jax.tree.map(identities, tree)

    def update(gradients: Any, state: Any, _: Any = None) -> tuple[Any, Any]:
        momentum_state, factors = state
        due = is_due(momentum_state.count)
        means, momentum_state = momentum.update(gradients, momentum_state)

        def one(gradient: Any, mean: Any, factors: Any) -> tuple[Any, Any]:
            factors = jax.lax.cond(due, fit, lambda _, factors: factors, gradient, factors)
            return precondition(mean, factors), factors

        directions, factors = jax_transformations.each(one, gradients, means, factors)
        return directions, (momentum_state, factors)

    kron = optax.GradientTransformation(init, update)
    kron = jax_transformations.with_cosine(kron, hyperparameters, info)
    return jax_transformations.matrices_apart(params, hyperparameters, info, kron)


def torch_optimizer(
    params: spec.Parameters, hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo
) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    import torch

    from reference_algorithms.parts import torch_optimizers

    def change(totals: Any, _: Any, gradients: Any, states: Any, group: Any) -> Any:
        momentum, step = group["momentum"], group["step"]
        to_mean = (1 - momentum) / (1 - momentum**step)
        directions = []
        for total, gradient, state in zip(totals, gradients, states, strict=True):
            if "factors" not in state:
                identity = functools.partial(torch.eye, dtype=total.dtype, device=total.device)
                bounds = [total.new_zeros(()) for _ in range(2)]
                state["factors"] = [*map(identity, total.shape), *bounds]
            if is_due(step - 1):
                state["factors"] = fit(gradient, state["factors"])
            directions.append(precondition(total * to_mean, state["factors"]))
        return directions

    momentum, decay = 1 - hyperparameters.one_minus_beta1, hyperparameters.weight_decay
    return torch_optimizers.matrices_apart(
        params,
        hyperparameters,
        info,
        lambda matrices: torch_optimizers.ChangedMomentum(matrices, change, momentum, decay),
    )

"""Learning rate schedules, each one formula for both frameworks.

A schedule maps a step to its learning rate. Steps count from 0, as optax and PyTorch's LambdaLR
count them, and are Python or NumPy numbers or JAX arrays. The warm-up rises linearly to the peak,
which it reaches at update number `warmup_factor` x step hint; the first update's rate is never 0.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from algoperf import spec

Schedule = Callable[[Any], Any]
FLOOR = 0.01  # share of the peak; keeps a run that outlives its step hint learning


def warmup_cosine(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Schedule:
    """Warm up, then follow half a cosine to 0 at the step hint, but stop at `FLOOR`.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts. Reads `learning_rate`, the
    peak, and `warmup_factor`, the share of the step hint.
    """
    peak = hyperparameters.learning_rate
    warmup_steps, decay_steps = _lengths(hyperparameters.warmup_factor, info.step_hint)

    def schedule(step: Any) -> Any:
        xp, update = _namespace(step), step + 1
        left = xp.clip((warmup_steps + decay_steps - update) / decay_steps, 0.0, 1.0)
        cosine = xp.sin(math.pi / 2 * left) ** 2  # (1 + cos(pi (1 - left))) / 2, exact near 0
        return peak * xp.minimum(update / warmup_steps, xp.maximum(cosine, FLOOR))

    return schedule


def warmup_linear(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Schedule:
    """Warm up, fall linearly to `end_factor` of the peak, stay there; AlgoPerf's for momentum.

    Reads `learning_rate` and `warmup_factor` as above, and `decay_steps_factor`, the share of the
    steps after the warm-up over which it falls.
    """
    peak, end = hyperparameters.learning_rate, hyperparameters.end_factor
    warmup_steps, decay_steps = _lengths(hyperparameters.warmup_factor, info.step_hint)
    decay_steps = max(1, round(hyperparameters.decay_steps_factor * decay_steps))

    def schedule(step: Any) -> Any:
        xp, update = _namespace(step), step + 1
        left = xp.clip((warmup_steps + decay_steps - update) / decay_steps, 0.0, 1.0)
        return peak * xp.minimum(update / warmup_steps, end + (1 - end) * left)

    return schedule


def warmup_constant(hyperparameters: spec.Hyperparameters, info: spec.TrainingInfo) -> Schedule:
    """Warm up and stay at the peak, for methods that average instead of decaying."""
    peak = hyperparameters.learning_rate
    warmup_steps, _ = _lengths(hyperparameters.warmup_factor, info.step_hint)

    def schedule(step: Any) -> Any:
        return peak * _namespace(step).minimum((step + 1) / warmup_steps, 1.0)

    return schedule


def for_torch(optimizer: Any, schedule: Schedule) -> Any:
    """Return a PyTorch scheduler that follows `schedule` on an optimizer made with lr=1."""
    import torch

    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(schedule(step)))


def _lengths(warmup_factor: float, step_hint: int) -> tuple[int, int]:
    """The steps of the warm-up and those after it, each at least 1."""
    warmup_steps = max(1, round(warmup_factor * step_hint))
    return warmup_steps, max(1, step_hint - warmup_steps)


def _namespace(step: Any) -> Any:
    """The module whose functions fit `step`: an array names its own (the array API standard)."""
    return step.__array_namespace__() if hasattr(step, "__array_namespace__") else np

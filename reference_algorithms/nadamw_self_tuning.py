"""NAdamW self-tuning: NAdamW at one fixed point, for the self-tuning ruleset.

The algorithm is `nadamw`; nothing is left to tune. A higher beta2 and a longer warm-up than there
cost a few steps where they are not needed.
"""

import types
from typing import Any

from algoperf import spec
from reference_algorithms import nadamw

DEFAULTS = {"grad_clip": 1.0}
FIXED = types.SimpleNamespace(
    learning_rate=2e-3, one_minus_beta1=0.1, beta2=0.995, weight_decay=0.05, warmup_factor=0.1
)


def learning_rate(step: Any, info: spec.TrainingInfo) -> Any:
    """Return the learning rate of the update at `step`, counted from 0."""
    return nadamw.learning_rate(step, FIXED, info)


def jax_optimizer(info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    return nadamw.jax_optimizer(FIXED, info)


def torch_optimizer(params: spec.Parameters, info: spec.TrainingInfo) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    return nadamw.torch_optimizer(params, FIXED, info)

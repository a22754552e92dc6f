"""Schedule-free self-tuning: schedule-free AdamW at one fixed point, for the self-tuning ruleset.

The algorithm is `schedule_free_adamw`; nothing is left to tune. Since its rate never decays, it
does not depend on when a run ends, and the step hint sets only the warm-up.
"""

import types
from typing import Any

from algoperf import spec
from reference_algorithms import schedule_free_adamw

DEFAULTS = {"grad_clip": 1.0}
FIXED = types.SimpleNamespace(
    learning_rate=5e-3, one_minus_beta1=0.1, beta2=0.99, weight_decay=0.05, warmup_factor=0.05
)
eval_params = schedule_free_adamw.eval_params


def learning_rate(step: Any, info: spec.TrainingInfo) -> Any:
    """Return the learning rate of the update at `step`, counted from 0."""
    return schedule_free_adamw.learning_rate(step, FIXED, info)


def jax_optimizer(info: spec.TrainingInfo) -> Any:
    """Return the optax transformation."""
    return schedule_free_adamw.jax_optimizer(FIXED, info)


def torch_optimizer(params: spec.Parameters, info: spec.TrainingInfo) -> Any:
    """Return the PyTorch optimizer and its scheduler."""
    return schedule_free_adamw.torch_optimizer(params, FIXED, info)

"""Generated images of stripes and a small convolutional network with batch norm: a workload for
tests of model state.
"""

import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Scale, WorkloadDefinition
from algoperf.workload.parameters import fan_in


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    return math.sqrt(2 / fan_in(shape))  # He et al. 2015, for rectified units


WORKLOAD = WorkloadDefinition(
    name="conv_norm",
    package=__name__,
    summary="generated 8x8 images of stripes; a small convolutional network with batch norm",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    higher_is_better=True,
    metrics=("accuracy",),
    scales={
        "mini": Scale(
            model={"channels": 8, "blocks": 1, "classes": 4},
            data={"train_rows": 256, "other_rows": 64, "seed": 0},
            default_source="builtin",
            batch_size=16,
            eval_batch_size=64,
            eval_train_rows=64,
            step_hint=60,
            budget_s=20.0,
            eval_every_s=1.0,
        )
    },
    sources=("builtin",),
    output_layer="head",
    initial_std=_initial_std,
)

"""The digits workload: a small multilayer perceptron classifies handwritten digits.

The data are scikit-learn's 1,797 real 8x8 images; a run takes seconds.
"""

import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import EVAL_SHARE, Scale, Target, Variant, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts.style import Style

STYLE = Style(activation="relu", norm="none")


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    return math.sqrt(2 / fan_in(shape))  # This is the rule of He et al. (2015) for rectified units.


def _variant(axis: str, value: Any, target: float, baseline: float) -> Variant:
    reached = Target(
        validation=target,
        baselines={"logistic regression on the same rows (best of C 0.01 to 10)": baseline},
        provenance="docs/targets.md: nadamw reaches it within 450 steps in at least 9 of 10 runs, "
        "five seeds in each framework",
    )
    return Variant({axis: value}, targets={"mini": {"builtin": reached}})


WORKLOAD = WorkloadDefinition(
    name="digits",
    package="workloads.digits",
    summary="handwritten digits, 1,797 real 8x8 images; multilayer perceptron",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    higher_is_better=True,
    metrics=("accuracy",),
    scales={
        "mini": Scale(
            model={"width": 128, "depth": 2, "classes": 10, "style": STYLE},
            data={"validation_rows": 500, "test_rows": 297, "seed": 0},
            default_source="builtin",
            batch_size=64,
            eval_batch_size=500,
            eval_train_rows=500,
            step_hint=600,
            budget_s=15.0,
            eval_every_s=0.1,
            eval_share=EVAL_SHARE,
            targets={
                "builtin": Target(
                    validation=0.97,
                    baselines={"logistic regression on pixels (best of C 0.1, 1, 10)": 0.968},
                    provenance="docs/targets.md: nadamw reaches it in 120 to 180 steps (median "
                    "160) in 10 of 10 seeds, in each framework",
                )
            },
        )
    },
    sources=("builtin",),
    output_layer="head",
    initial_std=_initial_std,
    variants={
        "tanh": _variant("activation", "tanh", 0.97, 0.968),
        "layer_norm": _variant("norm", "layer", 0.978, 0.968),
        "noisy": _variant("label_noise", 0.2, 0.952, 0.922),
    },
)

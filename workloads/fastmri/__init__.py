"""The fastmri workload: a U-Net makes of undersampled k-space's image that of the whole k-space.

The full scale is AlgoPerf's: the single-coil knee scans of fastMRI (Zbontar et al. 2018).
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Scale, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts import targets
from workloads.parts.style import UNetStyle

STYLE = UNetStyle(activation="leaky_relu", norm="instance")
TEN_SEEDS = "150 to 300 steps in 9 of 10 seeds, in each framework"
FIVE_SEEDS = "of 400 steps in 5 of 5 seeds, in each framework"
SAMPLING = {"accelerations": (4,), "centre_fractions": (0.08,)}


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    return math.sqrt(1 / fan_in(shape))  # LeCun et al. 1998; of a transposed convolution as flax's


_mini = functools.partial(targets.mini, ceiling=0.911, baselines={"zero-filled k-space": 0.697})

WORKLOAD = WorkloadDefinition(
    name="fastmri",
    package="workloads.fastmri",
    summary="magnetic-resonance images from a quarter of k-space (fastMRI, single coil); U-Net",
    loss_type=spec.LossType.MEAN_ABSOLUTE_ERROR,
    target_metric="ssim",
    higher_is_better=True,
    metrics=("ssim",),
    scales={
        "mini": Scale(
            model={"width": 8, "levels": 4, "style": STYLE},
            data={"size": 64, **SAMPLING},
            default_source="builtin",
            batch_size=16,
            eval_batch_size=32,
            eval_train_rows=32,
            step_hint=400,
            budget_s=240.0,
            eval_every_s=10.0,
            targets={"builtin": _mini(0.82, TEN_SEEDS)},
        ),
        "full": Scale(
            model={"width": 32, "levels": 4, "style": STYLE},
            data={"size": 320, **SAMPLING},
            default_source="folder",
            batch_size=32,
            eval_batch_size=32,
            eval_train_rows=3584,
            step_hint=18_094,
            budget_s=4_430.0,
            eval_every_s=80.0,
            targets={"folder": targets.published(0.723653, 0.740633)},
        ),
    },
    sources=("builtin", "folder"),
    output_layer="head",
    initial_std=_initial_std,
    variants={
        "model_size": targets.variant(
            {"width": 2.0, "levels": 0.75},
            (0.723559, 0.740726),
            _mini(0.85, f"200 to 275 {FIVE_SEEDS}"),
        ),
        "tanh": targets.variant(
            {"activation": "tanh"}, (0.717840, 0.734505), _mini(0.72, f"200 to 375 {FIVE_SEEDS}")
        ),
        "layernorm": targets.variant(
            {"norm": "layer"}, (0.723284, 0.739996), _mini(0.81, f"175 to 250 {FIVE_SEEDS}")
        ),
    },
)

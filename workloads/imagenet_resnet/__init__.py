"""The ImageNet workload of AlgoPerf with a residual network: the class of an image.

Full scale is ResNet-50 on ImageNet (Russakovsky et al. 2015); mini is a small network of the same
blocks on generated images (`workloads.parts.textured_shapes`).
"""

import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Scale, Variant, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts import imagenet
from workloads.parts.style import ResidualConvolutionStyle

STYLE = ResidualConvolutionStyle(activation="relu", norm="batch")
LAST_NORM = ("norm_3/scale",)  # of a block; 'batch_norm_3/scale' ends so as well


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    return 0.01 if name == "head/kernel" else math.sqrt(1 / fan_in(shape))


def _initial_norm_scale(name: str, model: Mapping[str, Any]) -> float:
    return float(model["style"].last_norm_scale) if name.endswith(LAST_NORM) else 1.0


WORKLOAD = WorkloadDefinition(
    name="imagenet_resnet",
    package="workloads.imagenet_resnet",
    summary="classes of images (ImageNet; mini: generated shapes); residual network, batch norm",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    higher_is_better=True,
    metrics=("accuracy",),
    scales={
        "mini": Scale(
            model={
                "width": 24,
                "stages": (1, 1, 1),
                "stem": 3,
                "stem_stride": 2,
                "classes": 12,
                "style": STYLE,
            },
            data=imagenet.MINI,
            default_source="builtin",
            batch_size=64,
            eval_batch_size=250,
            eval_train_rows=250,
            step_hint=600,
            budget_s=250.0,
            eval_every_s=7.0,
            published_batch_size=1024,
            targets=imagenet.mini(0.85, "250 to 325 of 600 steps in 10 of 10 seeds"),
        ),
        "full": Scale(
            model={
                "width": 64,
                "stages": (3, 4, 6, 3),
                "stem": 7,
                "stem_stride": 2,
                "classes": 1000,
                "style": STYLE,
            },
            data=imagenet.FULL,
            default_source="folder",
            batch_size=1024,
            eval_batch_size=1024,
            eval_train_rows=50_176,
            step_hint=195_999,
            budget_s=66_159.0,
            eval_every_s=510.0,
            targets=imagenet.published(0.77431, 0.6560),
        ),
    },
    sources=("builtin", "hub", "folder"),
    output_layer="head",
    initial_std=_initial_std,
    initial_norm_scale=_initial_norm_scale,
    variants={
        "silu": Variant(
            {"activation": "silu"},
            {
                "full": imagenet.published(0.75445, 0.6323),
                "mini": imagenet.mini(0.86, "275 to 350 of 600 steps in 5 of 5 seeds"),
            },
        ),
        "gelu": Variant(
            {"activation": "gelu_tanh"},
            {
                "full": imagenet.published(0.76765, 0.6519),
                "mini": imagenet.mini(0.87, "300 to 350 of 600 steps in 5 of 5 seeds"),
            },
        ),
        "large_bn_init": Variant(
            {"last_norm_scale": 8.0},
            {
                "full": imagenet.published(0.76526, 0.6423),
                "mini": imagenet.mini(0.9, "175 to 275 of 600 steps in 5 of 5 seeds"),
            },
        ),
        "layer_norm": Variant({"norm": "layer"}),
        "group_norm": Variant({"norm": "group"}),
    },
)

"""The ImageNet workload of AlgoPerf with a vision transformer: the class of an image.

Full scale is ViT-S/16 on ImageNet (Russakovsky et al. 2015) with RandAugment and mixup; mini is a
small one of the same blocks on generated images (`workloads.parts.textured_shapes`).
"""

import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Scale, Variant, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts import imagenet
from workloads.parts.style import ImageTransformerStyle

STYLE = ImageTransformerStyle(activation="gelu_tanh", norm="layer")
BY_INPUTS = ("patches/conv/kernel", "pre_logits/kernel")
MIXED = {"operations": 2, "mixup_alpha": 0.2}


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    if name == "head/kernel":
        return 0.0
    if name in BY_INPUTS:
        return math.sqrt(1 / fan_in(shape))
    # The rule of Glorot and Bengio (2010); keys and values are a layer, and drawn as two.
    inputs, outputs = fan_in(shape), shape[-1]
    outputs //= 2 if name.endswith("key_value/kernel") else 1
    return math.sqrt(2 / (inputs + outputs))


WORKLOAD = WorkloadDefinition(
    name="imagenet_vit",
    package="workloads.imagenet_vit",
    summary="classes of images (ImageNet; mini: generated shapes); vision transformer, mixup",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    higher_is_better=True,
    metrics=("accuracy",),
    scales={
        "mini": Scale(
            model={
                "width": 64,
                "layers": 4,
                "heads": 4,
                "feed_forward": 256,
                "patch": 8,
                "classes": 12,
                "style": STYLE,
            },
            data={**imagenet.MINI, **MIXED},
            default_source="builtin",
            batch_size=64,
            eval_batch_size=250,
            eval_train_rows=500,
            step_hint=1500,
            budget_s=240.0,
            eval_every_s=5.0,
            published_batch_size=1024,
            targets=imagenet.mini(0.5, "650 to 1,300 of 1,500 steps in 10 of 10 seeds"),
        ),
        "full": Scale(
            model={
                "width": 384,
                "layers": 12,
                "heads": 6,
                "feed_forward": 1536,
                "patch": 16,
                "classes": 1000,
                "style": STYLE,
            },
            data={**imagenet.FULL, **MIXED},
            default_source="folder",
            batch_size=1024,
            eval_batch_size=2048,
            eval_train_rows=51_200,
            step_hint=167_999,
            budget_s=69_768.0,
            eval_every_s=420.0,
            targets=imagenet.published(0.77309, 0.6519),
        ),
    },
    sources=("builtin", "hub", "folder"),
    output_layer="head",
    initial_std=_initial_std,
    variants={
        "glu": Variant(
            {"activation": "glu"},
            {
                "full": imagenet.published(0.75738, 0.6359),
                "mini": imagenet.mini(0.55, "550 to 800 of 1,500 steps in 5 of 5 seeds"),
            },
        ),
        "post_ln": Variant(
            {"norm_place": "post"},
            {
                "full": imagenet.published(0.75312, 0.6286),
                "mini": imagenet.mini(
                    0.32, "600 to 1,100 of 1,500 steps in 5 of 5 seeds at 0.3 times its rate"
                ),
            },
        ),
        "map": Variant(
            {"pooling": "map"},
            {
                "full": imagenet.published(0.77113, 0.6523),
                "mini": imagenet.mini(
                    0.37, "700 to 1,100 of 1,500 steps in 5 of 5 seeds at 0.3 times its rate"
                ),
            },
        ),
    },
)

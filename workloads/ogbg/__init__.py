"""The ogbg workload: what molecules do, by a graph network.

The full scale is AlgoPerf's: ogbg-molpcba (Hu et al. 2020), 128 tasks with missing labels.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Scale, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts import targets
from workloads.parts.style import GraphStyle

STYLE = GraphStyle(activation="relu", norm="layer")


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    return math.sqrt(1 / fan_in(shape))  # LeCun et al. 1998


_mini = functools.partial(
    targets.mini,
    ceiling=0.8227,
    baselines={"atom and bond counts": 0.6233, "numbers of atoms and bonds": 0.389},
)

WORKLOAD = WorkloadDefinition(
    name="ogbg",
    package="workloads.ogbg",
    summary="labels of molecules (ogbg-molpcba; mini: generated ones); graph network",
    loss_type=spec.LossType.SIGMOID_CROSS_ENTROPY,
    target_metric="mean_average_precision",
    higher_is_better=True,
    metrics=("mean_average_precision",),
    scales={
        "mini": Scale(
            model={"width": 64, "hidden": 64, "mlp_layers": 1, "depth": 5, "style": STYLE},
            data={},
            default_source="builtin",
            batch_size=64,
            eval_batch_size=256,
            eval_train_rows=1_000,
            step_hint=1_500,
            budget_s=240.0,
            eval_every_s=10.0,
            dropout_rate=0.1,
            published_batch_size=512,
            targets={
                "builtin": _mini(
                    0.68, "700 to 1,000 of 1,500 steps in 10 of 10 seeds, in each framework"
                )
            },
        ),
        "full": Scale(
            model={"width": 256, "hidden": 256, "mlp_layers": 1, "depth": 5, "style": STYLE},
            data={"nodes_per_row": 26},
            default_source="folder",
            batch_size=512,
            eval_batch_size=4_096,
            eval_train_rows=43_793,
            step_hint=52_000,
            budget_s=12_011.0,
            eval_every_s=240.0,
            dropout_rate=0.1,
            targets={"folder": targets.published(0.28098, 0.268729)},
        ),
    },
    sources=("builtin", "folder"),
    output_layer="head",
    initial_std=_initial_std,
    variants={
        "gelu": targets.variant(
            {"activation": "gelu_tanh"},
            (0.27771, 0.262926),
            _mini(0.78, "700 to 900 of 1,500 steps in 5 of 5 seeds, in each framework"),
        ),
        "silu": targets.variant(
            {"activation": "silu"},
            (0.282178, 0.272144),
            _mini(0.75, "700 to 1,100 of 1,500 steps in 5 of 5 seeds, in each framework"),
        ),
        "model_size": targets.variant(
            {"width": 0.5, "depth": 0.6, "mlp_layers": 2.0},
            (0.269446, 0.253051),
            _mini(0.63, "800 to 1,200 of 1,500 steps in 4 of 5 seeds, in each framework"),
        ),
    },
)

"""The criteo1tb workload: whether an advertisement is clicked, by DLRM.

The full scale is AlgoPerf's: Criteo's logs of 24 days, and one table of embeddings for all columns.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Scale, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts import targets
from workloads.parts.style import ClickStyle

STYLE = ClickStyle(activation="relu", norm="none")
ROWS = {"mini": 2**14, "full": 2**22}
TABLE = "table/embedding"


def _largest(model: Mapping[str, Any]) -> float:
    """The largest first value of the table: it is drawn from 0 on, and not around it."""
    scale: float | None = model["style"].table_scale
    return 1 / math.sqrt(model["rows"]) if scale is None else scale


def _initial_mean(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    return _largest(model) / 2 if name == TABLE else 0.0


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    if name == TABLE:
        return _largest(model) / math.sqrt(12)
    return math.sqrt(2 / (fan_in(shape) + shape[-1]))  # Glorot and Bengio 2010


_mini = functools.partial(
    targets.mini, ceiling=0.4944, baselines={"base rate": 0.6642, "logistic regression": 0.6308}
)

WORKLOAD = WorkloadDefinition(
    name="criteo1tb",
    package="workloads.criteo1tb",
    summary="clicks on advertisements (Criteo's logs; mini: generated ones); DLRM",
    loss_type=spec.LossType.SIGMOID_CROSS_ENTROPY,
    target_metric="loss",
    higher_is_better=False,
    metrics=(),
    scales={
        "mini": Scale(
            model={
                "rows": ROWS["mini"],
                "width": 32,
                "bottom": (256, 128, 32),
                "top": (512, 512, 256, 128),
                "style": STYLE,
            },
            data={"rows": ROWS["mini"]},
            default_source="builtin",
            batch_size=512,
            eval_batch_size=4_000,
            eval_train_rows=4_000,
            step_hint=1_500,
            budget_s=180.0,
            eval_every_s=5.0,
            published_batch_size=262_144,
            targets={
                "builtin": _mini(
                    0.53, "650 to 950 of 1,500 steps in 9 of 10 seeds, in each framework"
                )
            },
        ),
        "full": Scale(
            model={
                "rows": ROWS["full"],
                "width": 128,
                "bottom": (512, 256, 128),
                "top": (1024, 1024, 512, 256),
                "style": STYLE,
            },
            data={"rows": ROWS["full"]},
            default_source="folder",
            batch_size=262_144,
            eval_batch_size=131_072,
            eval_train_rows=83_361_792,
            step_hint=10_666,
            budget_s=7_703.0,
            eval_every_s=120.0,
            targets={"folder": targets.published(0.123735, 0.126041)},
        ),
    },
    sources=("builtin", "folder"),
    output_layer="head",
    initial_std=_initial_std,
    initial_mean=_initial_mean,
    variants={
        "layernorm": targets.variant(
            {"norm": "layer"},
            (0.123757, 0.126152),
            _mini(0.53, "600 to 800 of 1,500 steps in 9 of 10 runs, five seeds in each framework"),
        ),
        "resnet": targets.variant(
            {"residual": True},
            (0.12415, 0.12648),
            _mini(0.613, "700 to 1,100 of 1,500 steps in 5 of 5 seeds, in each framework"),
        ),
        "embed_init": targets.variant(
            {"table_scale": 1.0},
            (0.129657, 0.131967),
            _mini(0.625, "500 to 800 of 1,500 steps in 5 of 5 seeds, in each framework"),
        ),
    },
)

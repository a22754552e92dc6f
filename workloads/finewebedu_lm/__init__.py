"""The finewebedu_lm workload: the next token of educational web pages, by a decoder of 2024's form.

The full scale is AlgoPerf's: FineWeb-Edu (Penedo et al. 2024) in GPT-2's tokens.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import EVAL_SHARE, Scale, Target, Variant, WorkloadDefinition
from workloads.finewebedu_lm.generator import VOCABULARY
from workloads.parts import gpt2, targets
from workloads.parts.style import DecoderStyle

STYLE = DecoderStyle(
    activation="glu",
    norm="rms",
    norm_epsilon=1e-6,
    has_biases=False,
    fuses_gate=True,
    is_rotary=True,
    normalises_queries=True,
    drops=False,
    adds_in_float32=True,
)
ATTENTION_SCALE = "attention/scale"


def _initial_norm_scale(name: str, model: Mapping[str, Any]) -> float:
    """1, but for what the products of queries and keys are multiplied by (Henry et al. 2020)."""
    positions: int = model["positions"]
    return math.log2(positions**2 - positions) if name.endswith(ATTENTION_SCALE) else 1.0


def _mini(reached: str) -> Target:
    baselines = {"unigrams": 105.7, "bigrams": 32.8, "trigrams": 30.3}
    return targets.mini(18.0, reached, ceiling=8.17, baselines=baselines)


def _variant(changes: Mapping[str, Any], reached: str) -> Variant:
    return Variant(changes, {"mini": {"builtin": _mini(reached)}})


MINI = Scale(
    model={"positions": 128, "width": 128, "layers": 2, "heads": 4, "style": STYLE},
    data={"max_length": 128, "vocab_size": VOCABULARY},
    default_source="builtin",
    batch_size=16,
    eval_batch_size=64,
    eval_train_rows=128,
    step_hint=400,
    budget_s=240.0,
    eval_every_s=15.0,
    eval_share=EVAL_SHARE,
    published_batch_size=64,
    targets={
        "builtin": _mini("200 to 300 of 400 steps in 9 of 10 seeds"),
    },
)

WORKLOAD = WorkloadDefinition(
    name="finewebedu_lm",
    package="workloads.finewebedu_lm",
    summary="the next token of web pages (FineWeb-Edu; mini: a made language); a rotary decoder",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="perplexity",
    higher_is_better=False,
    metrics=("perplexity",),
    scales={
        "mini": dataclasses.replace(
            MINI,
            real=dataclasses.replace(
                MINI,
                data={"max_length": 128, "vocab_size": 4096, "tokenizer": "trained"},
                targets={},
            ),
        ),
        "full": Scale(
            model={"positions": 1024, "width": 1024, "layers": 12, "heads": 8, "style": STYLE},
            data={"max_length": 1024, "vocab_size": 50257, "tokenizer": "gpt2"},
            default_source="folder",
            batch_size=64,
            eval_batch_size=256,
            eval_train_rows=10_000,
            step_hint=72_000,
            budget_s=31_967.0,
            eval_every_s=2_571.0,
            precision="bf16",
            targets={"folder": Target(validation=22.2995, provenance=targets.ALGOPERF)},
        ),
    },
    sources=("builtin", "folder"),
    output_layer="token",
    initial_std=gpt2.initial_std,
    initial_norm_scale=_initial_norm_scale,
    variants={
        "layernorm": _variant({"norm": "layer"}, "175 to 350 of 400 steps in 5 of 5 seeds"),
        "silu": _variant({"activation": "silu"}, "200 to 275 of 400 steps in 5 of 5 seeds"),
        "window": _variant(
            {"attention_window": 0.25, "global_tokens": 4},
            "200 to 275 of 400 steps in 5 of 5 seeds",
        ),
    },
)

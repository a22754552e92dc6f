"""The WMT workload of AlgoPerf: German sentences in English, by the transformer of Vaswani et al.

Full scale is trained on WMT 2017's pairs and judged on newstest 2013 and 2014; mini translates
between two invented languages (`workloads.wmt.generator`).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import EVAL_SHARE, Generation, Scale, Target, Variant, WorkloadDefinition
from algoperf.workload.parameters import fan_in
from workloads.parts import targets
from workloads.parts.style import TranslationStyle

STYLE = TranslationStyle(activation="relu", norm="layer")
# The search of Wu et al. 2016, as AlgoPerf has it.
SEARCH = Generation(
    max_new_tokens=40, eval_rows=200, beams=4, length_penalty=0.6, length_offset=5.0
)


def _initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    if name.endswith("embedding"):
        return 1.0
    return math.sqrt(2 / (fan_in(shape) + shape[-1]))  # the rule of Glorot and Bengio (2010)


def _published(validation: float, test: float) -> dict[str, Target]:
    return {"folder": targets.published(validation, test)}


def _mini(validation: float, reached: str) -> dict[str, Target]:
    # Three in ten references are freer than the translations, so these have no BLEU of 100.
    baselines = {"copy": 0.0, "word by word": 41.58}
    return {"builtin": targets.mini(validation, reached, ceiling=90.73, baselines=baselines)}


MINI = Scale(
    model={
        "positions": 64,
        "width": 128,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "heads": 4,
        "feed_forward": 128,
        "style": STYLE,
    },
    data={
        "row_length": 64,
        "vocab_size": 768,
        "tokenizer": "trained",
        "characters": 300_000,
    },
    default_source="builtin",
    batch_size=24,
    eval_batch_size=100,
    eval_train_rows=100,
    step_hint=900,
    budget_s=400.0,
    eval_every_s=15.0,
    eval_share=EVAL_SHARE,
    published_batch_size=128,
    buckets=((32, 32), (64, 64)),
    generation=SEARCH,
    targets=_mini(60.0, "350 to 425 of 900 steps in 10 of 10 seeds"),
)
WORKLOAD = WorkloadDefinition(
    name="wmt",
    package="workloads.wmt",
    summary="German to English (WMT; mini: invented languages); encoder-decoder",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="bleu",
    higher_is_better=True,
    metrics=("bleu",),
    scales={
        "mini": dataclasses.replace(
            MINI,
            # Real sentences have more words, and more of them are long.
            real=dataclasses.replace(
                MINI,
                data={"row_length": 64, "vocab_size": 2048, "tokenizer": "trained"},
                generation=dataclasses.replace(SEARCH, max_new_tokens=64),
            ),
        ),
        "full": Scale(
            model={
                "positions": 256,
                "width": 1024,
                "encoder_layers": 6,
                "decoder_layers": 6,
                "heads": 16,
                "feed_forward": 1024,
                "style": STYLE,
            },
            data={"row_length": 256, "vocab_size": 32_000, "tokenizer": "trained"},
            default_source="folder",
            batch_size=128,
            eval_batch_size=128,
            eval_train_rows=384,  # about as many pairs as the 3,072 of AlgoPerf
            step_hint=120_000,
            budget_s=43_336.0,
            eval_every_s=840.0,
            dropout_rate=0.1,
            buckets=((32, 32), (64, 64), (128, 128), (256, 256)),
            generation=dataclasses.replace(
                SEARCH, max_new_tokens=256, eval_rows=3003, training_beams=4
            ),
            targets=_published(30.8491, 30.7219),
        ),
    },
    sources=("builtin", "folder"),
    output_layer="token",
    initial_std=_initial_std,
    generates_text=True,
    variants={
        "post_ln": Variant(
            {"norm_place": "post"},
            {
                "full": _published(30.0779, 29.8982),
                "mini": _mini(60.0, "325 to 400 of 900 steps in 5 of 5 seeds"),
            },
        ),
        # The published name says what scores are multiplied by.
        "attention_temp": Variant(
            {"attention_temperature": 0.25},
            {
                "full": _published(29.3379, 29.4143),
                "mini": _mini(50.0, "450 to 625 of 900 steps in 5 of 5 seeds"),
            },
        ),
        "glu_tanh": Variant(
            {"activation": "glu_tanh"},
            {
                "full": _published(29.5779, 29.0515),
                "mini": _mini(60.0, "300 to 325 of 900 steps in 5 of 5 seeds"),
            },
        ),
    },
)

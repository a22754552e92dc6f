"""The librispeech_conformer workload: words of recorded speech, by a conformer.

The full scale is AlgoPerf's, on LibriSpeech (Panayotov et al. 2015).
"""

from algoperf import spec
from algoperf.workload import Scale, Variant, WorkloadDefinition
from workloads.parts.speech import INPUTS, published
from workloads.parts.speech_facts import (
    FULL_BUCKETS,
    FULL_DATA,
    FULL_MODEL,
    MINI_DATA,
    MINI_MODEL,
    initial_std,
    mini,
)
from workloads.parts.style import ConformerStyle

STYLE = ConformerStyle(activation="silu", norm="layer")

MINI = Scale(
    model={
        **MINI_MODEL,
        "width": 48,
        "layers": 2,
        "heads": 4,
        "feed_forward": 192,
        "kernel": 5,
        "style": STYLE,
    },
    data=MINI_DATA,
    default_source="builtin",
    batch_size=32,
    eval_batch_size=128,
    eval_train_rows=128,
    step_hint=900,
    budget_s=400.0,
    eval_every_s=10.0,
    dropout_rate=0.1,
    published_batch_size=256,
    targets=mini(0.25, "275 to 625 of 900 steps in 10 of 10 seeds"),
)
WORKLOAD = WorkloadDefinition(
    name="librispeech_conformer",
    package="workloads.librispeech_conformer",
    summary="words of speech (LibriSpeech; mini: synthetic); conformer, CTC",
    loss_type=spec.LossType.CTC_LOSS,
    target_metric="wer_as_published",
    higher_is_better=False,
    metrics=("wer_as_published", "wer"),
    inputs=INPUTS,
    scales={
        "mini": MINI,
        "full": Scale(
            model={
                **FULL_MODEL,
                "width": 512,
                "layers": 4,
                "heads": 8,
                "feed_forward": 2048,
                "kernel": 5,
                "style": STYLE,
            },
            data=FULL_DATA,
            buckets=FULL_BUCKETS,
            default_source="folder",
            batch_size=256,
            eval_batch_size=256,
            eval_train_rows=5376,
            step_hint=76_000,
            budget_s=58_015.0,
            eval_every_s=1440.0,
            dropout_rate=0.1,
            targets=published(0.085884, 0.052981),
        ),
    },
    sources=("builtin", "folder"),
    output_layer="head",
    initial_std=initial_std,
    initial_norm_scale=lambda name, model: 0.0,  # scales are stored less 1
    variants={
        "attention_temperature": Variant(
            {"attention_output_scale": 1.6},
            {
                "full": published(0.109977, 0.068065),
                "mini": mini(0.28, "250 to 725 of 900 steps in 5 of 5 seeds"),
            },
        ),
        "layernorm": Variant(
            {"block_norm": False},
            {
                "full": published(0.09731, 0.05996),
                "mini": mini(0.25, "275 to 600 of 900 steps in 5 of 5 seeds"),
            },
        ),
        "gelu": Variant(
            {"activation": "gelu_tanh"},
            {
                "full": published(0.094114, 0.056629),
                "mini": mini(0.25, "275 to 575 of 900 steps in 5 of 5 seeds"),
            },
        ),
    },
)

"""The librispeech_deepspeech workload: words of recorded speech, by recurrent layers.

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
from workloads.parts.style import RecurrentStyle

STYLE = RecurrentStyle(activation="relu", norm="batch")

MINI = Scale(
    model={
        **MINI_MODEL,
        "width": 64,
        "layers": 2,
        "feed_forward_layers": 1,
        "style": STYLE,
    },
    data=MINI_DATA,
    default_source="builtin",
    batch_size=32,
    eval_batch_size=128,
    eval_train_rows=128,
    step_hint=600,
    budget_s=300.0,
    eval_every_s=10.0,
    dropout_rate=0.1,
    published_batch_size=256,
    targets=mini(0.3, "200 to 250 of 600 steps in 10 of 10 seeds"),
)
WORKLOAD = WorkloadDefinition(
    name="librispeech_deepspeech",
    package="workloads.librispeech_deepspeech",
    summary="words of speech (LibriSpeech; mini: synthetic); bidirectional LSTM layers, CTC",
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
                "layers": 6,
                "feed_forward_layers": 3,
                "style": STYLE,
            },
            data=FULL_DATA,
            buckets=FULL_BUCKETS,
            default_source="folder",
            batch_size=256,
            eval_batch_size=256,
            eval_train_rows=5376,
            step_hint=38_400,
            budget_s=44_405.0,
            eval_every_s=1440.0,
            dropout_rate=0.1,
            targets=published(0.119936, 0.074143),
        ),
    },
    sources=("builtin", "folder"),
    output_layer="head",
    initial_std=initial_std,
    initial_norm_scale=lambda name, model: 0.0,  # scales are stored less 1
    variants={
        "tanh": Variant(
            {"activation": "tanh"},
            {
                "full": published(0.150883, 0.098613),
                "mini": mini(0.3, "300 to 375 of 600 steps in 5 of 5 seeds"),
            },
        ),
        "no_resnet": Variant(
            {"skip_connections": False},
            {
                "full": published(0.131564, 0.079297),
                "mini": mini(0.3, "200 to 300 of 600 steps in 5 of 5 seeds"),
            },
        ),
        "norm_and_spec_aug": Variant(
            {"norm": "layer", "last_norm": False, "frequency_masks": 2.0, "time_masks": 1.5},
            {
                "full": published(0.14342, 0.090976),
                "mini": mini(0.36, "275 to 375 of 600 steps in 5 of 5 seeds"),
            },
        ),
    },
)

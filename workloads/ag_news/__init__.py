"""The AG News workload (Zhang et al. 2015): the topic of a news item, one of four.

The model is GPT-2 with a classification head.
"""

from algoperf import spec
from algoperf.workload import EVAL_SHARE, Scale, Target, Variant, WorkloadDefinition
from workloads.parts import gpt2

TECHNIQUES = ("lora", "prompt", "adapters", "frozen_embeddings", "head")

WORKLOAD = WorkloadDefinition(
    name="ag_news",
    package="workloads.ag_news",
    summary="news topics (AG News), four classes; GPT-2 with a classification head",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    higher_is_better=True,
    metrics=("accuracy",),
    scales={
        "mini": Scale(
            model={**gpt2.MINI, "classes": 4},
            data={"max_length": 64, "vocab_size": 4096, "tokenizer": "trained"},
            default_source="builtin",
            batch_size=64,
            eval_batch_size=125,
            eval_train_rows=125,
            step_hint=400,
            budget_s=150.0,
            eval_every_s=10.0,
            eval_share=EVAL_SHARE,
            techniques=TECHNIQUES,
            targets={
                "builtin": Target(
                    validation=0.92,
                    ceiling=0.94,  # 6 % of the labels are noise.
                    baselines={"TF-IDF (1-2 grams) + logistic regression": 0.692},
                    provenance="docs/targets.md: nadamw reaches it in 200 to 325 steps (median "
                    "225) in 10 of 10 seeds, in each framework",
                )
            },
        ),
        "full": Scale(
            model={**gpt2.GPT2_SMALL, "classes": 4},
            data={"max_length": 128, "vocab_size": 50257, "tokenizer": "gpt2"},
            default_source="hub",
            batch_size=32,
            eval_batch_size=128,
            eval_train_rows=2048,
            step_hint=10_000,
            budget_s=3600.0,
            eval_every_s=120.0,
            dropout_rate=0.1,
            techniques=TECHNIQUES,
        ),
    },
    sources=("builtin", "hub", "folder"),
    output_layer="head",
    initial_std=gpt2.initial_std,
    pretrained=("gpt2",),
    variants={
        "post_ln": Variant({"norm_place": "post"}),
        "glu": Variant({"activation": "glu"}),
        "attention_temperature": Variant({"attention_temperature": 1.6}),
        **{technique: Variant({"trainable": technique}) for technique in TECHNIQUES},
    },
)

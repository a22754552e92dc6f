"""The language-modelling workload: GPT-2, with a tied output layer, predicts the next token."""

from algoperf import spec
from algoperf.workload import EVAL_SHARE, Scale, Target, Variant, WorkloadDefinition
from workloads.parts import gpt2

WORKLOAD = WorkloadDefinition(
    name="lm",
    package="workloads.lm",
    summary="language modelling, the next token of text; GPT-2",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="perplexity",
    higher_is_better=False,
    metrics=("perplexity",),
    scales={
        "mini": Scale(
            model=gpt2.MINI,
            data={"max_length": 64, "vocab_size": 4096, "tokenizer": "trained"},
            default_source="builtin",
            batch_size=16,
            eval_batch_size=64,
            eval_train_rows=64,
            step_hint=300,
            budget_s=240.0,
            eval_every_s=15.0,
            eval_share=EVAL_SHARE,
            targets={
                "builtin": Target(
                    validation=7.5,
                    baselines={"unigrams": 147.7, "bigrams": 12.67},
                    provenance="docs/targets.md: nadamw reaches it in 200 steps, three seeds in "
                    "each framework",
                )
            },
        ),
        "full": Scale(
            model=gpt2.GPT2_SMALL,
            data={"max_length": 1024, "vocab_size": 50257, "tokenizer": "gpt2"},
            default_source="hub",
            batch_size=32,
            eval_batch_size=8,
            eval_train_rows=64,
            step_hint=20_000,
            budget_s=14_400.0,
            eval_every_s=600.0,
            dropout_rate=0.1,
        ),
    },
    sources=("builtin", "hub", "folder"),
    output_layer="token",
    initial_std=gpt2.initial_std,
    pretrained=("gpt2",),
    variants={
        "post_ln": Variant({"norm_place": "post"}),
        "glu": Variant({"activation": "glu"}),
        "attention_temperature": Variant({"attention_temperature": 1.6}),
        "window": Variant({"attention_window": 0.25, "global_tokens": 4}),
    },
)

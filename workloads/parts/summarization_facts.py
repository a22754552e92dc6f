"""What the facts of the summarization workloads share: one encoder-decoder at two scales."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import Generation, Scale, Target, Variant, WorkloadDefinition
from workloads.parts.style import BART

INITIAL_STD, BART_BASE_WIDTH = 0.02, 768
MINI = {
    "width": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "heads": 4,
    "feed_forward": 512,
    "style": BART,
}
BART_BASE = {
    "positions": 1024,
    "width": BART_BASE_WIDTH,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "heads": 12,
    "feed_forward": 3072,
    "style": BART,
}
TECHNIQUES = ("lora", "adapters", "frozen_embeddings", "frozen_encoder")
EVAL_ROWS = 200
REAL_MINI = ((64, 32), (128, 64))  # real rows are many times as long as the generated ones


@dataclasses.dataclass(frozen=True)
class Size:
    """What differs between the workloads at one scale; the last of `buckets`, (source, target)
    lengths in tokens, is what rows are cut to.
    """

    buckets: tuple[tuple[int, int], ...]
    batch_size: int
    step_hint: int
    budget_s: float
    eval_every_s: float
    targets: Mapping[str, Target] = dataclasses.field(default_factory=dict)


def define(
    name: str,
    summary: str,
    target_metric: str,
    mini: Size,
    full: Size,
    variants: Mapping[str, Variant],
) -> WorkloadDefinition:
    """Return the facts of one workload."""
    return WorkloadDefinition(
        name=name,
        package=f"workloads.{name}",
        summary=summary,
        loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
        target_metric=target_metric,
        higher_is_better=True,
        metrics=("rouge1", "rouge2", "rougeL", "rougeLsum"),
        scales={
            "mini": dataclasses.replace(
                _mini(mini), real=_mini(dataclasses.replace(mini, buckets=REAL_MINI))
            ),
            "full": _scale(
                full,
                model=BART_BASE,
                data={"vocab_size": 50265, "tokenizer": "bart"},
                default_source="hub",
                eval_batch_size=32,
                dropout_rate=0.1,
            ),
        },
        sources=("builtin", "hub", "folder"),
        output_layer="token",
        initial_std=initial_std,
        generates_text=True,
        pretrained=("bart", "roberta"),
        variants={
            **variants,
            **{technique: Variant({"trainable": technique}) for technique in TECHNIQUES},
        },
    )


def _mini(size: Size) -> Scale:
    return _scale(
        size,
        model={**MINI, "positions": size.buckets[-1][0]},
        data={"vocab_size": 2048, "tokenizer": "trained"},
        default_source="builtin",
        eval_batch_size=100,
    )


def initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    """BART's 0.02; for kernels of another width what keeps a layer's output as large as at BART's.

    With 0.02 a model of width 128 ignores its source for more than 500 steps.
    """
    if not name.endswith("kernel"):
        return INITIAL_STD
    return INITIAL_STD * float((BART_BASE_WIDTH / model["width"]) ** 0.5)


def _scale(size: Size, data: Mapping[str, Any], **settings: Any) -> Scale:
    max_source, max_target = size.buckets[-1]
    return Scale(
        data={**data, "max_source": max_source, "max_target": max_target},
        batch_size=size.batch_size,
        eval_train_rows=EVAL_ROWS,
        step_hint=size.step_hint,
        budget_s=size.budget_s,
        eval_every_s=size.eval_every_s,
        buckets=size.buckets,
        generation=Generation(max_new_tokens=max_target, eval_rows=EVAL_ROWS),
        targets=size.targets,
        techniques=TECHNIQUES,
        **settings,
    )

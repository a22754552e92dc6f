"""Facts that the summarization workloads share: one encoder-decoder at two scales."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from algoperf import spec
from algoperf.workload import EVAL_SHARE, Generation, Scale, Target, Variant, WorkloadDefinition
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
# Rows of the real data sets are many times as long as generated rows.
REAL_MINI = ((64, 32), (128, 64))


@dataclasses.dataclass(frozen=True)
class Size:
    """The facts in which the summarization workloads differ at one scale.

    Attributes:
        buckets: Pairs of lengths (source, target) in tokens that batches are cut to, ascending.
            Rows longer than the last pair are cut to it.
        batch_size: The number of rows of a training step.
        step_hint: The number of steps that a well-tuned baseline needs.
        budget_s: The limit of submission time in seconds.
        eval_every_s: The seconds between evaluations.
        targets: The targets by data source.
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
    """Return the definition of one summarization workload.

    Args:
        name: The name of the workload, which is also the name of its package.
        summary: A description in one line.
        target_metric: The ROUGE metric that the target is of.
        mini: The facts of the mini scale.
        full: The facts of the full scale.
        variants: The workload's own variants; the fine-tuning techniques are added to them.
    """
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
        eval_share=EVAL_SHARE,
        model={**MINI, "positions": size.buckets[-1][0]},
        data={"vocab_size": 2048, "tokenizer": "trained"},
        default_source="builtin",
        eval_batch_size=100,
    )


def initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    """Return the standard deviation of a parameter's initial values.

    It is BART's 0.02. For kernels in a model of another width it is scaled so that the outputs of a
    layer are as large as at BART's width. With 0.02 a model of width 128 ignores its source for
    more than 500 steps.

    Args:
        name: The name of the parameter.
        shape: Its shape, which does not matter here.
        model: The settings of the model, of which 'width' matters.
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

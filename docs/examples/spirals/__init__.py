"""Three spirals in the plane, told apart by a small multilayer perceptron; seconds a run."""

from algoperf import spec
from algoperf.workload import Scale, Target, WorkloadDefinition
from algoperf.workload.parameters import fan_in

WORKLOAD = WorkloadDefinition(
    name="spirals",
    package=__name__,
    summary="three noisy spirals of generated points; multilayer perceptron",
    loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
    target_metric="accuracy",
    higher_is_better=True,
    metrics=("accuracy",),
    scales={
        "mini": Scale(
            model={"width": 64, "classes": 3},
            data={"rows": {"train": 3000, "validation": 600, "test": 600}, "noise": 0.1},
            default_source="builtin",
            batch_size=100,
            eval_batch_size=600,
            eval_train_rows=600,
            step_hint=300,
            budget_s=15.0,
            eval_every_s=0.1,
            targets={"builtin": Target(validation=0.97, provenance="adamw: 190 steps")},
        )
    },
    sources=("builtin",),
    output_layer="head",
    initial_std=lambda name, shape, model: (2 / fan_in(shape)) ** 0.5,
)

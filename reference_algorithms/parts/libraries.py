"""The libraries of the extra `algorithms`, which a plain install does not have."""

import importlib
from types import ModuleType
from typing import Any

from algoperf import spec
from reference_algorithms import schedules


def optional(name: str) -> ModuleType:
    """Import a library; raise UserError that says what to install where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise spec.UserError(
            f"{name} is not installed; this algorithm needs it: pip install 'algoperf[algorithms]'"
        ) from None


def pytorch_optimizer(
    name: str,
    params: spec.Parameters,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
    **options: Any,
) -> Any:
    """Return an optimizer of pytorch_optimizer with decoupled weight decay, and its scheduler.

    `options` are the optimizer's other arguments.
    """
    optimizer = getattr(optional("pytorch_optimizer"), name)(
        params.tensors(),
        lr=1.0,
        weight_decay=hyperparameters.weight_decay,
        weight_decouple=True,
        **options,
    )
    schedule = schedules.warmup_cosine(hyperparameters, info)
    return optimizer, schedules.for_torch(optimizer, schedule)

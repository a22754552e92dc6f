"""What the two backends do alike, written once without either framework."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from algoperf import losses, spec
from algoperf.workload import Data, Scale, WorkloadDefinition, parameters, trainable


@dataclasses.dataclass(frozen=True)
class InitialRule:
    """What parameters start at.

    Attributes:
        std: From a weight's name and shape to the standard deviation of its normal values.
        mean: Likewise to their mean.
        norm_scale: From the name of a norm's scale to its value.
    """

    std: Callable[[str, tuple[int, ...]], float]
    mean: Callable[[str, tuple[int, ...]], float]
    norm_scale: Callable[[str], float]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The hyperparameters that the library itself consumes in the optimizer form's update step.

    `grad_clip` bounds the global norm of the gradients; None leaves them. `dropout_rate` None means
    the workload's own.
    """

    grad_clip: float | None = None
    label_smoothing: float = 0.0
    dropout_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerFunctions:
    """An optimizer-form submission's functions, their arguments already matched to the names they
    take.

    `make(parameters, hyperparameters)` returns the framework's optimizer, `eval_params(params,
    optimizer_state)` what to evaluate, `learning_rate(step)` a float or None. Scalars are recorded
    every `record_every` steps.
    """

    make: Callable[[spec.Parameters, Any], Any]
    eval_params: Callable[[Any, Any], Any]
    learning_rate: Callable[[int], float | None]
    record_every: int

    def wants(self, global_step: int) -> bool:
        """Whether this step's scalars are recorded."""
        return global_step % self.record_every == 0

    def record(self, workload: spec.Workload, scalars: Mapping[str, Any], global_step: int) -> None:
        """Hand scalars, still on the device, to the run's log."""
        if self.wants(global_step) and workload.metrics_logger is not None:
            rate = (
                {}
                if "learning_rate" in scalars
                else {"learning_rate": self.learning_rate(global_step)}
            )
            known = {name: value for name, value in rate.items() if value is not None}
            workload.metrics_logger.append_scalar_metrics(
                {**scalars, **known}, global_step, own=("loss", "gradient_norm")
            )


def model_settings(
    definition: WorkloadDefinition, scale: Scale, data: Data
) -> tuple[dict[str, Any], InitialRule]:
    """Return what the model is built with, and the workload's rule for its initial values."""
    settings = {**scale.model, **data.model}

    def std(name: str, shape: tuple[int, ...]) -> float:
        return scale.initial_scale * definition.initial_std(name, shape, settings)

    def mean(name: str, shape: tuple[int, ...]) -> float:
        return scale.initial_scale * definition.initial_mean(name, shape, settings)

    def norm_scale(name: str) -> float:
        return definition.initial_norm_scale(name, settings)

    return settings, InitialRule(std, mean, norm_scale)


def sample_inputs(definition: WorkloadDefinition, data: Data) -> Any:
    """What the model is called with, for the first training row."""
    row = data.splits["train"].take(np.arange(1))
    return spec.model_inputs(definition.model_inputs, row)


def initial_values(
    workload: spec.Workload,
    rule: InitialRule,
    shapes: Mapping[str, tuple[int, ...]],
    seed: tuple[int, int],
    added: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """The first values of parameters by name, in JAX's layout; the same in both frameworks.

    Drawn from the seed, unless the run starts from pretrained weights that have the name. `added`
    are the shapes of what a technique adds to the model.
    """
    given = workload.pretrained or {}

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return parameters.initial_value(
            name,
            shape,
            lambda: rule.std(name, shape),
            seed,
            lambda: rule.norm_scale(name),
            lambda: rule.mean(name, shape),
        )

    values = {
        name: given[name] if name in given else draw(name, shape) for name, shape in shapes.items()
    }
    return values | {
        name: trainable.initial_value(name, shape, values, seed) for name, shape in added.items()
    }


class FrozenSum:
    """Remembers the checksum of the frozen parameters that a workload started with first."""

    def __init__(self) -> None:
        self._first: int | None = None

    def start(self, values: Mapping[str, np.ndarray]) -> None:
        """Tell what they start as; what a submission starts later does not count."""
        if self._first is None and values:
            self._first = _checksum_by_name(values)

    def differs(self, values: Mapping[str, np.ndarray]) -> bool:
        """Whether they are not what they started as."""
        return self._first is not None and _checksum_by_name(values) != self._first


def _checksum_by_name(values: Mapping[str, np.ndarray]) -> int:
    return checksum(values[name] for name in sorted(values))


@dataclasses.dataclass(frozen=True)
class Whole:
    """The batch that a micro-batch is one of `parts` equal parts of; `weight_sum` is the sum of all
    its weights, None where each part counts alike.
    """

    parts: int
    weight_sum: Any


ALONE = Whole(1, None)


def _as_it_is(value: Any) -> Any:
    return value


def whole_of(
    workload: spec.Workload,
    batch: Mapping[str, Any],
    parts: int,
    total: Callable[[Any], Any] = _as_it_is,
) -> Whole:
    """Return what a batch is that is cut into so many equal parts.

    Args:
        workload: The workload.
        batch: The batch, or the share of it that this process has.
        parts: How many parts there are, those of all processes together.
        total: Returns the sum of a number over the processes.
    """
    return ALONE if parts == 1 else Whole(parts, weight_sum(workload, batch, total))


def weight_sum(
    workload: spec.Workload, batch: Mapping[str, Any], total: Callable[[Any], Any] = _as_it_is
) -> Any:
    """What the mean loss of a batch is divided by: the sum of its weights, times what each row's
    loss is the sum of (`losses.example_counts`); None where it has neither. `total` adds up the
    sums of all processes.
    """
    weights = batch.get("weights")
    counts = losses.example_counts(workload.loss_type, batch["targets"])
    if counts is None:
        return None if weights is None else total(weights.sum())
    return total((counts if weights is None else counts * weights).sum()).clip(1)


def training_loss(
    workload: spec.Workload,
    params: Any,
    batch: Any,
    model_state: Any,
    rng: Any,
    settings: StepSettings,
    whole: Whole = ALONE,
    update_batch_norm: bool = True,
) -> tuple[Any, Any]:
    """Return (mean loss over the examples that count, new model state) of a forward pass in
    training mode.

    Of a micro-batch, the loss is its share: those of all parts add up to the whole batch's mean.
    """
    logits, model_state = workload.model_fn(
        params,
        batch,
        model_state,
        spec.ForwardPassMode.TRAIN,
        rng,
        update_batch_norm,
        settings.dropout_rate,
    )
    weights = batch.get("weights")
    if whole.parts == 1 or whole.weight_sum is None:
        loss = workload.mean_loss(batch["targets"], logits, weights, settings.label_smoothing)
        return (loss if whole.parts == 1 else loss / whole.parts), model_state
    # A part may be padding alone, so nothing is divided by the part's own weights.
    parts = workload.loss_fn(batch["targets"], logits, weights, settings.label_smoothing)
    return share_of(parts, weights, whole), model_state


def share_of(parts: Mapping[str, Any], weights: Any, whole: Whole) -> Any:
    """Return the share of a part of a batch in the whole batch's mean loss.

    Args:
        parts: What the workload's `loss_fn` returns for the part.
        weights: The part's weights, or None.
        whole: The batch; it has a sum of weights.
    """
    size = math.prod(parts["per_example"].shape)
    spread = 1 if weights is None else size // math.prod(weights.shape)
    return parts["summed"] / (whole.weight_sum * spread)


def prediction(
    workload: spec.Workload, params: Any, model_state: Any, batch: Any
) -> tuple[Any, Any]:
    """Return (per-example loss, predictions) in evaluation mode: classes for a softmax loss, for
    CTC the class of every frame, the blank where there is none, else logits.
    """
    logits, _ = workload.model_fn(
        params, batch, model_state, spec.ForwardPassMode.EVAL, None, False
    )
    loss = workload.per_example_loss(batch["targets"], logits, 0.0)
    match workload.loss_type:
        case spec.LossType.SOFTMAX_CROSS_ENTROPY:
            return loss, logits.argmax(-1)
        case spec.LossType.CTC_LOSS:
            logits_BTV, paddings_BT = logits
            return loss, logits_BTV.argmax(-1) * (paddings_BT == 0)
    return loss, logits


def checksum(arrays: Iterable[np.ndarray]) -> int:
    """The CRC-32 of the arrays' bytes, one after another."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, value)
    return value


def is_finite(arrays: Iterable[np.ndarray]) -> bool:
    """Whether no value of the arrays is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def described(value: Any) -> str:
    """The type of what a submission returned, and of its members where it is a tuple or a list."""
    name = type(value).__name__
    if type(value) not in (tuple, list):
        return name
    return f"a {name} of {', '.join(type(each).__name__ for each in value) or 'nothing'}"


def some(names: Sequence[str], total: int, shown: int = 4) -> str:
    """The first of some parameters' names, and how many of all they are."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{rest} ({len(names)} of {total} parameters)"


def clip_factor(norm: Any, limit: float, minimum: Callable[[Any, Any], Any]) -> Any:
    """The factor that brings a global norm down to `limit`; 1 where it is below."""
    return minimum(limit / (norm + 1e-6), 1.0)

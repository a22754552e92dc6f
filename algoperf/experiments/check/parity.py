"""The parity gate: a workload trains the same function the same way in JAX and in PyTorch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import reference_algorithms
from algoperf import backends, spec
from algoperf.data.batches import TrainingQueue
from algoperf.experiments.check import gates
from algoperf.experiments.check.gates import GateError, NotApplicableError, Values, expect
from algoperf.submission import loading
from algoperf.trial import adapt
from algoperf.workload import Data, Scale, WorkloadDefinition
from algoperf.workload import parameters as layout

STEPS = 20
BATCH_SIZE = 8
SEED = (7, 2**32 - 1)
LOGITS_RTOL = 1e-4  # of the largest logit
GRADIENTS_RTOL = 1e-4
# Drawn parameters that gradients are asked with, before they count as different. Where a model is
# piecewise linear, one value that rounding moves across a kink changes gradients by up to 7e-3 of
# their norm (of a U-Net in one framework, its parameters changed by 1e-7); with other parameters no
# value is that near one.
ATTEMPTS = 4
LOSSES_RTOL = 1e-3  # over the steps
LONG_STEP_HINT = 100_000
# Of adamw's usual rate, where rounding grows at that.
LOSS_RATE_FACTORS = {spec.LossType.MEAN_ABSOLUTE_ERROR: 0.03, spec.LossType.CTC_LOSS: 0.1}
LEAST_CHANGE = 2e-3  # of the loss, twice what the frameworks may differ by
Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Side:
    """One framework's half of a pair."""

    backend: Any
    workload: Any


@dataclasses.dataclass(frozen=True)
class Pair:
    """A workload in both frameworks, batches of its rows, and values for its parameters, those that
    are frozen as well.
    """

    jax: Side
    torch: Side
    batches: Sequence[Batch]
    values: Values
    is_variant: bool

    @property
    def rate_factor(self) -> float:
        """What adamw's learning rate is multiplied by in `training`.

        Less than a tenth of a model takes a higher rate, and so does a rate that rises over many
        thousands of steps, of which these are the first. Where the gradient of an absolute error
        jumps, rounding grows: at the usual rate a change of the first values by 1e-7 moves a
        U-Net's losses by up to 4e-3 within 20 steps of one framework, at this one by 5e-5. So it
        does under CTC where a unit is barely on: those of recurrent layers by 6e-3, at a tenth of
        the rate by 2e-7.
        """
        if sum(each.size for each in self.trained.values()) < 0.1 * sum(
            each.size for each in self.values.values()
        ):
            return 10.0
        if self.jax.workload.loss_type in LOSS_RATE_FACTORS:
            return LOSS_RATE_FACTORS[self.jax.workload.loss_type]
        return 10.0 if self.jax.workload.step_hint > LONG_STEP_HINT else 1.0

    @property
    def trained(self) -> Values:
        """The values of what trains."""
        names = self.jax.workload.parameters
        return {name: value for name, value in self.values.items() if name in names}


def bind(
    definition: WorkloadDefinition,
    scale: Scale,
    source_kind: str,
    data: Data,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
) -> Pair:
    """Build a workload in both frameworks, for the gates to ask."""

    def side(framework: str) -> Side:
        backend = backends.load(framework)
        return Side(backend, backend.workload(definition, scale, source_kind, data))

    ours, theirs = side("jax"), side("pytorch")
    queue = TrainingQueue(data.splits["train"], batch_size, seed=0, augmentation=data.augmentation)
    values = gates.values_of(ours.workload)
    batches = [next(queue) for _ in range(steps)]
    return Pair(ours, theirs, batches, values, is_variant=definition.base is not None)


def parameters(pair: Pair) -> None:
    """Parameters agree in number, name, type and shape."""
    ours, theirs = pair.jax.workload.parameters, pair.torch.workload.parameters
    alone = [
        f"only the model in {framework} has {', '.join(sorted(names))}"
        for framework, names in (
            ("jax", set(ours) - set(theirs)),
            ("pytorch", set(theirs) - set(ours)),
        )
        if names
    ]
    expect(not alone, "; ".join(alone))
    for name, parameter in ours.items():
        other = theirs[name]
        shape = layout.jax_shape(name, other.shape)
        expect(
            parameter.shape == shape,
            f"{name} has the shape {parameter.shape} in jax and, in that layout, {shape} in "
            "pytorch",
        )
        empty = np.empty(parameter.shape, np.uint8)
        expect(layout.to_torch(name, empty).shape == other.shape, f"{name}: its layout")
        expect(
            (parameter.type, parameter.is_output) == (other.type, other.is_output),
            f"{name} is {parameter.type.name} in jax and {other.type.name} in pytorch",
        )
        expect(parameter.type in spec.ParameterType, name)
    count = sum(np.prod(parameter.shape) for parameter in ours.values())
    tensors = sum(value.numel() for value in theirs.tensors())
    expect(count == tensors, f"{count} parameters in jax, {tensors} in pytorch")


def types(pair: Pair) -> None:
    """The types that a submission sees agree."""
    ours, theirs = (
        gates.framework_module(side.backend.name).types_by_name(side.workload, pair.values)
        for side in (pair.jax, pair.torch)
    )
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name), theirs.get(name)
        expect(one == other, f"the type of {name} is {one} in jax and {other} in pytorch")


def converter(pair: Pair) -> None:
    """Parameters go over to the other framework and back bit for bit, as a copy."""
    in_jax, _ = pair.jax.workload.state_from_neutral(pair.values)
    in_torch = pair.torch.workload.from_neutral(pair.jax.workload.to_neutral(in_jax))
    back = pair.jax.workload.to_neutral(
        pair.jax.workload.from_neutral(pair.torch.workload.to_neutral(in_torch))
    )
    expect(set(back) == set(pair.trained), f"of {set(pair.trained)}, {set(back)} came back")
    for name, value in pair.trained.items():
        expect(back[name].dtype == np.float32, f"{name} came back as {back[name].dtype}")
        gates.expect_equal(back[name], value, f"{name}, over to pytorch and back")


def initial_values(pair: Pair) -> None:
    """Both frameworks start from the same values, by the seed; what is frozen as well."""
    ours, theirs = (
        side.workload.state_to_neutral(
            *side.workload.init_model_fn(side.backend.random_state(SEED))
        )
        for side in (pair.jax, pair.torch)
    )
    missing = sorted(set(ours) - set(theirs))
    expect(not missing, f"the model in pytorch has no {', '.join(missing)}")
    expect(set(pair.values) <= set(ours), "the model in jax starts without a parameter")
    for name, value in ours.items():
        gates.expect_equal(theirs[name], value, f"{name} at the start")


def logits(pair: Pair) -> None:
    """Logits agree to 1e-4 of the largest, in evaluation mode.

    With batch norm also in training mode, where the batch's own statistics normalise; a model
    without it computes the same there, but for dropout.
    """
    same_logits(pair, spec.ForwardPassMode.EVAL)
    if pair.jax.workload.statistic_shapes:
        same_logits(pair, spec.ForwardPassMode.TRAIN)


def same_logits(pair: Pair, mode: spec.ForwardPassMode) -> None:
    """Logits agree to 1e-4 of the largest in one mode, without dropout."""
    ours, theirs = (
        _forward(side, pair.values, pair.batches[0], mode, False)[0]
        for side in (pair.jax, pair.torch)
    )
    expect(
        ours.shape == theirs.shape,
        f"logits have the shape {ours.shape} in jax and {theirs.shape} in pytorch",
    )
    largest, difference = np.abs(ours).max(), np.abs(ours - theirs).max()
    expect(
        difference <= LOGITS_RTOL * largest,
        f"logits differ by {difference / largest:.1e} of the largest, allowed {LOGITS_RTOL:g}",
    )
    spread = np.ptp(ours, axis=0).max() / largest
    expect(spread > 1e-2, f"logits of all rows are alike to {spread:.1e}: nothing is compared")


def _forward(
    side: Side, values: Values, batch: Batch, mode: spec.ForwardPassMode, update: bool
) -> tuple[np.ndarray, Values]:
    """Return the logits of a pass without dropout, and all values by name after it."""
    framework = gates.framework_module(side.backend.name)
    workload = side.workload

    def forward(params: Any, state: Any, batch: Any) -> Any:
        rng = side.backend.random_state((0, 0))
        return workload.model_fn(params, batch, state, mode, rng, update, 0.0)

    params, state = workload.state_from_neutral(values)
    outputs, after = framework.compiled(forward)(params, state, side.backend.place(batch))
    return gates.logits_of(side.backend.fetch(outputs)), workload.state_to_neutral(params, after)


def statistics(pair: Pair) -> None:
    """Batch norm's running statistics agree to 1e-5 after a step, and change by it."""
    names = pair.jax.workload.statistic_shapes
    if not names:
        raise NotApplicableError("the model has no batch norm")
    expect(
        pair.torch.workload.statistic_shapes == names,
        f"statistics {sorted(names)} in jax, {sorted(pair.torch.workload.statistic_shapes)} in "
        "pytorch",
    )
    train = spec.ForwardPassMode.TRAIN
    ours, theirs = (
        _forward(side, pair.values, pair.batches[0], train, True)[1]
        for side in (pair.jax, pair.torch)
    )
    for name in names:
        gates.expect_close(theirs[name], ours[name], f"{name} after a step", rtol=1e-5, atol=1e-6)
        expect((ours[name] != pair.values[name]).any(), f"{name} is not changed by a step")


def gradients(pair: Pair) -> None:
    """Loss and gradients agree, for weighted rows, with and without label smoothing."""
    values = pair.values
    for attempt in range(1, ATTEMPTS):
        try:
            return _same_gradients(pair, values)
        except GateError:
            values = gates.values_of(pair.jax.workload, attempt)
    return _same_gradients(pair, values)


def _same_gradients(pair: Pair, values: Values) -> None:
    batch = weighted(pair.batches[0])
    label_smoothings = (0.0,) if pair.is_variant else (0.0, 0.1)  # the loss is the base's
    in_jax, in_torch = (
        gates.framework_module(side.backend.name).losses_and_gradients(
            side.workload, side.backend, values, batch, label_smoothings
        )
        for side in (pair.jax, pair.torch)
    )
    for (loss, ours), (other_loss, theirs) in zip(in_jax, in_torch, strict=True):
        expect(
            abs(other_loss - loss) <= max(GRADIENTS_RTOL * abs(loss), 1e-12),
            f"the loss is {loss:.7g} in jax and {other_loss:.7g} in pytorch",
        )
        expect(set(ours) == set(theirs), "gradients are of other parameters")
        size = sum(np.square(value).sum() for value in ours.values()) ** 0.5
        for name, value in ours.items():
            difference, norm = np.linalg.norm(value - theirs[name]), np.linalg.norm(value)
            # The second term is for what is 0 but for rounding, as the bias of attention's keys.
            expect(
                difference <= GRADIENTS_RTOL * norm + 1e-6 * size,
                f"the gradient of {name} differs by {difference:.1e}, and has the norm {norm:.1e}",
            )


def weighted(batch: Batch) -> dict[str, np.ndarray]:
    """Return the batch with weights that differ, one of them 0."""
    weights = np.linspace(0, 1, len(batch["targets"]), dtype=np.float32)
    if "weights" in batch:
        # Of a packed batch the last rows may be padding, which has no weight.
        given, weights = batch["weights"], weights[:, None]
        weights = given * (weights if (given * weights).any() else weights[::-1])
    return {**batch, "weights": weights}


def training(pair: Pair) -> None:
    """Losses stay together to 1e-3 over the steps of AdamW, and change by more than 0.2 %."""
    ours, theirs = (_train(side, pair.batches, pair.rate_factor) for side in (pair.jax, pair.torch))
    count = len(pair.batches) + 1
    expect(len(ours) == len(theirs) == count, f"{len(ours)} and {len(theirs)} losses, not {count}")
    for step, (loss, other) in enumerate(zip(ours, theirs, strict=True)):
        expect(
            abs(other - loss) <= LOSSES_RTOL * abs(loss),
            f"after {step} steps of adamw the loss is {loss:.6g} in jax and {other:.6g} in pytorch",
        )
    change = abs(ours[-1] - ours[0]) / ours[0]
    # A head that starts at 0, or blocks that add nothing at first, learn slowly at first.
    expect(
        change > LEAST_CHANGE, f"over the steps the loss changes by {change:.2%}: it hardly trains"
    )


class _Losses(list[float]):
    """A metrics logger that keeps the losses."""

    def append_scalar_metrics(self, metrics: Any, global_step: int, **_: Any) -> None:
        self.append(float(metrics["loss"]))


def _train(side: Side, batches: Sequence[Batch], rate_factor: float) -> list[float]:
    """The loss before each step of the reference algorithm, and after the last (on the first
    batch).
    """
    adamw: Path = reference_algorithms.path("adamw")
    loaded = loading.load(loading.inspect(adamw), side.backend.name)
    point = {**loaded.module.DEFAULTS, "dropout_rate": 0.0}
    point["learning_rate"] *= rate_factor
    hyperparameters = spec.make_hyperparameters(point)
    functions = adapt.submission_functions(loaded, side.backend, side.workload, hyperparameters)
    params, model_state = side.workload.init_model_fn(side.backend.random_state((1, 2)))
    rng = side.backend.random_state((3, 4))
    common = {"workload": side.workload, "hyperparameters": hyperparameters, "rng": rng}
    state = functions.init_optimizer_state(model_params=params, model_state=model_state, **common)
    losses = _Losses()
    side.workload.metrics_logger = losses
    # Scalars are logged at multiples of ten only; no optimizer reads the step, so each is called
    # step 0.
    for batch in [*batches, batches[0]]:
        state, params, model_state = functions.update_params(
            current_param_container=params,
            model_state=model_state,
            batch=side.backend.place(batch),
            optimizer_state=state,
            global_step=0,
            **common,
        )
    side.workload.metrics_logger = None
    return losses


PARITY: Mapping[str, Callable[[Pair], None]] = {
    "same parameters": parameters,
    "same types": types,
    "converter": converter,
    "same start": initial_values,
    "same logits": logits,
    "same statistics": statistics,
    "same gradients": gradients,
    "same training": training,
}
OF_LOGITS = ("same logits", "same statistics", "same gradients", "same training")

"""What a submission may rely on, asked of a workload: its facts, its rows, and its model in one
framework. `parity` compares the two frameworks.

A gate raises GateError where a workload does not pass, NotApplicableError where it asks nothing.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from algoperf import backends, losses, spec, workload
from algoperf.data import batches, validation_seed
from algoperf.errors import UserError
from algoperf.experiments.check import gates
from algoperf.experiments.check.gates import GateError, NotApplicableError, Values, expect

TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL
ROWS = 4
LOOKED_AT = 4096  # rows of a split that is not in memory
RATE = 0.5


@dataclasses.dataclass(frozen=True)
class Subject:
    """A workload at one scale, with all its rows; `load_again` loads them anew, and `load_secret`
    those of a validation seed, where they come from a source that has such ones.
    """

    definition: workload.WorkloadDefinition
    scale: workload.Scale
    data: workload.Data
    load_again: Callable[[], workload.Data]
    source: str
    load_secret: Callable[[], workload.Data]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A workload bound in one framework, a few of its rows, and values for its parameters."""

    definition: workload.WorkloadDefinition
    scale: workload.Scale
    source_kind: str
    data: workload.Data
    backend: Any
    bound: Any
    rows: dict[str, np.ndarray]
    values: Values
    compiled: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def forward(self, mode: spec.ForwardPassMode, number: int = 0, **rate: float) -> np.ndarray:
        """Return logits of `rows` under `values`; `number` seeds the dropout."""
        return gates.logits_of(self.outputs(mode, number, **rate))

    def outputs(self, mode: spec.ForwardPassMode, number: int = 0, **rate: float) -> Any:
        """Return what the loss takes of the model for `rows` under `values`: logits, or a pair of
        them and their paddings.
        """
        self.backend.seed((5, number))
        framework = gates.framework_module(self.backend.name)
        params, state = self.bound.state_from_neutral(self.values)
        key = (mode, self.bound.dropout_rate, *rate.values())

        def call(params: Any, state: Any, batch: Any, rng: Any) -> Any:
            logits, after = self.bound.model_fn(params, batch, state, mode, rng, False, **rate)
            expect((after is None) == (state is None), "the model's state comes or goes")
            return logits

        call = self.compiled.setdefault(key, framework.compiled(call))
        batch, rng = self.backend.place(self.rows), self.backend.random_state((5, number))
        return self.backend.fetch(call(params, state, batch, rng))

    def placed(self, outputs: Any) -> Any:
        """Return what the loss takes of the model, on the device."""
        several = isinstance(outputs, tuple)
        parts = self.backend.place(dict(enumerate(outputs if several else (outputs,))))
        return tuple(parts.values()) if several else parts[0]

    def fresh(self, number: int = 0) -> Any:
        """Return parameters of a seed, as a submission gets them."""
        params, _ = self.bound.init_model_fn(self.backend.random_state((5, number)))
        return params


def bind(
    definition: workload.WorkloadDefinition,
    scale: workload.Scale,
    source_kind: str,
    data: workload.Data,
    framework: str,
) -> Unit:
    """Build a workload in a framework, for gates to ask."""
    backend = backends.load(framework)
    bound: Any = backend.workload(definition, scale, source_kind, data)
    rows = data.splits["train"].take(np.arange(min(ROWS, len(data.splits["train"]))))
    values = gates.values_of(bound)
    return Unit(definition, scale, source_kind, data, backend, bound, rows, values)


def scales(subject: Subject) -> None:
    """There is a scale 'mini'; budgets, hints and lengths of every scale make sense."""
    definition = subject.definition
    expect("mini" in definition.scales, "no scale 'mini', which is the default everywhere")
    for name, scale in definition.scales.items():
        expect(scale.step_hint > 0, f"{name}: step_hint is {scale.step_hint}")
        times = f"{name}: budget_s {scale.budget_s}, eval_every_s {scale.eval_every_s}"
        expect(scale.budget_s > scale.eval_every_s > 0, times)
        expect(
            scale.default_source in definition.sources,
            f"{name}: default_source {scale.default_source!r} is none of {definition.sources}",
        )
        if scale.generation is not None:  # the model has no positions beyond
            positions = scale.model["positions"]
            longest = max(
                scale.generation.max_new_tokens, *(max(lengths) for lengths in scale.buckets)
            )
            expect(longest <= positions, f"{name}: {longest} tokens at {positions} positions")
    generates = definition.scales["mini"].generation is not None
    expect(
        definition.generates_text == generates,
        "generates_text and the scale's generation contradict each other",
    )


def metrics(subject: Subject) -> None:
    """The metrics exist, and the target's is one of them."""
    try:
        subject.definition.check_metrics()
    except UserError as error:
        raise GateError(str(error)) from error


def data(subject: Subject) -> None:
    """Every split has inputs and targets of as many rows, without NaN, and the same each time."""
    splits, scale = subject.data.splits, subject.scale
    expect(set(splits) == set(workload.SPLITS), f"splits {sorted(splits)}, not {workload.SPLITS}")
    for split, rows_of_split in splits.items():
        fields = rows_of_split.fields
        for key in ("inputs", "targets"):
            expect(key in fields, f"{split} has no {key!r}, but {', '.join(sorted(fields))}")
        in_memory = isinstance(rows_of_split, workload.ArrayRows)
        count = len(rows_of_split) if in_memory else min(LOOKED_AT, len(rows_of_split))
        for key, array in rows_of_split.take(np.arange(count)).items():
            expect(array.dtype.itemsize <= 4, f"{split}/{key} is {array.dtype}; use 32 bits")
            in_training = splits["train"].fields[key].shape
            expect(array.shape[1:] == in_training, f"{split}/{key}: its shape")
            expect(np.isfinite(array).all(), f"{split}/{key} is not finite")
    rows = batches.row_count(splits["train"])
    expect(scale.batch_size <= rows, f"batch_size {scale.batch_size} of {rows} training rows")
    again = subject.load_again().fingerprint
    expect(again == subject.data.fingerprint, "loaded a second time, the rows are others")


def secret_rows(subject: Subject) -> None:
    """Another validation seed draws other validation and test rows, and the same training rows."""
    try:
        validation_seed.check(subject.definition, subject.source)
    except UserError as error:
        raise NotApplicableError("its rows are the same for everybody") from error
    usual, secret = subject.data.splits, subject.load_secret().splits
    for split in workload.SPLITS:
        rows = np.arange(min(LOOKED_AT, len(usual[split]), len(secret[split])))
        first, other = usual[split].take(rows), secret[split].take(rows)
        expect(first.keys() == other.keys(), f"{split} has other fields by the seed")
        for key, array in other.items():
            shape, dtype = array.shape[1:], array.dtype
            same = shape == first[key].shape[1:] and dtype == first[key].dtype
            expect(same, f"{split}/{key}: its shape or type is another by the seed")
        is_same = np.array_equal(first["inputs"], other["inputs"])
        expected = "the same" if split == "train" else "others"
        expect(is_same == (split == "train"), f"{split} rows are not {expected} by the seed")


def facts(unit: Unit) -> None:
    """What a submission reads off the workload is what its definition says."""
    definition, scale, bound = unit.definition, unit.scale, unit.bound
    target = scale.targets.get(unit.source_kind)
    expect(isinstance(bound, spec.Workload), f"a {type(bound).__name__} is no spec.Workload")
    for what, value, expected in (
        ("name", bound.name, definition.name),
        ("loss_type", bound.loss_type, definition.loss_type),
        ("step_hint", bound.step_hint, scale.step_hint),
        ("budget", bound.max_allowed_runtime_sec, scale.budget_s),
        ("evaluation period", bound.eval_period_time_sec, scale.eval_every_s),
        ("target metric", bound.target_metric_name, definition.target_metric),
        ("target", bound.validation_target_value, target and target.validation),
        ("dropout rate", bound.dropout_rate, scale.dropout_rate),
        ("logger", bound.metrics_logger, None),
    ):
        expect(value == expected, f"{what} is {value!r}, not {expected!r}")
    expect(bound.num_train_examples > 0, "no training rows")


def parameters(unit: Unit) -> None:
    """Shapes and types have the structure of the parameters that a submission gets."""
    expected = parameter_shapes(unit)
    shapes = gates.leaves(unit.bound.param_shapes, spec.ShapeTuple)
    stated = {name: leaf.shape_tuple for name, leaf in shapes.items()}
    expect(stated == expected, f"param_shapes {stated}, but the parameters have {expected}")
    types = gates.leaves(unit.bound.model_params_types, spec.ParameterType)
    expect(list(types) == list(shapes), f"model_params_types of {list(types)}, not {list(shapes)}")


def parameter_shapes(unit: Unit) -> dict[str, tuple[int, ...]]:
    """Return shapes read off the parameters themselves, under the framework's own names."""
    shapes: dict[str, tuple[int, ...]] = gates.framework_module(unit.backend.name).shapes_of(
        unit.fresh()
    )
    return shapes


def output_layer(unit: Unit) -> None:
    """The output layer is a part of the model, and not all of it."""
    names = list(parameter_shapes(unit))
    selected = [name for name in names if unit.bound.is_output_params(name)]
    layer = unit.bound.output_layer
    expect(len(selected) > 0, f"no parameter is of the output layer {layer!r}: {', '.join(names)}")
    expect(len(selected) < len(names), f"all parameters are of the output layer {layer!r}")
    marked = [parameter.is_output for parameter in unit.bound.parameters.values()].count(True)
    expect(marked == len(selected), f"{marked} named parameters are of it, and {len(selected)}")


def logits(unit: Unit) -> None:
    """Logits are float32, finite, and of the shape that the loss takes."""
    outputs, targets = unit.forward(EVAL), unit.rows["targets"]
    expect(outputs.dtype == np.float32, f"logits are {outputs.dtype}, not float32")
    expect(len(outputs) == len(targets), f"{len(outputs)} rows of logits for {len(targets)} rows")
    shapes = f"logits have the shape {outputs.shape} for targets of {targets.shape}"
    if unit.definition.loss_type is spec.LossType.SOFTMAX_CROSS_ENTROPY:
        expect(outputs.shape[:-1] == targets.shape, f"{shapes}; expected one axis more, of classes")
        first = [
            each.take(np.arange(min(LOOKED_AT, len(each)))) for each in unit.data.splits.values()
        ]
        largest = max(int(rows["targets"].max()) for rows in first)
        classes = outputs.shape[-1]
        expect(largest < classes, f"target {largest} of {classes} classes")
    elif unit.definition.loss_type is not spec.LossType.CTC_LOSS:
        expect(outputs.shape == targets.shape, f"{shapes}; expected the same")
    expect(np.isfinite(outputs).all(), "logits are not finite")


def evaluation(unit: Unit) -> None:
    """In evaluation mode the model draws nothing."""
    first, second = unit.forward(EVAL, 1), unit.forward(EVAL, 2)
    gates.expect_equal(second, first, "logits of evaluation with another seed")


def dropout(unit: Unit) -> None:
    """The rate that a submission asks for acts in training alone, and is drawn by the seed."""
    plain = unit.forward(EVAL)
    gates.expect_equal(unit.forward(EVAL, dropout_rate=RATE), plain, "dropout in evaluation")
    none = unit.forward(TRAIN, 1, dropout_rate=0.0)
    if not unit.bound.statistic_shapes:  # else training normalises by the batch's statistics
        gates.expect_close(none, plain, "training at dropout 0", rtol=1e-4, atol=1e-5)
    dropped = unit.forward(TRAIN, 1, dropout_rate=RATE)
    if np.array_equal(dropped, none) and unit.scale.dropout_rate == 0:
        raise NotApplicableError("the model has no dropout")
    share = np.abs(dropped - none).max() / np.abs(none).max()
    expect(share > 1e-2, f"dropout of {RATE} changes logits by {share:.1e} of the largest")
    again, other = (unit.forward(TRAIN, number, dropout_rate=RATE) for number in (1, 2))
    gates.expect_equal(again, dropped, "dropout of the same seed")
    expect((other != dropped).any(), "dropout of another seed is the same")


def traced_rate(unit: Unit) -> None:
    """In JAX the rate may be an argument of a jitted step, and batch norm's keyword is taken."""
    if unit.backend.name != "jax":
        raise NotApplicableError("nothing is traced")
    framework = gates.framework_module(unit.backend.name)
    params, state = unit.bound.state_from_neutral(unit.values)
    batch, rng = unit.backend.place(unit.rows), unit.backend.random_state((5, 1))

    def of_rate(rate: Any) -> Any:
        outputs, _ = unit.bound.model_fn(
            params, batch, state, TRAIN, rng, True, rate, use_running_average_bn=False
        )
        return gates.logits_of(outputs)

    traced = framework.compiled(of_rate)
    for rate in (RATE, 0.0):
        fixed = unit.forward(TRAIN, 1, dropout_rate=rate)
        gates.expect_close(
            np.asarray(traced(rate)), fixed, f"dropout {rate} traced", rtol=1e-4, atol=1e-5
        )


def default_rate(unit: Unit) -> None:
    """Without a rate the workload's own is taken."""
    with _rate_of(unit.bound, RATE):
        default = unit.forward(TRAIN, 1)
    gates.expect_equal(default, unit.forward(TRAIN, 1, dropout_rate=RATE), "the default dropout")


@contextlib.contextmanager
def _rate_of(bound: Any, rate: float) -> Iterator[None]:
    usual, bound.dropout_rate = bound.dropout_rate, rate
    try:
        yield
    finally:
        bound.dropout_rate = usual


def loss(unit: Unit) -> None:
    """The loss has three parts, and weights mask it."""
    outputs = unit.placed(unit.outputs(EVAL))
    weights = np.array([1, 0, 1, 1], np.float32)
    placed = unit.backend.place({**unit.rows, "weights": weights})
    masked = unit.backend.fetch(unit.bound.loss_fn(placed["targets"], outputs, placed["weights"]))
    plain = unit.backend.fetch(unit.bound.loss_fn(placed["targets"], outputs))
    keys = {"summed", "n_valid_examples", "per_example"}
    expect(set(masked) == set(plain) == keys, f"the loss has {sorted(plain)}, not {sorted(keys)}")
    per_example = np.asarray(plain["per_example"])
    expect(np.isfinite(per_example).all(), "the loss is not finite")
    if unit.definition.loss_type is spec.LossType.SOFTMAX_CROSS_ENTROPY:
        shape = unit.rows["targets"].shape
        expect(per_example.shape == shape, f"per_example has {per_example.shape}, not {shape}")
    counted = losses.example_counts(unit.bound.loss_type, unit.rows["targets"])
    row_counts = np.full(4, per_example.size / len(weights)) if counted is None else counted
    counts = (float(plain["n_valid_examples"]), float(masked["n_valid_examples"]))
    expected = (row_counts.sum(), (row_counts * weights).sum())
    expect(counts == expected, f"n_valid_examples of 4 and 3 rows: {counts}, not {expected}")
    shaped = weights.reshape(-1, *[1] * (per_example.ndim - 1))
    gates.expect_close(
        np.asarray(masked["per_example"]), per_example * shaped, "masked loss", rtol=1e-7
    )
    summed = np.asarray(masked["summed"])
    gates.expect_close(summed, (per_example * shaped).sum(), "summed loss", rtol=1e-5)
    expect(summed != plain["summed"], "a weight of 0 does not change the sum of the loss")


def initial_values(unit: Unit) -> None:
    """Fresh parameters follow the random state, with the standard deviations that were asked."""
    if unit.scale.trainable is not None:
        raise NotApplicableError("a technique adds parameters of its own")
    first, again, other = (unit.bound.to_neutral(unit.fresh(number)) for number in (1, 1, 2))
    settings = {**unit.scale.model, **unit.data.model}
    for name, value in first.items():
        expect(value.dtype == np.float32, f"{name} is {value.dtype}, not float32")
        gates.expect_equal(again[name], value, f"{name} of the same seed")
        is_weight = not name.endswith(("bias", "scale"))
        rule = unit.definition.initial_std
        std = unit.scale.initial_scale * rule(name, value.shape, settings) if is_weight else 0.0
        drawn = std > 0
        differs = bool((value != other[name]).any())
        expect(differs == drawn, f"{name} {'differs' if differs else 'is the same'} by the seed")
        if drawn:
            close = abs(value.std() - std) <= 5 / value.size**0.5 * abs(std)
            expect(close, f"{name} has the standard deviation {value.std():g}, not {std:g}")


SHARED: Mapping[str, Callable[[Subject], None]] = {
    "scales": scales,
    "metrics": metrics,
    "data": data,
    "validation seed": secret_rows,
}
CONFORMANCE: Mapping[str, Callable[[Unit], None]] = {
    "facts": facts,
    "parameters": parameters,
    "output layer": output_layer,
    "logits": logits,
    "evaluation": evaluation,
    "dropout": dropout,
    "traced rate": traced_rate,
    "default rate": default_rate,
    "loss": loss,
    "initial values": initial_values,
}

"""The axes along which a variant may differ from its base workload.

An axis is an entry of `AXES`: what it changes, the values that may be drawn, and a function that
changes a scale of a workload. Where the scale has nothing of that kind, or has the value already,
the function returns None, and the axis is not offered there. A change of the model is a field of
its style (`workloads.parts.style`), which one line of each framework's model reads.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from algoperf.errors import UserError, choose
from algoperf.workload import Scale, Target, WorkloadDefinition, trainable

Value = Any  # A string, a number or a boolean.
Changes = Mapping[str, Value]  # Values by the axis's name.
Change = Callable[[Scale, Any], Scale | None]


@dataclasses.dataclass(frozen=True)
class Axis:
    """One way in which a variant may differ from its base.

    Attributes:
        summary: A short description for listings.
        alters: What always differs from the base: 'logits' (of the same parameters), 'parameters'
            (their names or shapes), 'initial values', 'dropout' (the logits in training) or 'data'.
        values: The values that may be drawn.
        change: Returns the changed scale for a value, or None where that changes nothing.
        is_drawn: Whether the axis is drawn for a suite; if not, a suite may still name it.
        parse: Raises UserError for something that is not a value of the axis; None where only
            `values` and `others` are allowed.
        others: Values that are not drawn, but that a variant may name.
    """

    summary: str
    alters: str
    values: tuple[Value, ...]
    change: Change
    is_drawn: bool = True
    parse: Callable[[Any], Any] | None = None
    others: tuple[Value, ...] = ()


def _with_model(scale: Scale, **settings: Any) -> Scale:
    return dataclasses.replace(scale, model={**scale.model, **settings})


def _style(field: str) -> Change:
    def change(scale: Scale, value: Value) -> Scale | None:
        style: Any = scale.model.get("style")
        if getattr(style, field, value) == value:
            return None
        return _with_model(scale, style=dataclasses.replace(style, **{field: value}))

    return change


def _activation(scale: Scale, value: str) -> Scale | None:
    style: Any = scale.model.get("style")
    own = getattr(style, "activation", value)
    if own.startswith(value) or value.startswith(own):
        return None  # The two forms of GELU differ less than a variant should.
    if value.startswith("glu") and not getattr(style, "GATES", True):
        return None
    return _style("activation")(scale, value)


def _norm(scale: Scale, value: str) -> Scale | None:
    style: Any = scale.model.get("style")
    return _style("norm")(scale, value) if value in getattr(style, "NORMS", ()) else None


def _position_scale(scale: Scale, value: float) -> Scale | None:
    if getattr(scale.model.get("style"), "is_rotary", False):
        return None  # There is no table of positions.
    return _style("position_scale")(scale, value)


def _window(scale: Scale, factor: float) -> Scale | None:
    if not hasattr(scale.model.get("style"), "attention_window"):
        return None
    return _style("attention_window")(scale, int(scale.model["positions"] * factor))


def _global_tokens(scale: Scale, value: int) -> Scale | None:
    if getattr(scale.model.get("style"), "attention_window", None) is None:
        return None  # Every position attends to all before it anyway.
    return _style("global_tokens")(scale, value)


def _dropout(scale: Scale, value: float) -> Scale | None:
    if not getattr(scale.model.get("style"), "drops", True):
        return None
    return _field("dropout_rate")(scale, value)


def _times(*names: str) -> Change:
    """Return a change that multiplies the model's sizes of these names, where it has them."""

    def change(scale: Scale, factor: float) -> Scale | None:
        sizes = {name: scale.model[name] * factor for name in names if name in scale.model}
        if not sizes or any(size != int(size) or size < 1 for size in sizes.values()):
            return None
        return _with_model(scale, **{name: int(size) for name, size in sizes.items()})

    return change


def _vocabulary(scale: Scale, factor: float) -> Scale | None:
    if scale.data.get("tokenizer") != "trained":
        return None
    size = int(scale.data["vocab_size"] * factor)
    return dataclasses.replace(scale, data={**scale.data, "vocab_size": size})


def _setting(name: str) -> Change:
    """Return a change that multiplies a whole number of the data's settings, where it is there."""

    def change(scale: Scale, factor: float) -> Scale | None:
        if name not in scale.data:
            return None
        return dataclasses.replace(scale, data={**scale.data, name: int(scale.data[name] * factor)})

    return change


def _source_length(scale: Scale, factor: float) -> Scale | None:
    if "max_length" in scale.data:
        length = int(scale.data["max_length"] * factor)
        return dataclasses.replace(scale, data={**scale.data, "max_length": length})
    if not scale.buckets or "max_source" not in scale.data:
        return None
    buckets = tuple((int(source * factor), target) for source, target in scale.buckets)
    data = {**scale.data, "max_source": buckets[-1][0]}
    return dataclasses.replace(scale, buckets=buckets, data=data)


def _untied(scale: Scale, value: bool) -> Scale | None:
    changed = _style("ties_embeddings")(scale, value)
    return changed and dataclasses.replace(changed, output_layer="head")


def _field(name: str) -> Change:
    def change(scale: Scale, value: Value) -> Scale | None:
        if getattr(scale, name) == value:
            return None
        return dataclasses.replace(scale, **{name: value})

    return change


def _rows(name: str, only_classes: bool = False) -> Change:
    def change(scale: Scale, value: Value) -> Scale | None:
        if only_classes and "classes" not in scale.model:
            return None
        return dataclasses.replace(scale, row_changes={**scale.row_changes, name: value})

    return change


def _trainable(scale: Scale, value: str) -> Scale | None:
    chosen = trainable.parse(value)
    if chosen.technique not in scale.techniques:
        return None
    changed = dataclasses.replace(scale, trainable=value)
    virtual = chosen.settings.get("tokens", 0)
    if virtual == 0:
        return changed
    left = scale.model["positions"] - virtual
    if left <= 0:
        raise UserError(
            f"trainable {value!r}: the model has {scale.model['positions']} positions, for virtual "
            "tokens and text together"
        )
    length = min(scale.data["max_length"], left)
    return dataclasses.replace(changed, data={**scale.data, "max_length": length})


AXES: Mapping[str, Axis] = {
    "activation": Axis(
        "of hidden layers; glu gates them by a layer more",
        "logits",
        ("relu", "gelu", "silu", "tanh", "glu"),
        _activation,
        others=("gelu_tanh", "glu_tanh"),  # AlgoPerf's
    ),
    "norm": Axis(
        "layer norm, RMS norm, or of a convolutional model group norm",
        "logits",
        ("layer", "rms", "group"),
        _norm,
    ),
    "last_norm_scale": Axis(
        "what the scale of a residual block's last norm starts at",
        "initial values",
        (1.0, 8.0),
        _style("last_norm_scale"),
    ),
    "table_scale": Axis(
        "the largest first value of a table of embeddings",
        "initial values",
        (1.0,),
        _style("table_scale"),
    ),
    "residual": Axis(
        "layers that add to their inputs, in place of products of embeddings",
        "parameters",
        (True,),
        _style("is_residual"),
    ),
    "pooling": Axis("map: attention by a learned probe", "parameters", ("map",), _style("pooling")),
    "norm_place": Axis(
        "before each layer or after its sum", "logits", ("pre", "post"), _style("norm_place")
    ),
    "last_norm": Axis(
        "false leaves the last norm out", "logits", (False,), _style("has_last_norm")
    ),
    "attention_temperature": Axis(
        "divides attention scores",
        "logits",
        (0.5, 1.6, 4.0),
        _style("attention_temperature"),
        others=(0.25,),  # AlgoPerf's, which multiplies them by 4
    ),
    "attention_window": Axis(
        "factor of the model's positions: how many of the latest tokens a decoder's position "
        "attends to; never drawn",
        "logits",
        (0.125, 0.25, 0.5),
        _window,
        is_drawn=False,
    ),
    "global_tokens": Axis(
        "after attention_window: the first tokens, which all attend to besides; never drawn",
        "logits",
        (1, 4, 16),
        _global_tokens,
        is_drawn=False,
    ),
    "attention_output_scale": Axis(
        "multiplies what attention gives its last layer",
        "logits",
        (1.6,),
        _style("attention_output_scale"),
    ),
    "block_norm": Axis(
        "false leaves the norm at the end of each block out",
        "parameters",
        (False,),
        _style("has_block_norm"),
    ),
    "skip_connections": Axis(
        "false: a layer gives what it computes alone",
        "logits",
        (False,),
        _style("has_skip_connections"),
    ),
    "embedding_scale": Axis(
        "multiplies tokens' embeddings", "logits", (0.25, 4.0), _style("embedding_scale")
    ),
    "position_scale": Axis(
        "multiplies positions' embeddings", "logits", (0.25, 4.0), _position_scale
    ),
    "output_scale": Axis("multiplies logits", "logits", (0.25, 4.0), _style("output_scale")),
    "residual_scale": Axis(
        "multiplies what a layer adds", "logits", (0.5, 2.0), _style("residual_scale")
    ),
    "tied_embeddings": Axis("false: an output layer of its own", "parameters", (False,), _untied),
    "initial_scale": Axis(
        "multiplies weights' first values", "initial values", (0.5, 2.0), _field("initial_scale")
    ),
    "width": Axis("factor", "parameters", (0.5, 2.0), _times("width", "feed_forward")),
    "depth": Axis(
        "factor",
        "parameters",
        (0.5, 2.0),
        _times("depth", "layers", "encoder_layers", "decoder_layers"),
        others=(0.6,),  # AlgoPerf's, of a graph network
    ),
    "mlp_layers": Axis(
        "factor: layers of each perceptron of a graph network",
        "parameters",
        (2.0,),
        _times("mlp_layers"),
    ),
    "levels": Axis(
        "factor: how often a U-Net halves its images", "parameters", (0.5, 0.75), _times("levels")
    ),
    "heads": Axis("factor, at the same width", "logits", (0.5, 2.0), _times("heads")),
    "dropout": Axis("the default rate", "dropout", (0.1, 0.3), _dropout),
    "vocabulary": Axis("factor, where the tokenizer is trained", "data", (0.2, 0.3), _vocabulary),
    "source_length": Axis("factor: what is longer is cut", "data", (0.4, 0.6), _source_length),
    "frequency_masks": Axis(
        "factor: SpecAugment's masks of bins", "data", (2.0,), _setting("frequency_masks")
    ),
    "time_masks": Axis(
        "factor: SpecAugment's masks of frames", "data", (1.5,), _setting("time_masks")
    ),
    "train_fraction": Axis("of the training rows", "data", (0.25, 0.5), _rows("train_fraction")),
    "label_noise": Axis(
        "share of training rows with another row's target",
        "data",
        (0.05, 0.2),
        _rows("label_noise"),
    ),
    "class_imbalance": Axis(
        "rows of the rarest class over the commonest's",
        "data",
        (0.1, 0.3),
        _rows("class_imbalance", only_classes=True),
    ),
    "trainable": Axis(
        "which parameters train: never drawn, settings may follow (docs/fine_tuning.md)",
        "parameters",
        tuple(trainable.TECHNIQUES),
        _trainable,
        is_drawn=False,
        parse=trainable.parse,
    ),
}


def changed(scale: Scale, changes: Changes) -> Scale | None:
    """Return the scale with all changes.

    Args:
        scale: The scale of the base workload.
        changes: The value for each axis, by the axis's name.

    Returns:
        The new scale, or None where one of the changes changes nothing in this scale.
    """
    result: Scale | None = scale
    for name, value in changes.items():
        if result is not None:
            result = AXES[name].change(result, value)
    if result is None or result.real is None:
        return result
    return dataclasses.replace(result, real=changed(result.real, changes))


def offered(scale: Scale) -> dict[str, tuple[Value, ...]]:
    """Return the values that would change the scale, by the axis's name.

    Axes that are not drawn and axes without such a value are left out.
    """
    values_by_axis = {
        name: tuple(value for value in axis.values if changed(scale, {name: value}) is not None)
        for name, axis in AXES.items()
        if axis.is_drawn
    }
    return {name: values for name, values in values_by_axis.items() if values}


def check(where: str, changes: Any) -> Changes:
    """Return the changes from a file, after checking that every axis and value is in the table.

    Args:
        where: The place in the file, with which messages begin.
        changes: The parsed content of the file.

    Raises:
        UserError: It is not an object with at least one axis, or has an unknown axis or value.
    """
    if not isinstance(changes, Mapping) or not changes:
        raise UserError(f"{where}: expected an object of axes and values with at least one axis")
    for name, value in changes.items():
        try:
            axis = AXES[choose("axis", str(name), list(AXES))]
            if axis.parse is not None:
                axis.parse(value)
                continue
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        allowed = (*axis.values, *axis.others)
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise UserError(
                f"{where}: {name} is {value!r}, expected one of {', '.join(map(str, allowed))}"
            )
    return changes


def vary(
    base: WorkloadDefinition,
    name: str,
    changes: Changes,
    targets: Mapping[str, Mapping[str, Target]],
) -> WorkloadDefinition:
    """Return the variant of a workload, at those scales where every change changes something.

    Budgets stay the base's, by AlgoPerf's rule.

    Args:
        base: The base workload.
        name: The variant's name.
        changes: The value for each axis, by the axis's name.
        targets: The variant's own targets, by scale and by source of data.

    Raises:
        UserError: There is no such scale.
    """
    scales = {}
    for scale_name, scale in base.scales.items():
        varied = changed(scale, changes)
        if varied is not None:
            own = targets.get(scale_name, {})
            real = varied.real and dataclasses.replace(varied.real, targets=own)
            scales[scale_name] = dataclasses.replace(varied, targets=own, real=real)
    if not scales:
        raise UserError(f"{name}: {base.name} has nothing that {dict(changes)} would change")
    listing = ", ".join(f"{axis} {value}" for axis, value in changes.items())
    return dataclasses.replace(
        base,
        name=name,
        summary=f"{base.name} with {listing}",
        scales=scales,
        base=base.name,
        changes=dict(changes),
        variants={},
    )

"""Every axis of variants changes what it says, in both frameworks."""

import functools

import jax
import numpy as np
import pytest

from algoperf import backends, spec
from algoperf.data import row_changes
from algoperf.data.batches import TrainingQueue
from algoperf.data.loading import load_data
from algoperf.workload import axes, catalogue

MODELS = ("digits", "ag_news", "xsum")  # the summarization workloads share one model
DEPENDENT = [
    (name, axis, value, framework)
    for name in MODELS
    for axis, values in axes.offered(catalogue.find(name).scales["mini"]).items()
    if axes.AXES[axis].alters != "data"
    for framework, chosen in (("pytorch", values), ("jax", values[: name != "xsum"]))
    for value in chosen
]


def bound(framework, definition, load_small):
    scale = definition.scales["mini"]
    data = load_small(definition, "mini")
    return backends.load(framework).workload(definition, scale, "builtin", data), data


def logits(framework, definition, load_small, make_values, train):
    """Of parameters that are alike by name and shape, with one stream of dropout."""
    model, data = bound(framework, definition, load_small)
    backend = backends.load(framework)
    params = model.from_neutral(make_values(neutral_shapes(model)))
    batch = next(TrainingQueue(data.splits["train"], 4, 0, backend.place))
    mode = spec.ForwardPassMode.TRAIN if train else spec.ForwardPassMode.EVAL
    backend.seed((0, 1))

    def forward(params, batch, rng):
        return model.model_fn(params, batch, None, mode, rng, update_batch_norm=train)[0]

    # Compiled at once, and not one operation after another.
    call = jax.jit(forward) if framework == "jax" else forward
    return backend.fetch(call(params, batch, backend.random_state((0, 1))))


@functools.cache
def base_logits(framework, name, load_small, make_values, train):
    """Those that all values of all axes are compared with."""
    return logits(framework, catalogue.find(name), load_small, make_values, train)


def neutral_shapes(model):
    """In JAX's layout."""
    return {name: tuple(value.shape) for name, value in model.to_neutral(fresh(model)).items()}


def fresh(model):
    return model.init_model_fn(np.array([0, 0], np.uint32))[0]


@pytest.mark.parametrize(("name", "axis", "value", "framework"), DEPENDENT)
def test_an_axis_changes_what_it_says(load_small, make_values, name, axis, value, framework):
    base = catalogue.find(name)
    varied = axes.vary(base, f"{name}_varied", {axis: value}, {})
    told = axes.AXES[axis].alters
    if told in ("logits", "dropout"):
        train = told == "dropout"
        seen = [
            base_logits(framework, name, load_small, make_values, train),
            logits(framework, varied, load_small, make_values, train),
        ]
        assert np.isfinite(seen[1]).all()
        assert seen[0].shape == seen[1].shape
        assert np.abs(seen[0] - seen[1]).max() > 1e-3 * np.abs(seen[0]).max()
        return
    models = [bound(framework, each, load_small)[0] for each in (base, varied)]
    if told == "parameters":
        assert neutral_shapes(models[0]) != neutral_shapes(models[1])
        return
    assert told == "initial values"
    first, second = (model.to_neutral(fresh(model)) for model in models)
    for key, initial in first.items():
        weight = key.endswith(("kernel", "embedding"))
        np.testing.assert_array_equal(second[key], initial * np.float32(value if weight else 1))


LENGTHS = {"ag_news": "max_length", "xsum": "max_source"}


@pytest.mark.parametrize("name", MODELS)
def test_an_axis_of_the_data_changes_the_training_rows_alone(load_mini, name):
    base = catalogue.find(name)
    scale, data = base.scales["mini"], load_mini(name)
    found = axes.offered(scale)
    for axis in ("train_fraction", "label_noise", "class_imbalance"):
        for value in found.get(axis, ()):
            changed = row_changes.change(data, {axis: value})
            assert axes.changed(scale, {axis: value}).row_changes == {axis: value}
            assert changed.fingerprint != data.fingerprint
            assert changed.notes[axis].items() >= {"seed": 0}.items()
            for split in ("validation", "test"):
                assert changed.splits[split] is data.splits[split]


@pytest.mark.parametrize("name", ["ag_news", "xsum"])
@pytest.mark.parametrize("axis", ["vocabulary", "source_length"])
def test_an_axis_of_the_tokens_changes_them(load_mini, name, axis):
    base, data = catalogue.find(name), load_mini(name)
    for value in axes.offered(base.scales["mini"])[axis]:
        varied = axes.vary(base, f"{name}_varied", {axis: value}, {}).scales["mini"]
        changed = load_data(base, varied, "builtin")
        if axis == "vocabulary":
            assert changed.model["vocab_size"] == int(value * data.model["vocab_size"])
            assert changed.splits["train"]["inputs"].max() < changed.model["vocab_size"]
        else:
            longest = int(value * base.scales["mini"].data[LENGTHS[name]])
            shapes = [each.splits["train"]["inputs"].shape for each in (data, changed)]
            assert shapes[1][1] <= longest
            assert shapes[1][1] < shapes[0][1]
        assert changed.fingerprint != data.fingerprint

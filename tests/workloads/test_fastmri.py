"""The fastmri workload: its rows, and its U-Net's parameters, shapes and layers."""

import collections
import dataclasses
import hashlib
import math

import jax
import numpy as np
import pytest
from evaluation import evaluate
from flax import linen as nn
from torch.nn import functional

from algoperf import backends, spec
from algoperf.data.batches import TrainingQueue
from algoperf.data.rows import first
from algoperf.errors import UserError
from algoperf.experiments.check import parity
from algoperf.workload import SPLITS, ArrayRows, Data, catalogue
from workloads.fastmri import data, generator
from workloads.metrics.ssim import ssim
from workloads.parts import kspace
from workloads.parts.dropout_jax import Dropout

NAME = "fastmri"
TRAIN = spec.ForwardPassMode.TRAIN
DEFINITION = catalogue.find(NAME)
# Of the reference's own models, in PyTorch's layout.
BASE = {
    "1": 1, "1x32x1x1": 1, "32x1x3x3": 1, "32x32x3x3": 2, "32x64x3x3": 1, "64x32x2x2": 1,
    "64x32x3x3": 1, "64x64x3x3": 2, "64x128x3x3": 1, "128x64x2x2": 1, "128x64x3x3": 1,
    "128x128x3x3": 2, "128x256x3x3": 1, "256x128x2x2": 1, "256x128x3x3": 1, "256x256x3x3": 2,
    "256x512x3x3": 1, "512x256x2x2": 1, "512x256x3x3": 1, "512x512x3x3": 1,
}  # fmt: skip
WIDER = {
    "1": 1, "1x64x1x1": 1, "64x1x3x3": 1, "64x64x3x3": 2, "64x128x3x3": 1, "128x64x2x2": 1,
    "128x64x3x3": 1, "128x128x3x3": 2, "128x256x3x3": 1, "256x128x2x2": 1, "256x128x3x3": 1,
    "256x256x3x3": 2, "256x512x3x3": 1, "512x256x2x2": 1, "512x256x3x3": 1, "512x512x3x3": 1,
}  # fmt: skip
NORMS = {"32": 8, "64": 8, "128": 8, "256": 8, "512": 4}
REFERENCE = {
    "fastmri": (7_756_097, BASE),
    "fastmri_model_size": (7_692_929, WIDER),
    "fastmri_tanh": (7_756_097, BASE),
    "fastmri_layernorm": (7_761_985, {**BASE, **NORMS}),
}


def in_jax(shape):
    """A shape of the reference's PyTorch model as its flax model has it."""
    first, second, *window = shape.split("x") if "x" in shape else (shape, None)
    if second is None:
        return first
    is_transposed = window == ["2", "2"]
    return "x".join([*window, *((first, second) if is_transposed else (second, first))])


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("framework", ["pytorch", "jax"])
def test_the_full_model_has_the_reference_s_parameters(name, framework):
    definition = catalogue.find(name)
    image = np.zeros((2, 320, 320), np.float32)
    rows = Data({split: {"inputs": image, "targets": image} for split in SPLITS})
    bound = backends.load(framework).workload(definition, definition.scales["full"], "folder", rows)
    shapes = [parameter.shape for parameter in bound.parameters.values()]
    count, expected = REFERENCE[name]
    if framework == "jax":
        expected = {in_jax(shape): tensors for shape, tensors in expected.items()}
    assert sum(map(math.prod, shapes)) == count
    assert collections.Counter("x".join(map(str, shape)) for shape in shapes) == expected
    kinds = collections.Counter(parameter.type.name for parameter in bound.parameters.values())
    norms = {"LAYER_NORM_SCALE": 18, "LAYER_NORM_BIAS": 18} if name.endswith("layernorm") else {}
    assert kinds == {"CONV_WEIGHT": 18 if name.endswith("model_size") else 23, "BIAS": 1, **norms}


def test_the_facts_are_algoperf_s():
    full = DEFINITION.scales["full"]
    target = full.targets["folder"]
    assert (target.validation, target.test) == (0.723653, 0.740633)
    assert (full.step_hint, full.budget_s, full.batch_size) == (18_094, 4_430, 32)
    published = {
        "model_size": (0.723559, 0.740726),
        "tanh": (0.717840, 0.734505),
        "layernorm": (0.723284, 0.739996),
    }
    for name, expected in published.items():
        varied = catalogue.find(f"{NAME}_{name}").scales["full"].targets["folder"]
        assert (varied.validation, varied.test) == expected


def test_built_in_slices_are_the_same_everywhere():
    slices = generator.generate("test", 0)
    digest = hashlib.sha256(slices.kspace_NHW.tobytes()).hexdigest()
    assert digest == DIGEST
    assert slices.kspace_NHW.shape == (96, 80, 72)


DIGEST = "19e5a3dc3de0645b7fc7bc3984330832070634f5345ed699f654990e417d3316"


@pytest.mark.parametrize("changes", [{}, {"norm": "layer", "activation": "tanh"}])
def test_small_models_agree_in_both_modes_for_perturbed_weights(changes):
    """What the variants change, at a size that compiles fast; test_parity.py has the others."""
    scale, rng = DEFINITION.scales["mini"], np.random.default_rng(0)
    style = dataclasses.replace(scale.model["style"], **changes)
    small = dataclasses.replace(scale, model={"width": 3, "levels": 2, "style": style})
    images = rng.standard_normal((2, 4, 12, 16)).astype(np.float32)
    rows = {"inputs": images[0], "targets": images[1]}
    data = Data(dict.fromkeys(SPLITS, ArrayRows(rows)))
    pair = parity.bind(DEFINITION, small, "builtin", data, steps=1, batch_size=4)
    parity.parameters(pair)
    for mode in (TRAIN, spec.ForwardPassMode.EVAL):
        parity.same_logits(pair, mode)


# Rows


@pytest.fixture(scope="module")
def loaded(load_mini):
    return load_mini(NAME)


def test_evaluation_s_masks_are_all_the_same(loaded):
    sampling = loaded.augmentation.sampling
    assert (sampling.accelerations, sampling.centre_fractions) == ((4,), (0.08,))
    kept_W = sampling.mask(generator.WIDTH, kspace.fixed_generator())
    slices, rows = generator.generate("test", 0), loaded.splits["test"]
    batch = rows.take(np.array([3, 40]))
    for position, index in enumerate((3, 40)):
        expected = kspace.row(
            slices.kspace_NHW[index], slices.target_NSS[index], slices.volume_max_N[index], kept_W
        )
        for name, value in expected.items():
            np.testing.assert_array_equal(batch[name][position], value)


def test_training_s_masks_are_drawn_by_seed_epoch_and_row(loaded):
    """They do not depend on the batches that rows come in."""
    train, count = first(loaded.splits["train"], 12), 12

    def batches(seed, size, number):
        queue = TrainingQueue(train, size, seed, augmentation=loaded.augmentation)
        return [next(queue) for _ in range(number)]

    epochs = batches(3, count, 2)
    for name in train.fields:
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in batches(3, 4, 6)]),
            np.concatenate([epoch[name] for epoch in epochs]),
        )
    fixed = train.take(np.arange(count))
    rows = [which(epoch, fixed) for epoch in epochs]
    assert sorted(rows[0]) == sorted(rows[1]) == list(range(count))
    means = np.full((3, count), np.nan)  # of each row's image: evaluated, in each epoch
    means[0] = fixed["mean"]
    for epoch in range(2):
        means[epoch + 1, rows[epoch]] = epochs[epoch]["mean"]
    assert len(np.unique(means)) == 3 * count
    other_seed = batches(4, count, 1)[0]
    assert not np.isin(other_seed["mean"], means).any()


def which(batch, fixed):
    """Which row each of a batch is, by the image that it is to become."""

    def images(rows):
        return rows["targets"] * rows["std"][:, None, None] + rows["mean"][:, None, None]

    return np.abs(images(batch)[:, None] - images(fixed)).mean((2, 3)).argmin(1).tolist()


def test_masks_that_contradict_each_other_are_refused():
    settings = {**DEFINITION.scales["mini"].data, "centre_fractions": (0.3,)}
    with pytest.raises(UserError, match="centre fraction"):
        data.load("builtin", **settings)


def test_an_evaluation_s_ssim_is_of_the_images_before_they_were_normalised(loaded):
    """Whatever the batch size, and so the padding of the last batch."""
    backend = backends.load("pytorch")
    bound = backend.workload(DEFINITION, DEFINITION.scales["mini"], "builtin", loaded)
    params, state = bound.init_model_fn((0, 1))
    rows = first(loaded.splits["validation"], 5)
    batch = rows.take(np.arange(5))
    _, images_BHW = backend.fetch(backend.predict(bound, params, state, backend.place(batch)))
    scales = zip(batch["std"], batch["mean"], batch["volume_max"], strict=True)
    expected = [
        ssim(*(np.float64(each) * std + mean for each in pair), largest)
        for *pair, (std, mean, largest) in zip(images_BHW, batch["targets"], scales, strict=True)
    ]
    for size in (2, 5):
        found = evaluate(backend, bound, DEFINITION, rows, size, params, state)
        assert found["ssim"] == pytest.approx(np.mean(expected), rel=1e-4)
        error = np.abs(images_BHW - batch["targets"]).mean()
        assert found["loss"] == pytest.approx(error, rel=1e-5)
        assert found["num_examples"] == 5


# Dropout


LAYERS = 2 * 9  # two in each block: four down, one at the bottom, four up


def bound_with_rows(framework, loaded):
    backend = backends.load(framework)
    bound = backend.workload(DEFINITION, DEFINITION.scales["mini"], "builtin", loaded)
    return backend, bound, backend.place(loaded.splits["train"].take(np.arange(2)))


def test_in_pytorch_the_rate_reaches_every_layer_and_drops_whole_channels(loaded, monkeypatch):
    backend, bound, placed = bound_with_rows("pytorch", loaded)
    params, _ = bound.init_model_fn((0, 1))
    seen, dropout = [], functional.dropout2d

    def recorded(values, rate, training):
        after = dropout(values, rate, training)
        seen.append((values.detach().numpy(), after.detach().numpy()))
        return after

    monkeypatch.setattr(functional, "dropout2d", recorded)
    backend.seed((0, 2))
    bound.model_fn(params, placed, None, TRAIN, (0, 2), False, 0.5)
    assert len(seen) == LAYERS
    for before_NCHW, after_NCHW in seen:
        dropped_NC11 = (after_NCHW == 0).all((2, 3), keepdims=True)
        np.testing.assert_array_equal(after_NCHW, np.where(dropped_NC11, 0, 2 * before_NCHW))
    share = np.concatenate([(after == 0).all((2, 3)).ravel() for _, after in seen]).mean()
    assert 0.4 < share < 0.6


def test_in_jax_the_rate_reaches_every_layer(loaded):
    """test_dropout.py has what a layer does with it."""
    backend, bound, placed = bound_with_rows("jax", loaded)
    params, _ = bound.init_model_fn(backend.random_state((0, 1)))
    seen = []

    def intercept(call, arguments, keywords, context):
        if isinstance(context.module, Dropout):
            seen.append((context.module.rate, context.module.train, context.module.whole))
        return call(*arguments, **keywords)

    def forward(params, batch, rng):
        return bound.model_fn(params, batch, None, TRAIN, rng, False, 0.5)[0]

    with nn.intercept_methods(intercept):
        jax.eval_shape(forward, params, placed, backend.random_state((0, 2)))
    assert seen == [(0.5, True, (1, 2))] * LAYERS

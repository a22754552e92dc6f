"""The fastmri workload: its rows, and its U-Net's parameters, shapes and layers."""

import collections
import hashlib
import math

import numpy as np
import pytest

from algoperf import backends
from algoperf.workload import SPLITS, Data, catalogue
from workloads.fastmri import generator

NAME = "fastmri"
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

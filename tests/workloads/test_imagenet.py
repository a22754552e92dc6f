"""The models of imagenet_resnet and imagenet_vit: the published sizes, first values, and parts.

Legend: N rows, H height, W width, C channels, T patches, D width.
"""

import collections
import math

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn
from torch.nn import functional

from algoperf import backends, spec
from algoperf.backends.torch_backend import neutral_names
from algoperf.workload import Data, catalogue, parameters
from workloads.parts import dropout_jax, norms
from workloads.parts.norms_jax import norm as norm_jax
from workloads.parts.norms_torch import norm as norm_torch
from workloads.parts.patches import sine_positions

RESNET = {
    "64": 14, "64x3x7x7": 1, "64x64x1x1": 1, "64x64x3x3": 3, "64x256x1x1": 2, "128": 16,
    "128x128x3x3": 4, "128x256x1x1": 1, "128x512x1x1": 3, "256": 32, "256x64x1x1": 4,
    "256x256x3x3": 6, "256x512x1x1": 1, "256x1024x1x1": 5, "512": 22, "512x128x1x1": 4,
    "512x256x1x1": 1, "512x512x3x3": 3, "512x1024x1x1": 1, "512x2048x1x1": 2, "1000": 1,
    "1000x2048": 1, "1024": 14, "1024x256x1x1": 6, "1024x512x1x1": 1, "2048": 8,
    "2048x512x1x1": 3, "2048x1024x1x1": 1,
}  # fmt: skip
VIT = {
    "384": 112, "384x3x16x16": 1, "384x384": 49, "384x1536": 12, "1000": 1, "1000x384": 1,
    "1536": 12, "1536x384": 12,
}  # fmt: skip
MAP = {"1x1x384": 1, "384": 117, "384x384": 51, "384x1536": 13, "768": 1, "768x384": 1,
       "1536": 13, "1536x384": 13}  # fmt: skip
PUBLISHED = {
    "imagenet_resnet": (25_557_032, RESNET),
    "imagenet_resnet_silu": (25_557_032, RESNET),
    "imagenet_resnet_gelu": (25_557_032, RESNET),
    "imagenet_resnet_large_bn_init": (25_557_032, RESNET),
    "imagenet_vit": (22_122_472, VIT),
    "imagenet_vit_glu": (50_452_456, {**VIT, "1536": 24, "1536x1536": 12}),
    "imagenet_vit_post_ln": (22_121_704, {**VIT, "384": 110}),
    "imagenet_vit_map": (23_896_552, {**VIT, **MAP}),
}
TYPES = {
    "imagenet_resnet": {"BATCH_NORM_BIAS": 53, "BATCH_NORM_SCALE": 53, "BIAS": 1,
                        "CONV_WEIGHT": 53, "WEIGHT": 1},
    "imagenet_vit": {"ATTENTION_BIAS": 48, "ATTENTION_K": 12, "ATTENTION_OUT": 12,
                     "ATTENTION_Q": 12, "ATTENTION_V": 12, "BIAS": 27, "CONV_WEIGHT": 1,
                     "LAYER_NORM_BIAS": 25, "LAYER_NORM_SCALE": 25, "WEIGHT": 26},
}  # fmt: skip


def torch_shapes(definition):
    """Names by path and PyTorch's shapes at full scale; nothing is computed."""
    with torch.device("meta"):
        model = definition.build_model("torch", definition.scales["full"].model)
    names = neutral_names(model)
    return {names[name]: tuple(value.shape) for name, value in model.named_parameters()}


def jax_shapes(definition):
    model = definition.build_model("jax", definition.scales["full"].model)
    inputs = jax.ShapeDtypeStruct((1, 224, 224, 3), np.uint8)

    def init(inputs):
        return model.init(jax.random.PRNGKey(0), inputs, train=False, dropout_rate=0.0)

    flat = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init, inputs)["params"])[0]
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in flat}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_scale_has_the_published_parameters_in_both_frameworks(name):
    definition = catalogue.find(name)
    count, expected = PUBLISHED[name]
    shapes = torch_shapes(definition)
    assert sum(math.prod(shape) for shape in shapes.values()) == count
    counted = collections.Counter("x".join(map(str, shape)) for shape in shapes.values())
    assert counted == expected
    in_jax = {key: parameters.jax_shape(key, shape) for key, shape in shapes.items()}
    assert jax_shapes(definition) == in_jax
    if name in TYPES:
        types = (parameters.parameter_type(key, shape).name for key, shape in in_jax.items())
        assert collections.Counter(types) == TYPES[name]


def test_full_scale_has_the_published_facts():
    facts = {
        "imagenet_resnet": (0.77431, 0.6560, 195_999, 66_159, 510, 1024),
        "imagenet_vit": (0.77309, 0.6519, 167_999, 69_768, 420, 2048),
    }
    for name, (validation, test, steps, budget_s, every_s, eval_rows) in facts.items():
        scale = catalogue.find(name).scales["full"]
        target = scale.targets["folder"]
        assert (target.validation, target.test) == (validation, test)
        assert (scale.step_hint, scale.budget_s) == (steps, budget_s)
        assert (scale.eval_every_s, scale.eval_batch_size) == (every_s, eval_rows)
        assert scale.data["size"] == 224


@pytest.mark.parametrize(
    ("name", "validation", "test"),
    [
        ("imagenet_resnet_silu", 0.75445, 0.6323),
        ("imagenet_resnet_gelu", 0.76765, 0.6519),
        ("imagenet_resnet_large_bn_init", 0.76526, 0.6423),
        ("imagenet_vit_glu", 0.75738, 0.6359),
        ("imagenet_vit_post_ln", 0.75312, 0.6286),
        ("imagenet_vit_map", 0.77113, 0.6523),
    ],
)
def test_variants_have_the_published_targets(name, validation, test):
    for source in ("folder", "hub"):
        target = catalogue.find(name).scales["full"].targets[source]
        assert (target.validation, target.test) == (validation, test)


def start(name, load_small):
    definition = catalogue.find(name)
    data = load_small(definition, "mini")
    backend = backends.load("pytorch")
    bound = backend.workload(definition, definition.scales["mini"], "builtin", data)
    params, _ = bound.init_model_fn((1, 2))
    return bound, params, bound.to_neutral(params), data


@pytest.mark.parametrize(
    ("name", "last"), [("imagenet_resnet", 0), ("imagenet_resnet_large_bn_init", 8)]
)
def test_the_last_norm_of_a_block_starts_at_0_or_8(name, last, load_small):
    _, _, values, _ = start(name, load_small)
    for key, value in values.items():
        if key.endswith("scale"):
            expected = last if key.endswith("batch_norm_3/scale") else 1
            np.testing.assert_array_equal(value, np.full_like(value, expected))
    assert values["head/kernel"].std() == pytest.approx(0.01, rel=0.1)
    kernel = values["block_1/conv_2/kernel"]
    assert kernel.std() == pytest.approx((9 * kernel.shape[2]) ** -0.5, rel=0.1)


def test_the_head_of_the_transformer_starts_at_0(load_small):
    bound, params, values, data = start("imagenet_vit", load_small)
    assert not values["head/kernel"].any()
    inputs = {"inputs": torch.from_numpy(data.splits["train"]["inputs"][:2])}
    logits, _ = bound.model_fn(params, inputs, None, spec.ForwardPassMode.EVAL, None, False)
    assert not logits.any()
    D = values["pre_logits/kernel"].shape[0]
    assert values["pre_logits/kernel"].std() == pytest.approx(D**-0.5, rel=0.1)
    assert values["block_0/attention/query/kernel"].std() == pytest.approx(D**-0.5, rel=0.1)
    up = values["block_0/feed_forward/up/kernel"]
    assert up.std() == pytest.approx((2 / sum(up.shape)) ** 0.5, rel=0.1)


def test_positions_by_hand():
    """Two rows of three patches at width 8: wavelengths 2 pi and 10,000 times that."""
    positions_TD = sine_positions(2, 3, 8)
    for row in range(2):
        for column in range(3):
            x, y = ([n, n / 10_000] for n in (column, row))
            by_hand = [*map(math.sin, x), *map(math.cos, x), *map(math.sin, y), *map(math.cos, y)]
            np.testing.assert_allclose(positions_TD[3 * row + column], by_hand, atol=1e-7)
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions(2, 2, 6)


@pytest.mark.parametrize(("kind", "groups"), [("layer", 1), ("group", 4)])
def test_norms_over_channels_by_hand(kind, groups):
    """Far from 0, where a mean of squares would lose the variance."""
    rng = np.random.default_rng(0)
    values_NHWC = (1000 + rng.standard_normal((3, 4, 5, 8))).astype(np.float32)
    grouped = values_NHWC.astype(np.float64).reshape(3, 20, groups, -1)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    by_hand = centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + norms.EPSILON)
    by_hand = by_hand.reshape(values_NHWC.shape)
    assert norms.group_count(kind, 8) == groups

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return norm_jax(kind, "1", inputs, True)

    ours, variables = Normed().init_with_output(jax.random.PRNGKey(0), values_NHWC)
    assert set(variables["params"]) == {"norm_1"}
    np.testing.assert_allclose(ours, by_hand, atol=2e-3)
    theirs = norm_torch(kind, 8)(torch.from_numpy(values_NHWC).permute(0, 3, 1, 2))
    np.testing.assert_allclose(theirs.detach().permute(0, 2, 3, 1), by_hand, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "places"), [("imagenet_resnet", 1), ("imagenet_vit", None), ("imagenet_vit_map", None)]
)
def test_dropout_reaches_every_place_in_both_frameworks(name, places, load_small, monkeypatch):
    """After the positions, and in each block after attention, inside and after the feed-forward
    layer; inside that of the map head.
    """
    definition = catalogue.find(name)
    model = definition.scales["mini"].model
    if places is None:
        places = 1 + 3 * model["layers"] + name.endswith("map")
    rates = []
    usual = functional.dropout
    monkeypatch.setattr(
        functional,
        "dropout",
        lambda values, p=0.5, training=True: rates.append(p) or usual(values, p, training),
    )
    inputs = load_small(definition, "mini").splits["train"]["inputs"][:2]
    definition.build_model("torch", model).train()(torch.from_numpy(inputs), dropout_rate=0.3)
    assert rates == [0.3] * places
    rates.clear()
    monkeypatch.setattr(
        dropout_jax, "dropped", lambda module, values, rate, *_: rates.append(rate) or values
    )
    built = definition.build_model("jax", model)
    key = jax.random.PRNGKey(0)
    jax.eval_shape(lambda: built.init({"params": key, "dropout": key}, inputs, True, 0.3))
    assert rates == [0.3] * places


def test_generated_rows_are_what_the_models_take(load_mini):
    data: Data = load_mini("imagenet_vit")
    assert data.augmentation.mixup_alpha == 0.2
    assert data.augmentation.operations == 2
    assert data.splits["train"].fields["inputs"] == ((32, 32, 3), np.dtype(np.uint8))

"""Parameters' roles, layouts and first values, against the frameworks' own layers."""

import functools

import jax
import numpy as np
import pytest
import torch

from algoperf import backends
from algoperf.spec import ParameterType as Type
from algoperf.workload import Data, catalogue, parameters

RNG = np.random.default_rng(4)
TORCH_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("head/kernel", (128, 10), Type.WEIGHT),
        ("head/bias", (10,), Type.BIAS),
        ("stem/kernel", (3, 3, 3, 16), Type.CONV_WEIGHT),
        ("stage_0/conv_1/kernel", (3, 16, 16), Type.CONV_WEIGHT),
        ("stage_0/batch_norm_1/scale", (16,), Type.BATCH_NORM_SCALE),
        ("stage_0/batch_norm_1/bias", (16,), Type.BATCH_NORM_BIAS),
        ("block_0/norm_1/scale", (64,), Type.LAYER_NORM_SCALE),
        ("final_norm/bias", (64,), Type.LAYER_NORM_BIAS),
        ("token/embedding", (50257, 768), Type.EMBEDDING),
        ("block_0/attention/query/kernel", (64, 64), Type.ATTENTION_Q),
        ("block_0/attention/key/kernel", (64, 64), Type.ATTENTION_K),
        ("block_0/attention/value/kernel", (64, 64), Type.ATTENTION_V),
        ("block_0/attention/qkv/kernel", (64, 192), Type.ATTENTION_QKV),
        ("block_0/attention/key_value/kernel", (64, 128), Type.ATTENTION_KV),
        ("block_0/attention/attention_out/kernel", (64, 64), Type.ATTENTION_OUT),
        ("block_0/attention/qkv/bias", (192,), Type.ATTENTION_BIAS),
        ("block_0/attention/attention_out/bias", (64,), Type.ATTENTION_BIAS),
        ("block_0/up/kernel", (64, 256), Type.WEIGHT),
        ("bias", (4,), Type.BIAS),
    ],
)
def test_types_by_name(name, shape, expected):
    assert parameters.parameter_type(name, shape) is expected


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("a/kernel", (3, 5)),
        ("a/kernel", (4, 3, 5)),
        ("a/kernel", (2, 4, 3, 5)),
        ("a/embedding", (7, 3)),
        ("a/bias", (5,)),
        ("a_norm/scale", (5,)),
    ],
)
def test_layouts_are_each_others_inverse(name, shape):
    value = RNG.normal(size=shape).astype(np.float32)
    there = parameters.to_torch(name, value)
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(parameters.from_torch(name, there), value)
    if not name.endswith("kernel"):
        np.testing.assert_array_equal(there, value)
    else:
        assert there.shape == (shape[-1], shape[-2], *shape[:-2])


def test_a_dense_kernel_in_torchs_layout():
    kernel = RNG.normal(size=(3, 5)).astype(np.float32)
    inputs = RNG.normal(size=(7, 3)).astype(np.float32)
    layer = torch.nn.Linear(3, 5, bias=False)
    layer.weight.data = torch.from_numpy(parameters.to_torch("a/kernel", kernel))
    np.testing.assert_allclose(layer(torch.from_numpy(inputs)).detach(), inputs @ kernel, rtol=1e-5)


@pytest.mark.parametrize(
    ("dimensions", "layout", "layer"),
    [(1, ("NWC", "WIO", "NWC"), torch.nn.Conv1d), (2, ("NHWC", "HWIO", "NHWC"), torch.nn.Conv2d)],
)
def test_a_convolution_kernel_in_torchs_layout(dimensions, layout, layer):
    """Kernel 2x3 (a wrong order of height and width would not fit), 3 channels in, 5 out."""
    size, extent = (2, 3)[-dimensions:], (6, 7)[-dimensions:]
    kernel = RNG.normal(size=(*size, 3, 5)).astype(np.float32)
    inputs = RNG.normal(size=(2, *extent, 3)).astype(np.float32)
    ours = jax.lax.conv_general_dilated(
        inputs, kernel, (1,) * dimensions, "VALID", dimension_numbers=layout
    )
    module = layer(3, 5, size, bias=False)
    module.weight.data = torch.from_numpy(parameters.to_torch("a/kernel", kernel))
    theirs = module(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())).detach().numpy()
    np.testing.assert_allclose(np.moveaxis(np.asarray(ours), -1, 1), theirs, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_kernel_in_torchs_layout():
    """Of a window of 2 by 2 that strides by 2: each pixel becomes four, by the window as it is."""
    kernel = RNG.normal(size=(2, 2, 3, 5)).astype(np.float32)
    inputs = RNG.normal(size=(2, 6, 7, 3)).astype(np.float32)
    module = torch.nn.ConvTranspose2d(3, 5, 2, stride=2, bias=False)
    there = parameters.to_torch("transposed_0/kernel", kernel)
    assert there.flags.c_contiguous
    module.weight.data = torch.from_numpy(there)
    theirs = module(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())).detach().numpy()
    for i in range(2):
        for j in range(2):
            np.testing.assert_allclose(
                np.moveaxis(theirs, 1, -1)[:, i::2, j::2],
                inputs @ kernel[i, j],
                rtol=1e-4,
                atol=1e-5,
            )
    np.testing.assert_array_equal(parameters.from_torch("transposed_0/kernel", there), kernel)
    assert parameters.jax_shape("transposed_0/kernel", there.shape) == kernel.shape


def first(name, shape=(200, 300), std=0.5, seed=(1, 2)):
    return parameters.initial_value(name, shape, lambda: std, seed)


def test_first_values():
    for leaf in ("scale", "var"):
        np.testing.assert_array_equal(first(f"norm/{leaf}", (4,)), np.ones(4, np.float32))
    for leaf in ("bias", "mean"):
        np.testing.assert_array_equal(first(f"norm/{leaf}", (4,)), np.zeros(4, np.float32))
    drawn = first("a/kernel")
    assert drawn.dtype == first("norm/scale").dtype == np.float32
    # 60,000 draws: the mean's standard error is 0.002, the standard deviation's 0.0014.
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(0.5, abs=0.006)
    assert abs((drawn**4).mean() / drawn.var() ** 2 - 3) < 0.1  # a normal's kurtosis


def test_first_values_come_from_streams_of_their_own():
    one = first("a/kernel")
    np.testing.assert_array_equal(one, first("a/kernel"))
    np.testing.assert_array_equal(one * 2, first("a/kernel", std=1.0))
    for other in (
        first("b/kernel"),
        first("a/kernel", seed=(2, 1)),
        first("a/kernel", seed=(1, 3)),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_fan_in():
    assert parameters.fan_in((64, 128)) == 64
    assert parameters.fan_in((3, 5, 16, 32)) == 3 * 5 * 16


# Both models of both workloads, at mini


def few_rows(name):
    if name == "digits":
        inputs, model = np.zeros((4, 64), np.float32), {}
    else:
        inputs, model = np.ones((4, 16), np.int32), {"vocab_size": 2048, "pad_id": 0}
    return Data({"train": {"inputs": inputs, "targets": np.zeros(4, np.int32)}}, model)


@functools.cache
def bound(name, framework):
    definition = catalogue.find(name)
    backend = backends.load(framework)
    return backend, backend.workload(
        definition, definition.scales["mini"], "builtin", few_rows(name)
    )


def drawn_by(name, framework, seed=(5, 6)):
    backend, built = bound(name, framework)
    params, model_state = built.init_model_fn(backend.random_state(seed))
    assert model_state is None
    return built.to_neutral(params)


EXPECTED_STD = {
    "digits": {
        "hidden_0/kernel": (2 / 64) ** 0.5,
        "hidden_1/kernel": (2 / 128) ** 0.5,
        "head/kernel": (2 / 128) ** 0.5,
    },
    # GPT-2: 0.02; into the residual stream 0.02 / sqrt(2 x 2 layers)
    "ag_news": {
        "token/embedding": 0.02,
        "position/embedding": 0.02,
        "head/kernel": 0.02,
        **{
            f"block_{layer}/{module}/kernel": std
            for layer in (0, 1)
            for module, std in (
                ("attention/qkv", 0.02),
                ("attention/attention_out", 0.01),
                ("up", 0.02),
                ("down", 0.01),
            )
        },
    },
}


@pytest.mark.parametrize("name", sorted(EXPECTED_STD))
def test_both_frameworks_start_from_the_same_values(name):
    one, other = drawn_by(name, "jax"), drawn_by(name, "pytorch")
    assert set(one) == set(other)
    for each in one:
        np.testing.assert_array_equal(one[each], other[each], err_msg=each)
    again, elsewhere = drawn_by(name, "pytorch"), drawn_by(name, "jax", seed=(5, 7))
    for each in EXPECTED_STD[name]:
        np.testing.assert_array_equal(one[each], again[each], err_msg=each)
        assert not np.array_equal(one[each], elsewhere[each])


@pytest.mark.parametrize("name", sorted(EXPECTED_STD))
def test_standard_deviations_are_as_stated(name):
    values = drawn_by(name, "jax")
    random = {each for each, value in values.items() if value.std() > 0}
    assert random == set(EXPECTED_STD[name])
    for each, std in EXPECTED_STD[name].items():
        value = values[each]
        assert value.std() == pytest.approx(std, rel=4 / (2 * value.size) ** 0.5), each
    for each in set(values) - random:
        assert (values[each] == (1 if each.endswith("scale") else 0)).all(), each


@pytest.mark.parametrize("name", sorted(EXPECTED_STD))
def test_a_submission_sees_the_same_parameters_in_both_frameworks(name):
    jax_workload, torch_workload = (bound(name, framework)[1] for framework in ("jax", "pytorch"))
    ours, theirs = jax_workload.parameters, torch_workload.parameters
    assert set(ours) == set(theirs)
    for each in ours:
        assert (ours[each].type, ours[each].is_output) == (
            theirs[each].type,
            theirs[each].is_output,
        )
        dense = each.endswith("kernel")
        assert theirs[each].shape == (ours[each].shape[::-1] if dense else ours[each].shape)
        assert theirs[each].tensor.shape == theirs[each].shape
        assert ours[each].tensor is None
    outputs = {each for each in ours if ours[each].is_output}
    assert outputs == {each for each in ours if each.startswith("head/")}
    tree = jax_workload.model_params_types
    for each in ours:
        node = functools.reduce(lambda node, key: node[key], each.split("/"), tree)
        assert node is ours[each].type
    types = torch_workload.model_params_types
    for each, parameter in theirs.items():
        *path, leaf = each.split("/")
        assert types[".".join([*path, TORCH_NAMES[leaf]])] is parameter.type

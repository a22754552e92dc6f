"""Products and a pooling of our own in JAX, beside flax's, XLA's and PyTorch's."""

import numpy as np
import pytest


@pytest.mark.parametrize(("height", "width", "window", "stride"), [(9, 8, 3, 2), (7, 5, 5, 3)])
def test_the_largest_of_a_window_and_its_gradient_are_pytorch_s(
    height: int, width: int, window: int, stride: int
) -> None:
    """Of few different values, so that many are equal; each output has a weight of its own."""
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    from workloads.parts.pooling_jax import max_pool

    images_NHWC = np.random.default_rng(0).integers(-3, 1, (2, height, width, 3)).astype("f")
    images = torch.tensor(images_NHWC.transpose(0, 3, 1, 2)).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(images, window, stride, window // 2)
    weights = torch.arange(1.0, pooled.numel() + 1).reshape(pooled.shape)
    (pooled * weights).sum().backward()
    weights_NHWC = weights.numpy().transpose(0, 2, 3, 1)

    ours_NHWC = np.asarray(max_pool(jax.numpy.asarray(images_NHWC), window, stride))
    gradient_NHWC = jax.grad(
        lambda each_NHWC: (max_pool(each_NHWC, window, stride) * weights_NHWC).sum()
    )(jax.numpy.asarray(images_NHWC))
    assert np.array_equal(ours_NHWC, pooled.detach().numpy().transpose(0, 2, 3, 1))
    assert np.array_equal(gradient_NHWC, images.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
def test_a_window_of_one_pixel_is_xla_s_convolution(strides: tuple[int, int]) -> None:
    jax = pytest.importorskip("jax")
    from workloads.parts.products_jax import pointwise

    rng = np.random.default_rng(0)
    images_NHWC = rng.standard_normal((2, 7, 6, 5), np.float32)
    kernel_11CD = rng.standard_normal((1, 1, 5, 4), np.float32)
    expected_NHWC = jax.lax.conv_general_dilated(
        images_NHWC, kernel_11CD, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    actual_NHWC = pointwise(images_NHWC, kernel_11CD, strides, "VALID", precision=None)
    assert np.allclose(actual_NHWC, expected_NHWC, rtol=1e-5, atol=1e-5)


def test_layers_are_flax_s_on_any_number_of_axes() -> None:
    jax = pytest.importorskip("jax")
    from flax import linen as nn

    from workloads.parts.products_jax import Dense, Embed

    values = np.random.default_rng(0).standard_normal((2, 3, 4, 5), np.float32)
    for ours, theirs, method in (
        (Dense(7), nn.Dense(7), "__call__"),
        (Embed(7, 5), nn.Embed(7, 5), "attend"),
    ):
        parameters = theirs.init(jax.random.key(0), values, method=method)
        expected = theirs.apply(parameters, values, method=method)
        assert expected.shape == (2, 3, 4, 7)
        for axes in range(4):
            rows, some = expected[(0,) * axes], values[(0,) * axes]
            actual = ours.apply(parameters, some, method=method)
            assert np.allclose(actual, rows, rtol=1e-5, atol=1e-6)

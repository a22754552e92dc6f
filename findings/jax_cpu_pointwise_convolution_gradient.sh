#!/usr/bin/env bash
# XLA's CPU compiler has no matrix product for the gradient of a convolution with a window of one pixel.
#
# Version: jax and jaxlib 0.10.2 from the package index, Python 3.11, one thread.
# Seen: for images (4, 56, 56, 64) and a kernel (1, 1, 64, 256) the convolution itself and the equal product of its pixels take
#   about the same processor time (5 ms and 4 ms), but with the gradient by images and kernel it is 83 ms as a convolution and
#   16 ms as a product. The optimised program still has convolutions for both gradients. The values are equal to rounding.
# Why it matters here: two of three layers of a ResNet-50's blocks are such convolutions. As products, and with another form of its
#   pooling, a training step takes 45 % of the processor time that it takes with flax's layers.
# Comes from: the rule for the kernel's gradient makes a convolution whose window is the image (here 56 x 56 pixels), with batch and
#   channels exchanged; the CPU compiler lowers it to Eigen's convolution as any other.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy

XLA_FLAGS="--xla_cpu_multi_thread_eigen=false" JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import re
import sys
import time

import jax
import numpy as np

print("jax", jax.__version__)
rng = np.random.default_rng(0)
images = jax.device_put(rng.standard_normal((4, 56, 56, 64), np.float32))
kernel = jax.device_put(0.1 * rng.standard_normal((1, 1, 64, 256), np.float32))


def convolution(images, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=layout)


def product(images, kernel):
    return (images.reshape(-1, images.shape[-1]) @ kernel[0, 0]).reshape(*images.shape[:-1], -1)


def least_ms(function):
    jax.block_until_ready(function(images, kernel))
    times = []
    for _ in range(7):
        started = time.process_time()
        jax.block_until_ready(function(images, kernel))
        times.append(time.process_time() - started)
    return 1e3 * min(times)


gradients, ms = {}, {}
for layer in (convolution, product):
    name = layer.__name__
    gradient = jax.jit(jax.grad(lambda *given: (layer(*given) ** 2).sum(), argnums=(0, 1)))
    program = gradient.lower(images, kernel).compile().as_text()
    count = len(re.findall(r"\bconvolution\(", program))
    gradients[name] = [np.asarray(each) for each in gradient(images, kernel)]
    ms[name] = least_ms(gradient)
    print(f"{name}: {least_ms(jax.jit(layer)):.0f} ms, with its gradient {ms[name]:.0f} ms of processor time,"
          f" {count} convolutions in the program")
for ours, other in zip(gradients["convolution"], gradients["product"], strict=True):
    assert np.abs(ours - other).max() < 1e-4 * np.abs(other).max()
if ms["convolution"] < 2 * ms["product"]:
    sys.exit("changed: expected the convolution's gradient to take at least twice the product's time")
PYTHON

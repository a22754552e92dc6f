#!/usr/bin/env bash
# The kernel's gradient of a linear layer takes XLA on the CPU longer for (B, T, C) than for (B T, C), up to three times.
#
# Version: jax and jaxlib 0.10.2 from the package index, Python 3.11, one thread.
# Seen: for values (8, 128, 256) and a kernel (256, 8000) the gradient by the kernel takes 152 ms of processor time, and 38 ms where
#   the values and the output's gradient are reshaped to (1024, 256) and (1024, 8000), which moves nothing. The first program copies
#   the output's gradient into another order, (8000, 8, 128); the second has the product alone. Values are equal to rounding.
#   Where the output has fewer channels than the input the difference is small (7.4 and 6.9 ms for 512 to 128).
# Why it matters here: it is what flax's Dense and Embed.attend do for a batch of sequences. With products of two axes a training
#   step of a small encoder-decoder takes 92 % of the processor time.
# Comes from: a sum over two axes of the operands is brought to a product of matrices by transposing an operand, although both axes
#   lie next to each other in memory in both operands.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy

XLA_FLAGS="--xla_cpu_multi_thread_eigen=false" JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import jax
import numpy as np

print("jax", jax.__version__)
rng = np.random.default_rng(0)
values = jax.device_put(rng.standard_normal((8, 128, 256), np.float32))
kernel = jax.device_put(rng.standard_normal((256, 8000), np.float32))
given = jax.device_put(rng.standard_normal((8, 128, 8000), np.float32))


def three_axes(kernel):
    return values @ kernel


def two_axes(kernel):
    return (values.reshape(-1, 256) @ kernel).reshape(8, 128, 8000)


gradients, ms = {}, {}
for layer in (three_axes, two_axes):
    gradient = jax.jit(lambda kernel, given: jax.vjp(layer, kernel)[1](given)[0])
    program = gradient.lower(kernel, given).compile().as_text()
    gradients[layer.__name__] = np.asarray(gradient(kernel, given))
    times = []
    for _ in range(7):
        started = time.process_time()
        gradient(kernel, given).block_until_ready()
        times.append(time.process_time() - started)
    ms[layer.__name__] = 1e3 * min(times)
    moves = "copies" if "f32[8000,8,128]" in program else "does not copy"
    print(f"{layer.__name__}: {ms[layer.__name__]:.0f} ms of processor time; the program {moves} the output's gradient")
ours, other = gradients.values()
assert np.abs(ours - other).max() < 1e-4 * np.abs(other).max()
if ms["three_axes"] < 1.5 * ms["two_axes"]:
    sys.exit("changed: expected the gradient of three axes to take at least half as long again")
PYTHON

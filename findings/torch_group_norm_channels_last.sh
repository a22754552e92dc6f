#!/usr/bin/env bash
# PyTorch's group norm on the CPU loses the variance of an input in channels_last memory format.
#
# Version: torch 2.13.0 from the package index, Python 3.11.
# Seen: of 1000 + standard normal values, (3, 8, 4, 5), in four groups, the outputs differ from the exact ones by 1e-4 where
#   the memory is contiguous, and by 0.56 (of outputs around 1) where it is channels_last. Nothing is raised or warned of.
#   nn.BatchNorm2d and layer_norm of the same values are right to 1e-4.
# Why it matters here: channels_last is what a convolution returns for an input that was (N, H, W, C), and group norm is a
#   variant of a convolutional workload; both frameworks have to compute the same function.
# Comes from: the CPU kernels are in aten/src/ATen/native/cpu/group_norm_kernel.cpp. An error of this size is that of the mean
#   of squares less the squared mean in float32 (1e6 with 24 bits, so 0.06 a value, where the variance is 1).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

print("torch", torch.__version__)
torch.manual_seed(0)
values = 1000 + torch.randn(3, 8, 4, 5)
grouped = values.double().reshape(3, 4, -1)
mean, variance = grouped.mean(-1, keepdim=True), grouped.var(-1, unbiased=False, keepdim=True)
exact = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(values.shape)
norm = torch.nn.GroupNorm(4, 8)
errors = {}
for name in ("contiguous_format", "channels_last"):
    given = values.contiguous(memory_format=getattr(torch, name))
    errors[name] = float((norm(given) - exact).abs().max().detach())
print("largest error:", errors)
if errors["contiguous_format"] > 1e-3 or errors["channels_last"] < 0.1:
    sys.exit("changed: expected an error of 0.56 in channels_last alone")
PYTHON

"""The model of wmt in PyTorch: an encoder-decoder (see `workloads.parts.bart_torch`)."""

from workloads.parts.bart_torch import build as build

"""The model of SAMSum in PyTorch: BART (see `workloads.parts.bart_torch`)."""

from workloads.parts.bart_torch import build as build

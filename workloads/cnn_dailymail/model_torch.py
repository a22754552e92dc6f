"""BART in PyTorch (see `workloads.bart_torch`)."""

from workloads.bart_torch import build as build

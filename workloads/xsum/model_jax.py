"""BART in flax (see `workloads.bart_jax`)."""

from workloads.bart_jax import build as build

"""The model of SAMSum in flax: BART (see `workloads.parts.bart_jax`)."""

from workloads.parts.bart_jax import build as build

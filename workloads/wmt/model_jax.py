"""The model of wmt in flax: an encoder-decoder (see `workloads.parts.bart_jax`)."""

from workloads.parts.bart_jax import build as build

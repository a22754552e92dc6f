"""The model of CNN/DailyMail in flax: BART (see `workloads.parts.bart_jax`)."""

from workloads.parts.bart_jax import build as build

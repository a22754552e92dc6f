"""The language model of AlgoPerf's ninth workload in flax."""

from workloads.parts.language_model_jax import LanguageModel

build = LanguageModel

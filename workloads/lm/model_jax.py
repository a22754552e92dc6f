"""GPT-2 (Radford et al. 2019) as a language model in flax."""

from workloads.parts.language_model_jax import LanguageModel

build = LanguageModel

"""GPT-2 (Radford et al. 2019) as a language model in PyTorch."""

from workloads.parts.language_model_torch import LanguageModel

build = LanguageModel

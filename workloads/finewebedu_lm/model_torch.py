"""The language model of AlgoPerf's ninth workload in PyTorch."""

from workloads.parts.language_model_torch import LanguageModel

build = LanguageModel

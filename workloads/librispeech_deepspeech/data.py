"""The rows of this workload, which are those of both LibriSpeech workloads."""

from workloads.parts.speech import load

__all__ = ["load"]

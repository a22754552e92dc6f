"""What the facts of both LibriSpeech workloads share."""

import math
from collections.abc import Mapping
from typing import Any

from algoperf.workload import Target
from algoperf.workload.parameters import fan_in
from workloads.parts import log_mel, targets

MASKS = {"frequency_masks": 2, "time_masks": 10, "most_bins": 27, "most_time": 0.05}
RATE = 16_000
MOST_LABELS = 256
# Utterances of up to 5, 10, 15 and 20 s.
FULL_BUCKETS = tuple((seconds * RATE, MOST_LABELS) for seconds in (5, 10, 15, 20))
FULL_DATA: dict[str, Any] = {
    "kind": "unigrams",
    "vocabulary": 1024,
    "bins": 80,
    "rate": RATE,
    **MASKS,
}
FULL_MODEL: dict[str, Any] = {
    "mean": log_mel.LIBRISPEECH_MEAN,
    "std": log_mel.LIBRISPEECH_STD,
    "vocabulary": 1024,
    "batch_norm_momentum": 0.001,
}
MINI_BINS = 40
MINI_MODEL: dict[str, Any] = {
    "mean": (-4.5,) * MINI_BINS,  # of the built-in speech, over all bins
    "std": (2.8,) * MINI_BINS,
    "vocabulary": 64,
    "batch_norm_momentum": 0.1,
}
MINI_DATA: dict[str, Any] = {
    "kind": "characters",
    "vocabulary": 64,
    "bins": MINI_BINS,
    "frequency_masks": 2,
    "time_masks": 2,
    "most_bins": 6,
    "most_time": 0.05,
}
# Rates as published (tests/benchmarks/speech_baselines.py).
MINI_BASELINES: Mapping[str, float] = {"the most frequent transcript": 0.577}


def mini(validation: float, reached: str) -> dict[str, Target]:
    """Return the target of built-in rows, a WER as published; see `targets.mini`."""
    target = targets.mini(validation, reached, ceiling=0.0, baselines=MINI_BASELINES)
    return {"builtin": target}


def initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    """Xavier's rule (Glorot and Bengio 2010), of an LSTM's kernels LeCun's (1998)."""
    if "lstm/" in name:
        return math.sqrt(1 / fan_in(shape))
    window = math.prod(shape[:-2])
    return math.sqrt(2 / (fan_in(shape) + window * shape[-1]))

"""The units of the suites over all workloads, and a little data for each of them without a
download.

A new workload needs nothing here. Its rows come from its mini scale; every other scale gets the
same rows under its own settings (see `small_data`), so no scale downloads anything. What a scale's
rows must fulfil for that: inputs of mini are legal inputs of the other scales (a sequence no longer
than theirs), and a model setting that only the data knows bears the name of the data setting that
fixes it, or does not depend on the scale.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from algoperf import backends, workload
from algoperf.data.loading import load_data
from algoperf.data.rows import first
from algoperf.experiments.check.gates import perturbed
from algoperf.workload import Data, WorkloadDefinition, catalogue
from algoperf.workload.rows import in_memory
from workloads.parts.augment import ImageAugmentation

TRAIN_ROWS, OTHER_ROWS = 256, 64
Load = Callable[[WorkloadDefinition, str], Data]


LOADED: dict[str, Data] = {}


def mini_data(definition: WorkloadDefinition) -> Data:
    """The rows of mini, which the variants whose data is the same share."""
    scale = definition.scales["mini"]
    key = str((definition.package, scale.data, scale.row_changes))
    if key not in LOADED:
        LOADED[key] = load_data(definition, scale, "builtin")
    return LOADED[key]


def small_data(definition: WorkloadDefinition, scale_name: str) -> Data:
    """Return a few of mini's rows, fit for the scale's model.

    Where the scale has a larger vocabulary, token ids are spread over it: id x (its size // mini's
    size), so that padding stays padding. Images are enlarged to the scale's size.
    """
    mini, scale = mini_data(definition), definition.scales[scale_name]
    settings = {name: scale.data.get(name, value) for name, value in mini.model.items()}
    stride = settings.get("vocab_size", 1) // mini.model.get("vocab_size", 1)
    if definition.generates_text:  # its special tokens have the same ids at every scale
        stride = 1
    if "pad_id" in settings:
        settings["pad_id"] *= stride
    train_rows = max(TRAIN_ROWS, definition.scales["mini"].batch_size)
    rows = {"train": train_rows, "validation": OTHER_ROWS, "test": OTHER_ROWS}
    splits = {
        split: first(every, rows[split])
        if stride == 1
        else {
            key: _spread(key, array, stride)
            for key, array in in_memory(first(every, rows[split]), "other ids").items()
        }
        for split, every in mini.splits.items()
    }
    augmentation: Any = mini.augmentation
    if isinstance(augmentation, ImageAugmentation) and scale.data["size"] > augmentation.size:
        factor = scale.data["size"] // augmentation.size
        splits = {split: _enlarged(rows, factor) for split, rows in splits.items()}
        classes = scale.model["classes"]
        augmentation = dataclasses.replace(augmentation, size=scale.data["size"], classes=classes)
    return Data(splits, model=settings, text=mini.text, augmentation=augmentation)


def _enlarged(rows: Any, factor: int) -> dict[str, np.ndarray]:
    return {**rows, "inputs": rows["inputs"].repeat(factor, 1).repeat(factor, 2)}


def _spread(key: str, array: np.ndarray, stride: int) -> np.ndarray:
    return array * np.array(stride, array.dtype) if key == "inputs" else array


TINY = {
    "ag_news": {"positions": 24, "width": 16, "layers": 1, "heads": 2, "classes": 4},
    "xsum": {
        "positions": 16,
        "width": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "heads": 2,
        "feed_forward": 32,
    },
}
TINY_VOCABULARY = 40


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A workload of one framework at a size of no weight, a few rows, and its model's settings."""

    backend: Any
    bound: Any
    rows: dict[str, np.ndarray]
    model: dict[str, Any]


def tiny(framework: str, name: str, technique: str | None, *, pads: bool = True) -> Tiny:
    """ag_news or xsum under a technique (see `algoperf.workload.trainable`)."""
    definition, rng = catalogue.find(name), np.random.default_rng(0)
    scale = definition.scales["mini"]
    scale = dataclasses.replace(scale, model={**scale.model, **TINY[name]}, trainable=technique)
    inputs_BT = rng.integers(4, TINY_VOCABULARY, (4, 8), np.int32)
    own = {"vocab_size": TINY_VOCABULARY}
    if definition.generates_text:
        targets_BT = rng.integers(4, TINY_VOCABULARY, (4, 6), np.int32)
        rows = {"targets": targets_BT, "weights": np.ones((4, 6), np.float32)}
        pad_id = 1
    else:
        rows = {"targets": np.arange(4, dtype=np.int32)}
        own["pad_id"] = pad_id = 0
    if pads:
        inputs_BT[1, 3:] = inputs_BT[2, 6:] = pad_id
    rows["inputs"] = inputs_BT
    backend = backends.load(framework)
    data = Data(dict.fromkeys(workload.SPLITS, rows), model=own)
    bound = backend.workload(definition, scale, "builtin", data)
    return Tiny(backend, bound, rows, {**scale.model, **own})


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Tiny]:
    return tiny


@pytest.fixture(scope="session")
def load_small() -> Load:
    return small_data


@pytest.fixture(scope="session")
def load_mini() -> Callable[[str], Data]:
    return lambda name: mini_data(catalogue.find(name))


@pytest.fixture(scope="session")
def make_values() -> Callable[..., dict[str, np.ndarray]]:
    return perturbed


VALIDATION_SEED = 2**200 + 3  # any


@pytest.fixture(scope="session")
def load_secret() -> Callable[[str], Data]:
    """The rows of a workload's mini scale of which a secret draws validation and test."""

    @functools.cache
    def load(name: str) -> Data:
        definition = catalogue.find(name)
        return load_data(definition, definition.scales["mini"], "builtin", VALIDATION_SEED)

    return load

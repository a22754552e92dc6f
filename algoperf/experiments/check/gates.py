"""What the gates of a workload share: how one fails, its rows, and parameters to ask with."""

import importlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from algoperf.data.rows import first
from algoperf.workload import Data

MODULES = {"jax": "gates_jax", "pytorch": "gates_torch"}
TRAIN_ROWS, OTHER_ROWS = 256, 64
Values = dict[str, np.ndarray]


class GateError(AssertionError):
    """A workload does not pass; one line says why."""


class NotApplicableError(AssertionError):
    """A gate asks nothing of such a workload; one line says why."""


def expect(condition: object, problem: str) -> None:
    """Raise GateError with the problem unless the condition holds."""
    if not condition:
        raise GateError(problem)


def expect_equal(values: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Raise GateError unless two arrays are the same bit for bit, NaN for NaN."""
    expect(values.shape == expected.shape, f"{what}: shape {values.shape}, not {expected.shape}")
    same = values.dtype == expected.dtype and np.array_equal(values, expected, equal_nan=True)
    expect(same, f"{what}: the values differ")


def expect_close(
    values: np.ndarray, expected: np.ndarray, what: str, *, rtol: float, atol: float = 0.0
) -> None:
    """Raise GateError unless |values - expected| <= atol + rtol |expected| everywhere."""
    expect(values.shape == expected.shape, f"{what}: shape {values.shape}, not {expected.shape}")
    excess = np.abs(values - expected) - (atol + rtol * np.abs(expected))
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    close = bool(np.all(excess <= 0))
    expect(close, f"{what}: {values[worst]:.7g} where it should be {expected[worst]:.7g}")


def framework_module(framework: str) -> Any:
    """Return `gates_jax` or `gates_torch`."""
    return importlib.import_module(f"algoperf.experiments.check.{MODULES[framework]}")


def first_rows(data: Data) -> Data:
    """Return data with the first rows of each split, as many as the gates use."""
    counts = {"train": TRAIN_ROWS, "validation": OTHER_ROWS, "test": OTHER_ROWS}
    splits = {split: first(rows, counts[split]) for split, rows in data.splits.items()}
    return data.with_splits(splits)


def perturbed(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Values:
    """Return random parameters in JAX's layout in which no two values are alike: biases are not 0,
    norm scales not 1.
    """
    values: Values = {}
    for name, shape in shapes.items():
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        noise = generator.standard_normal(shape, np.float32)
        if name.endswith(("scale", "var")):
            values[name] = 1 + 0.2 * np.tanh(noise)
        elif name.endswith("kernel"):
            values[name] = noise / np.float32(np.prod(shape[:-1])) ** 0.5
        elif name.endswith("embedding"):
            values[name] = (
                0.02 * noise
            )  # small, as a transformer's are, so that a norm's epsilon shows
        else:
            values[name] = 0.2 * noise
    return values


def values_of(bound: Any, seed: int = 0) -> Values:
    """Return perturbed values of all parameters of a workload, and of batch norm's statistics."""
    return perturbed({**bound.shapes, **bound.statistic_shapes}, seed)


def logits_of(outputs: Any) -> np.ndarray:
    """Return the logits of a model's outputs, which may be a pair of them and their paddings."""
    logits: np.ndarray = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits


def leaves(tree: Any, is_leaf: type) -> dict[str, Any]:
    """Return the leaves of nested dicts by their paths; a path's parts are joined by '/'."""
    if isinstance(tree, is_leaf):
        return {"": tree}
    expect(isinstance(tree, dict), f"a {type(tree).__name__} where a dict is expected")
    flat = {}
    for key, child in tree.items():
        for path, leaf in leaves(child, is_leaf).items():
            flat[f"{key}/{path}".rstrip("/")] = leaf
    return flat

"""The digits that ship inside scikit-learn (E. Alpaydin, C. Kaynak, UCI Optical Recognition of
Handwritten Digits).
"""

import importlib.util
from pathlib import Path

import numpy as np

from algoperf.workload import Data


def load(source: str, validation_rows: int, test_rows: int, seed: int) -> Data:
    """Return the built-in rows: pixels scaled to [0, 1], float32 (rows, 64), and labels 0-9, split
    by a seeded shuffle.
    """
    images, labels = _read()
    order = np.random.default_rng(seed).permutation(len(labels))
    bounds = np.cumsum([0, len(labels) - validation_rows - test_rows, validation_rows, test_rows])
    splits = {}
    for split, start, end in zip(("train", "validation", "test"), bounds, bounds[1:], strict=False):
        rows = order[start:end]
        splits[split] = {
            "inputs": (images[rows] / 16).astype(np.float32),
            "targets": labels[rows].astype(np.int32),
        }
    return Data(splits)


def _read() -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) from scikit-learn's file; `sklearn.datasets` would load pandas and take a
    second.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).with_name("datasets") / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",")  # 8x8 pixels from 0 to 16, and the label
    return rows[:, :-1], rows[:, -1].astype(int)

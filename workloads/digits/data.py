"""The rows of the digits workload, which ship inside scikit-learn.

Their source is E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits.
"""

import importlib.util
from pathlib import Path

import numpy as np

from algoperf.workload import Data


def load(source: str, validation_rows: int, test_rows: int, seed: int) -> Data:
    """Return the digits, split by a seeded shuffle.

    Args:
        source: 'builtin', the only source.
        validation_rows: The number of rows of the validation split.
        test_rows: The number of rows of the test split; the others are for training.
        seed: The seed of the shuffle.

    Returns:
        For each split, 'inputs', float32 (rows, 64), pixels scaled to [0, 1], and 'targets', int32
        (rows,), labels from 0 to 9.
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
    """Return (images, labels) from the file inside scikit-learn.

    The function does not call `sklearn.datasets`, which would load pandas and take a second.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).with_name("datasets") / "data" / "digits.csv.gz"
    # A row holds 8x8 pixels from 0 to 16, and the label.
    rows = np.loadtxt(path, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(int)

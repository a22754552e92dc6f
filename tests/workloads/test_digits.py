"""The digits: scikit-learn's 1,797 images, each in one split."""

import numpy as np
from sklearn.datasets import load_digits

from algoperf.data.loading import load_data
from algoperf.workload import catalogue

SIZES = {"train": 1000, "validation": 500, "test": 297}


def test_every_image_is_in_one_split(load_mini) -> None:
    splits = load_mini("digits").splits
    assert {split: len(arrays["targets"]) for split, arrays in splits.items()} == SIZES
    rows = [
        (*(pixels * 16).astype(int), label)
        for arrays in splits.values()
        for pixels, label in zip(arrays["inputs"], arrays["targets"], strict=True)
    ]
    images, labels = load_digits(return_X_y=True)
    expected = [(*pixels.astype(int), label) for pixels, label in zip(images, labels, strict=True)]
    assert len(rows) == 1797
    assert (
        len(set(rows)) == len(set(expected)) == 1797
    )  # no image occurs twice, so the splits are disjoint
    assert sorted(rows) == sorted(expected)


def test_pixels_are_scaled_and_labels_are_digits(load_mini) -> None:
    for arrays in load_mini("digits").splits.values():
        inputs, targets = arrays["inputs"], arrays["targets"]
        assert inputs.dtype == np.float32
        assert inputs.shape == (len(targets), 64)
        assert (inputs.min(), inputs.max()) == (0.0, 1.0)
        assert targets.dtype == np.int32
        assert set(targets) == set(range(10))


def test_the_split_is_seeded(load_mini) -> None:
    definition = catalogue.find("digits")
    again = load_data(definition, definition.scales["mini"], "builtin")
    assert again.fingerprint == load_mini("digits").fingerprint
    labels = load_digits(return_X_y=True)[1]
    assert (
        again.splits["train"]["targets"] != labels[:1000]
    ).any()  # shuffled: the set is ordered by writer

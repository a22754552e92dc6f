"""The generated images: the same bytes everywhere, of honest difficulty."""

import hashlib

import numpy as np
import pytest

from workloads.parts import textured_shapes
from workloads.parts.textured_shapes import BACKGROUNDS, CLASSES

ROWS, SIZE = 600, 32


@pytest.fixture(scope="module")
def splits():
    return {
        split: textured_shapes.generate(split, ROWS, SIZE, 0)
        for split in ("train", "validation", "test")
    }


def test_the_bytes_are_the_same_on_every_machine(splits):
    digest = hashlib.sha256()
    for arrays in splits.values():
        digest.update(arrays["inputs"].tobytes())
        digest.update(arrays["targets"].tobytes())
    assert digest.hexdigest()[:16] == "665c4bc734177f3d"


def test_splits_are_different_images_and_fewer_rows_the_first(splits):
    images = [image.tobytes() for arrays in splits.values() for image in arrays["inputs"]]
    assert len(set(images)) == 3 * ROWS
    few = textured_shapes.generate("train", 20, SIZE, 0)
    for name, array in few.items():
        np.testing.assert_array_equal(array, splits["train"][name][:20])
    other = textured_shapes.generate("train", 20, SIZE, 1)
    assert (other["inputs"] != few["inputs"]).any(axis=(1, 2, 3)).all()


def test_classes_are_alike_in_number(splits):
    counts = np.bincount(splits["train"]["targets"], minlength=CLASSES)
    assert len(counts) == CLASSES == 12
    assert counts.min() > ROWS / CLASSES / 2
    assert counts.max() < ROWS / CLASSES * 2


def test_every_texture_covers_half_of_an_object():
    """Else a count of colours would tell them apart."""
    generator = np.random.default_rng(0)
    line = (np.arange(64, dtype=np.float32) + np.float32(0.5)) / 32 - 1
    x_NSS = np.broadcast_to(line, (300, 64, 64))
    y_NSS = np.broadcast_to(line[:, None], (300, 64, 64))
    for texture in range(3):
        pattern = textured_shapes._pattern(np.full(300, texture), x_NSS, y_NSS, generator)
        assert pattern.mean() == pytest.approx(0.5, abs=0.02)


def test_a_class_lacks_one_background_in_training_alone(monkeypatch):
    """Of what is drawn, the background is seen where the pattern of it is asked for."""
    asked = []
    monkeypatch.setattr(
        textured_shapes,
        "_pattern",
        lambda texture_N, x_NSS, y_NSS, generator: asked.append(texture_N) or x_NSS > 0,
    )
    plain = textured_shapes.Difficulty(label_noise=0.0)
    for split in ("train", "validation"):
        targets = textured_shapes.generate(split, 512 * 4, SIZE, 0, plain)["targets"]
        backgrounds = np.concatenate(asked[1::2])
        asked.clear()
        held_out = backgrounds == targets % BACKGROUNDS
        if split == "train":
            assert not held_out.any()
        else:
            assert held_out.mean() == pytest.approx(1 / BACKGROUNDS, abs=0.04)
        assert set(backgrounds) == set(range(BACKGROUNDS))


def test_the_share_of_wrong_labels_is_what_no_model_can_know():
    clean = textured_shapes.generate(
        "validation", 4000, 8, 0, textured_shapes.Difficulty(label_noise=0.0)
    )
    noisy = textured_shapes.generate("validation", 4000, 8, 0)
    np.testing.assert_array_equal(clean["inputs"], noisy["inputs"])
    wrong = (clean["targets"] != noisy["targets"]).mean()
    assert wrong == pytest.approx(0.05, abs=0.012)

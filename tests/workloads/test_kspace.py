"""From k-space to rows: against the definition of the transform, counts, and numbers by hand."""

import numpy as np
import pytest

from algoperf.errors import UserError
from workloads.parts import kspace
from workloads.parts.kspace import Sampling

RNG = np.random.default_rng(11)


def by_definition(kspace_HW):
    """The sum over centred frequencies, at centred positions, as the transform is written down."""
    factors = []
    for size in kspace_HW.shape:
        centred = np.arange(size) - size // 2
        factors.append(np.exp(2j * np.pi * np.outer(centred, centred) / size) / size**0.5)
    return factors[0] @ kspace_HW @ factors[1].T


@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (7, 9)])
def test_the_transform_is_centred_and_orthonormal(shape):
    values = (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)
    image = kspace.image(values)
    assert image.dtype == np.complex64
    np.testing.assert_allclose(image, by_definition(values), atol=1e-6)
    np.testing.assert_allclose(kspace.kspace(image), values, atol=1e-5)
    assert np.linalg.norm(image) == pytest.approx(np.linalg.norm(values), rel=1e-6)


def test_the_middle_is_cropped():
    image = np.arange(48).reshape(6, 8)
    np.testing.assert_array_equal(kspace.cropped(image, 4), image[1:5, 2:6])
    np.testing.assert_array_equal(kspace.cropped(image, 3), image[1:4, 2:5])
    np.testing.assert_array_equal(kspace.cropped(image, 6), image[:, 1:7])


@pytest.mark.parametrize(
    ("columns", "acceleration", "share", "centre"),
    [
        (368, 4, 0.08, range(170, 199)),
        (372, 8, 0.04, range(179, 194)),
        (72, 4, 0.08, range(33, 39)),
    ],
)
def test_a_mask_keeps_the_centre_and_others_at_random(columns, acceleration, share, centre):
    sampling = Sampling((acceleration,), (share,))
    masks = np.array([sampling.mask(columns, np.random.default_rng(seed)) for seed in range(400)])
    always = np.flatnonzero(masks.all(0))
    assert always.tolist() == list(centre)
    kept = masks.sum(1)
    assert kept.std() > 1
    assert kept.mean() == pytest.approx(columns / acceleration, abs=5 * kept.std() / 20)


def test_a_centre_of_all_columns_keeps_them_all():
    for acceleration, share in ((1, 1), (1.01, 0.99)):
        mask = Sampling((acceleration,), (share,)).mask(20, np.random.default_rng(0))
        assert mask.all()


def test_several_pairs_are_drawn_alike_often():
    sampling = Sampling((4, 8), (0.08, 0.04))
    masks = [sampling.mask(368, np.random.default_rng(seed)) for seed in range(400)]
    fast = sum(not mask[170:199].all() for mask in masks)
    assert 150 < fast < 250


@pytest.mark.parametrize(
    ("accelerations", "shares"),
    [((), ()), ((4,), ()), ((4, 8), (0.08,)), ((4,), (0.3,)), ((0.5,), (0.08,)), ((4,), (0.0,))],
)
def test_what_masks_cannot_be(accelerations, shares):
    with pytest.raises(UserError, match="0 < centre fraction <= 1 / acceleration <= 1"):
        Sampling(accelerations, shares)


def test_a_row_is_normalised_by_its_own_undersampled_image():
    image = RNG.random((12, 10)) * np.exp(1j * RNG.random((12, 10)))
    image[5, 5] = 40  # beyond six standard deviations
    values = kspace.kspace(image).astype(np.complex64)
    target = np.abs(image[2:10, 1:9]).astype(np.float32)
    kept = np.array([0, 1, 0, 0, 1, 1, 1, 0, 1, 0], bool)
    row = kspace.row(values, target, 40.0, kept)
    partial = np.abs(by_definition(values * kept))[2:10, 1:9]
    assert row["mean"] == pytest.approx(partial.mean(), rel=1e-5)
    assert row["std"] == pytest.approx(partial.std(), rel=1e-5)
    assert row["volume_max"] == 40
    for name, pixels in (("inputs", partial), ("targets", target)):
        expected = np.clip((pixels - partial.mean()) / partial.std(), -6, 6)
        np.testing.assert_allclose(row[name], expected, atol=1e-4)
    assert row["targets"].max() == 6
    assert {name: np.asarray(value).dtype for name, value in row.items()} == dict.fromkeys(
        ("inputs", "targets", "mean", "std", "volume_max"), np.float32
    )


def test_a_blank_slice_is_a_row_of_zeros():
    row = kspace.row(
        np.zeros((8, 8), np.complex64), np.zeros((6, 6), np.float32), 0.0, np.ones(8, bool)
    )
    assert not row["inputs"].any()
    assert not row["targets"].any()

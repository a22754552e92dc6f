"""SSIM against scikit-image's, against its definition window by window, and by hand."""

import numpy as np
import pytest

from algoperf.workload import metric
from algoperf.workload.metric import Batch
from workloads.metrics.ssim import ssim

RNG = np.random.default_rng(5)


def pairs():
    """(name, image, true image, range of values)."""
    smooth = np.add.outer(np.arange(20.0), np.arange(31.0)) / 50
    noisy = smooth + 0.1 * RNG.standard_normal(smooth.shape)
    yield "noise", noisy, smooth, 1.0
    yield "small values", 1e-5 * noisy, 1e-5 * smooth, 2e-5
    yield "a blank image", np.zeros((9, 9)), RNG.random((9, 9)), 1.0
    yield "both blank", np.zeros((9, 9)), np.zeros((9, 9)), 1.0
    yield "one window", RNG.random((7, 7)), RNG.random((7, 7)), 0.5
    yield "turned round", -smooth, smooth, 1.0
    yield "of other rows", RNG.random((12, 12)), RNG.random((12, 12)), 1.0


CASES = [pytest.param(*pair[1:], id=pair[0]) for pair in pairs()]


def by_definition(image, true, value_range):
    """The mean over all windows of Wang et al. 2004, equation 13, with variances of a sample."""
    values = []
    for top in range(len(image) - 6):
        for left in range(image.shape[1] - 6):
            x, y = (each[top : top + 7, left : left + 7].ravel() for each in (image, true))
            (variance_x, covariance), (_, variance_y) = np.cov(x, y)
            c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
            means, square = 2 * x.mean() * y.mean() + c1, x.mean() ** 2 + y.mean() ** 2 + c1
            structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
            values.append(means / square * structure)
    return np.mean(values)


@pytest.mark.parametrize(("image", "true", "value_range"), CASES)
def test_it_is_the_definition_s(image, true, value_range):
    expected = by_definition(image, true, value_range)
    assert ssim(image, true, value_range) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("image", "true", "value_range"), CASES)
def test_it_is_scikit_image_s(image, true, value_range):
    outside = pytest.importorskip("skimage.metrics").structural_similarity
    expected = outside(image, true, data_range=value_range)
    assert ssim(image, true, value_range) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_worked_numbers():
    """Two flat images have no variance: only the means count."""
    image, true = np.full((8, 8), 0.5), np.full((8, 8), 0.25)
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert ssim(image, true, 1.0) == pytest.approx(expected, rel=1e-12)
    assert ssim(true, true, 1.0) == 1.0


ROWS = 5
TARGETS_N = RNG.standard_normal((ROWS, 9, 10)).astype(np.float32)
PREDICTIONS_N = (TARGETS_N + 0.3 * RNG.standard_normal(TARGETS_N.shape)).astype(np.float32)
WEIGHTS_N = np.array([1.0, 0.5, 0.0, 2.0, 1.0])
OTHERS_N = {
    "mean": np.linspace(0.1, 0.5, ROWS, dtype=np.float32),
    "std": np.linspace(0.2, 0.1, ROWS, dtype=np.float32),
    "volume_max": np.array([1, 2, 3, 0, 0.5], np.float32),  # 0 counts as 1
}


def measured(size):
    accumulator = metric.shared(of_texts=False)["ssim"](ROWS)
    for start in range(0, ROWS, size):
        rows = slice(start, start + size)
        others = {name: values[rows] for name, values in OTHERS_N.items()}
        losses = np.zeros(len(TARGETS_N[rows]))
        accumulator.add(
            Batch(losses, PREDICTIONS_N[rows], TARGETS_N[rows], WEIGHTS_N[rows], others)
        )
    return accumulator.finish()


def test_rows_are_compared_as_they_were_before_they_were_normalised():
    expected = []
    for row in range(ROWS):
        mean, std, largest = (np.float64(values[row]) for values in OTHERS_N.values())
        pair = (each[row].astype(np.float64) * std + mean for each in (PREDICTIONS_N, TARGETS_N))
        expected.append(by_definition(*pair, 1.0 if largest == 0 else largest))
    values = {measured(size) for size in range(1, ROWS + 1)}
    assert len(values) == 1  # to the last bit
    assert values.pop() == pytest.approx(np.average(expected, weights=WEIGHTS_N), rel=1e-9)

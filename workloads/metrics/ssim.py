"""The structural similarity of images and the true ones (Wang et al. 2004).

With the settings of the fastMRI challenge (Zbontar et al. 2018, section 5.3): a uniform window of 7
by 7 pixels, k1 = 0.01, k2 = 0.03, variances of a sample, and the largest value of the whole volume
as the range of values. The mean is over windows that lie within the image. It is scikit-image's
`structural_similarity` with these settings.

Legend: B rows of a batch, H height, W width.
"""

import numpy as np
from numpy.typing import NDArray

from algoperf.workload.metric import Batch, WeightedMean

WINDOW = 7
K1, K2 = 0.01, 0.03
Image = NDArray[np.float64]


def ssim(image_HW: Image, true_HW: Image, value_range: float) -> float:
    """Return the structural similarity of two images, in [-1, 1].

    Args:
        image_HW: An image of at least `WINDOW` pixels in each direction.
        true_HW: What it should be.
        value_range: The range of the values, above 0.
    """
    pairs = [image_HW, true_HW, image_HW * image_HW, true_HW * true_HW, image_HW * true_HW]
    mean_X, mean_Y, square_X, square_Y, product = (_window_means(each) for each in pairs)
    of_sample = WINDOW**2 / (WINDOW**2 - 1)
    variance_X = of_sample * (square_X - mean_X * mean_X)
    variance_Y = of_sample * (square_Y - mean_Y * mean_Y)
    covariance = of_sample * (product - mean_X * mean_Y)
    c1, c2 = (K1 * value_range) ** 2, (K2 * value_range) ** 2
    similar = (2 * mean_X * mean_Y + c1) * (2 * covariance + c2)
    similar /= (mean_X**2 + mean_Y**2 + c1) * (variance_X + variance_Y + c2)
    return float(np.clip(similar.mean(), -1, 1))


def _window_means(image_HW: Image) -> Image:
    """The mean of every window within the image: sums along one direction, then the other."""
    rows, columns = (size - WINDOW + 1 for size in image_HW.shape)
    down = image_HW[:rows].copy()
    for start in range(1, WINDOW):
        down += image_HW[start : start + rows]
    total = down[:, :columns].copy()
    for start in range(1, WINDOW):
        total += down[:, start : start + columns]
    return total / WINDOW**2


class Ssim:
    """The mean over rows of the similarity of images to the true ones.

    Images are compared as they were before they were normalised, so beside them a row has its
    'mean' and its 'std', and the 'volume_max', the range of the volume's values (0 counts as 1).
    """

    def __init__(self, rows: int) -> None:
        self._mean = WeightedMean(rows)

    def add(self, batch: Batch) -> None:
        """Count the next rows of the split."""
        values_B = np.array([self._row(batch, row) for row in range(len(batch.targets))])
        self._mean.add(values_B, batch.weights)

    @staticmethod
    def _row(batch: Batch, row: int) -> float:
        mean, std, volume_max = (
            float(batch.others[name][row]) for name in ("mean", "std", "volume_max")
        )
        image_HW, true_HW = (
            each[row].astype(np.float64) * std + mean for each in (batch.predictions, batch.targets)
        )
        return ssim(image_HW, true_HW, volume_max or 1.0)

    def finish(self) -> float:
        """Return the mean."""
        return self._mean.finish()


METRICS = {"ssim": Ssim}

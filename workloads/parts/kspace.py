"""From measured k-space to the rows of an image-reconstruction workload.

The pipeline is that of the single-coil track of fastMRI (Zbontar et al. 2018): some columns of
k-space are kept, all others set to 0; the inverse Fourier transform's magnitude is cropped and
normalised, and a model is to make of it the image of all columns.

Legend: H, W height and width of k-space; S rows and columns of the image.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf.data.rows import DecodedRows
from algoperf.errors import UserError
from algoperf.workload import Drawn, Field, Rows
from algoperf.workload.rows import source_row

Complex = NDArray[np.complex64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Row = Mapping[str, Any]
Slice = tuple[Any, Any, float]  # all of k-space, the image's magnitude, its volume's largest value
LARGEST = 6.0  # in standard deviations: normalised pixels are cut there
EPSILON = 1e-11  # beside the standard deviation of an image, which may be blank


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which columns of k-space are kept.

    A mask keeps the columns of lowest frequency, and of the others each with the same probability,
    so that 1 / acceleration of all are kept on average. With several pairs each mask draws one.

    Attributes:
        accelerations: Columns over kept columns.
        centre_fractions: The share of columns that are kept in the middle, one of each pair.
    """

    accelerations: tuple[float, ...] = (4,)
    centre_fractions: tuple[float, ...] = (0.08,)

    def __post_init__(self) -> None:
        pairs = [*zip(self.accelerations, self.centre_fractions, strict=False)]
        is_whole = len(self.accelerations) == len(self.centre_fractions) > 0
        if not is_whole or any(not 0 < share <= 1 / rate <= 1 for rate, share in pairs):
            raise UserError(
                f"accelerations {self.accelerations} and centre_fractions {self.centre_fractions}: "
                "expected as many of both, at least one, and of each pair 0 < centre fraction <= "
                "1 / acceleration <= 1"
            )

    def mask(self, columns: int, generator: np.random.Generator) -> Mask:
        """Draw which of so many columns are kept."""
        pair = int(generator.integers(len(self.accelerations)))
        centre = round(columns * self.centre_fractions[pair])
        others = columns / self.accelerations[pair] - centre
        # Where the middle is all columns, there are no others to draw.
        share = others / (columns - centre) if centre < columns else 0
        kept: Mask = generator.random(columns) < share
        start = (columns - centre + 1) // 2
        kept[start : start + centre] = True
        return kept


def fixed_generator() -> np.random.Generator:
    """What the masks of evaluation are drawn from, each anew: one mask for all rows of a width."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([0])))


def image(kspace_HW: Complex) -> Complex:
    """Return the inverse Fourier transform, orthonormal, with frequency 0 and the image's origin in
    the middle.
    """
    centred = np.fft.ifft2(np.fft.ifftshift(kspace_HW), norm="ortho")
    return np.fft.fftshift(centred).astype(np.complex64, copy=False)


def kspace(image_HW: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """The inverse of `image`."""
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image_HW), norm="ortho"))


def cropped(image_HW: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the middle of an image that is at least so large in both directions."""
    height, width = image_HW.shape
    top, left = (height - size) // 2, (width - size) // 2
    return image_HW[top : top + size, left : left + size]


def magnitude(kspace_HW: Complex, size: int) -> Floats:
    """Return the cropped magnitude of the image of a k-space."""
    pixels: Floats = np.abs(cropped(image(kspace_HW), size))
    return pixels


def fields(size: int) -> Mapping[str, Field]:
    """What is in a row of `row`."""
    single = np.dtype(np.float32)
    images = {"inputs": Field((size, size), single), "targets": Field((size, size), single)}
    return images | {name: Field((), single) for name in ("mean", "std", "volume_max")}


def row(
    kspace_HW: Complex, target_SS: Floats, volume_max: float, kept_W: Mask
) -> dict[str, np.ndarray | np.floating]:
    """Return a row of what is left of a slice's k-space.

    Input and target are both normalised by the input's mean and standard deviation, and cut at
    `LARGEST`.

    Args:
        kspace_HW: All columns of the slice.
        target_SS: The magnitude of the slice's image.
        volume_max: The largest value of the images of its volume.
        kept_W: The columns that are kept.
    """
    size = len(target_SS)
    undersampled_SS = magnitude(np.where(kept_W, kspace_HW, 0), size)
    mean, std = undersampled_SS.mean(), undersampled_SS.std()

    def normalised(pixels_SS: Floats) -> Floats:
        shifted: Floats = (pixels_SS - mean) / (std + np.float32(EPSILON))
        return shifted.clip(-LARGEST, LARGEST)

    return {
        "inputs": normalised(undersampled_SS),
        "targets": normalised(target_SS),
        "mean": mean,
        "std": std,
        "volume_max": np.float32(volume_max),
    }


def rows(
    count: int,
    read: Callable[[int], Slice],
    source: str,
    size: int,
    sampling: Sampling,
    *,
    is_slow: bool,
) -> DecodedRows:
    """Return rows that are made of slices when they are asked for.

    All rows of a width keep the same columns; `DrawnMasks` draws others for training.

    Args:
        count: The number of slices.
        read: From a slice's index to the slice; its image is at least as large as the rows'.
        source: What tells these slices from others in fingerprints.
        size: Rows and columns of the cropped images.
        sampling: Which columns are kept.
        is_slow: Whether threads are to read ahead.
    """

    def open_row(index: int) -> Row:
        kspace_HW, target_HW, volume_max = read(index)
        target_SS = cropped(target_HW, size)
        return {"kspace": kspace_HW, "targets": target_SS, "volume_max": volume_max}

    def decode(index: int) -> Row:
        return _undersampled(open_row(index), sampling, fixed_generator())

    source = f"{source} {sampling}"
    return DecodedRows(count, fields(size), decode, source, is_slow=is_slow, open_row=open_row)


def _undersampled(source: Row, sampling: Sampling, generator: np.random.Generator) -> Row:
    kept_W = sampling.mask(source["kspace"].shape[1], generator)
    return row(source["kspace"], source["targets"], source["volume_max"], kept_W)


@dataclasses.dataclass(frozen=True)
class DrawnMasks:
    """In training, the columns of each of `rows` are drawn from the run's seed, in each epoch anew.

    Attributes:
        sampling: How they are drawn.
    """

    sampling: Sampling

    def fields(self, rows: Rows) -> Mapping[str, Field]:
        """As without it."""
        return rows.fields

    def __call__(self, rows: Rows, drawn: Drawn) -> dict[str, np.ndarray]:
        """Return the own rows of a batch."""
        undersampled = []
        for position in range(*drawn.own.indices(len(drawn.rows))):
            source = source_row(rows, int(drawn.rows[position]))
            generator = drawn.row_generator(position)
            undersampled.append(_undersampled(source, self.sampling, generator))
        return {
            name: np.stack([each[name] for each in undersampled]).astype(dtype, copy=False)
            for name, (_, dtype) in rows.fields.items()
        }

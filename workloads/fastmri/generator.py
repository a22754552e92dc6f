"""Built-in scans: phantoms of ellipses with texture, seen by a coil of uneven sensitivity.

A volume is a body with organs, vessels and lesions that change from slice to slice. What a coil
receives is weaker far from it, has a phase of its own, and noise; k-space is its Fourier transform
in steps of `STEP`, as of a converter. Everything before the transform is sums, products, quotients
and comparisons, which are the same on every machine, and the steps are far wider than what
transforms differ by.

Legend: N slices of a split, D slices of a volume, E ellipses, H, W height and width of k-space.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.data.validation_seed import seed_words
from workloads.parts import kspace

HEIGHT, WIDTH, SIZE = 80, 72, 64  # of k-space, and of the cropped image
SLICES = 4  # of a volume
ORGANS, VESSELS, LESIONS = 7, 4, 5
STEP = 2.0**-10
NOISE = 0.01  # of a body's intensities, which are around 0.5
VOLUMES = {"train": 192, "validation": 24, "test": 24}
Array = NDArray[Any]  # of float64


class Slices(NamedTuple):
    """Scans of a split.

    Attributes:
        kspace_NHW: All columns of k-space, complex64.
        target_NSS: The magnitude of the image of it.
        volume_max_N: The largest target value in a slice's volume.
        clean_NSS: What the target would be without noise; no model sees it.
    """

    kspace_NHW: NDArray[np.complex64]
    target_NSS: NDArray[np.float32]
    volume_max_N: NDArray[np.float32]
    clean_NSS: NDArray[np.float32]


def generate(split: str, seed: int, validation_seed: int | None = None) -> Slices:
    """Return the slices of a split, volume after volume.

    Args:
        split: 'train', 'validation' or 'test', which have different volumes.
        seed: The seed of the volumes.
        validation_seed: The seed of other volumes than the usual ones for validation and test; None
            for the usual ones.
    """
    number = list(VOLUMES).index(split)
    secret = seed_words(split, validation_seed)
    volumes = [
        _volume(np.random.default_rng([seed, number, volume, *secret]))
        for volume in range(VOLUMES[split])
    ]
    return Slices(*(np.concatenate(parts) for parts in zip(*volumes, strict=True)))


def _volume(generator: np.random.Generator) -> Slices:
    body_DHW = _body(generator) * _sensitivity(generator)
    real_DHW, imaginary_DHW = (
        part * body_DHW + NOISE * _noise(generator, body_DHW.shape) for part in _phase(generator)
    )
    measured = [
        np.round(kspace.kspace(real_HW + 1j * imaginary_HW) / STEP) * STEP
        for real_HW, imaginary_HW in zip(real_DHW, imaginary_DHW, strict=True)
    ]
    kspace_DHW = np.stack(measured).astype(np.complex64)
    target_DSS = np.stack([kspace.magnitude(each, SIZE) for each in kspace_DHW])
    clean_DSS = np.stack([kspace.cropped(each, SIZE) for each in body_DHW]).astype(np.float32)
    volume_max_D = np.repeat(target_DSS.max(), SLICES)
    return Slices(kspace_DHW, target_DSS, volume_max_D, clean_DSS)


def _coordinates() -> tuple[Array, Array]:
    """Down and across, 0 in the middle and 1 at the edges of the cropped image."""
    down_H = (np.arange(HEIGHT) - HEIGHT / 2 + 0.5) / (SIZE / 2)
    across_W = (np.arange(WIDTH) - WIDTH / 2 + 0.5) / (SIZE / 2)
    return down_H[:, None], across_W[None, :]


def _between(generator: np.random.Generator, low: float, high: float, count: int) -> Array:
    """Values in the first slice of a volume and others in the last, with those in between: (E, D).

    Neighbouring slices are alike: the last value lies within a third of the range of the first.
    """
    first_E, last_E = generator.uniform(low, high, (2, count))
    depth_D = np.arange(SLICES) / (SLICES - 1)
    values: Array = first_E[:, None] + (last_E - first_E)[:, None] * depth_D / 3
    return values


def _body(generator: np.random.Generator) -> Array:
    """The intensities of a volume, (D, H, W)."""
    smooth_HW, fine_HW = (_texture(generator, radius) for radius in (3, 1))
    outline = _ellipses(generator, 1, (0.0, 0.1), (0.7, 0.92), (0.7, 0.92))[0]
    total_DHW = 0.45 * outline
    kinds = (
        (ORGANS, (0.0, 0.55), (0.12, 0.4), (0.1, 0.3), (-0.3, 0.35)),
        (VESSELS, (0.0, 0.6), (0.15, 0.45), (0.025, 0.05), (0.15, 0.5)),
        (LESIONS, (0.0, 0.6), (0.03, 0.09), (0.03, 0.07), (-0.4, 0.5)),
    )
    for count, distance, length, breadth, intensity in kinds:
        shapes = _ellipses(generator, count, distance, length, breadth)
        for shape_DHW, value, coarse, grain in zip(
            shapes,
            generator.uniform(*intensity, count),
            generator.uniform(0, 0.5, count),
            generator.uniform(0, 0.35, count),
            strict=True,
        ):
            total_DHW = total_DHW + shape_DHW * (value + coarse * smooth_HW + grain * fine_HW)
    intensities: Array = np.maximum(total_DHW * outline, 0)
    return intensities


def _ellipses(
    generator: np.random.Generator,
    count: int,
    distance: tuple[float, float],
    length: tuple[float, float],
    breadth: tuple[float, float],
) -> Array:
    """Ellipses of these half axes, so far from the middle at the most: 1 inside, 0 outside, with an
    edge a pixel wide, (E, D, H, W).
    """
    down, across = _coordinates()
    centre_down, centre_across = (
        _between(generator, -distance[1], distance[1], count)[..., None, None] for _ in range(2)
    )
    long, short = (_between(generator, *axis, count)[..., None, None] for axis in (length, breadth))
    cosine, sine = _direction(_between(generator, -1, 1, count)[..., None, None])
    along = cosine * (across - centre_across) + sine * (down - centre_down)
    beside = cosine * (down - centre_down) - sine * (across - centre_across)
    from_centre = (along / long) * (along / long) + (beside / short) * (beside / short)
    edge = np.minimum(long, short) * (SIZE / 4)
    covered: Array = np.clip((1 - from_centre) * edge + 0.5, 0, 1)
    return covered


def _direction(tangent: Array) -> tuple[Array, Array]:
    """Cosine and sine of an angle, from the tangent of its half: no library's own rounding."""
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def _texture(generator: np.random.Generator, radius: int) -> Array:
    """A random field around 0 whose values hang together over some pixels: noise, blurred twice."""
    field_HW = generator.uniform(-1, 1, (HEIGHT, WIDTH))
    for _ in range(2):
        for axis in (0, 1):
            shifted = [np.roll(field_HW, by, axis) for by in range(-radius, radius + 1)]
            field_HW = sum(shifted[1:], shifted[0]) / len(shifted)
    return field_HW * radius * 2


def _sensitivity(generator: np.random.Generator) -> Array:
    """How strongly a coil beside the body receives, (H, W)."""
    down, across = _coordinates()
    cosine, sine = _direction(generator.uniform(-3, 3, 1))
    reach = generator.uniform(1.2, 2.5)
    square_HW = (across - cosine) * (across - cosine) + (down - sine) * (down - sine)
    strength: Array = 1.3 / (1 + square_HW / (reach * reach))
    return strength


def _phase(generator: np.random.Generator) -> tuple[Array, Array]:
    """Cosine and sine of a phase that changes slowly over the image, (H, W)."""
    down, across = _coordinates()
    level, tilt, lean, bend = generator.uniform(-0.5, 0.5, 4)
    return _direction(level + tilt * down + lean * across + bend * down * across)


def _noise(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Nearly normal numbers of variance 1: sums of four uniform ones."""
    parts = generator.random((4, *shape))
    numbers: Array = (parts[0] + parts[1] + parts[2] + parts[3] - 2) * np.sqrt(3.0)
    return numbers

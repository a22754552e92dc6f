"""Generated images whose class is the shape of an object together with its texture.

Each image has one object, large, anywhere, of any size and direction, filled with two colours in a
texture; around it a background of other colours, its own weak texture, small discs that may cover
a part of it, and noise. Colours are drawn anew for each image, and every texture covers half of the
object, so colours say nothing of the class; position, size and direction are drawn too, so single
pixels say nothing either. In training a class never has one of the backgrounds, which validation
and test have as often as the others. Some rows of every split have another class's label, which no
model can know: their share is 1 less the best accuracy.

Everything is computed by additions, multiplications, divisions and comparisons of float32 numbers,
which IEEE 754 rounds alike everywhere, from NumPy's own random bits; so the images are the same
bytes on every machine.

Shapes: N rows, S side of an image in pixels; K classes.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf.data.validation_seed import seed_words
from algoperf.workload import Arrays

SHAPES = ("square", "triangle", "cross")
TEXTURES = ("rows", "columns", "checks", "tiles")
CLASSES = len(SHAPES) * len(TEXTURES)
BACKGROUNDS = len(TEXTURES) + 1  # each texture, or none
CHUNK_ROWS = 512  # of which the floats of a channel take 2 MB
DISCS = 3
TURN = 0.15  # the tangent of half the largest angle, 17 degrees
Floats = NDArray[Any]  # of float32


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What makes the images hard; distances are in half sides of an image.

    Attributes:
        radius: The least and the largest radius of an object.
        off_centre: How far its centre may be from the image's, along each axis.
        background_contrast: The contrast of the background's texture, over the object's.
        noise: The largest noise of a pixel, in its 256 values; triangular.
        label_noise: The share of rows with another class's label.
    """

    radius: tuple[float, float] = (0.65, 0.95)
    off_centre: float = 0.2
    background_contrast: float = 0.2
    colours: int = 40
    noise: int = 20
    label_noise: float = 0.05


def generate(
    split: str,
    rows: int,
    size: int,
    seed: int,
    difficulty: Difficulty = Difficulty(),
    validation_seed: int | None = None,
) -> Arrays:
    """Return 'inputs', uint8 (N, S, S, 3), and 'targets', int32 (N,), labels from 0 to 11.

    Args:
        split: 'train', 'validation' or 'test', which have different images.
        rows: The number N of images.
        size: The side S of an image in pixels.
        seed: The seed of the images.
        difficulty: What makes them hard.
        validation_seed: The seed of other images than the usual ones for validation and test; None
            for the usual ones.
    """
    stream = ("train", "validation", "test").index(split)
    secret = seed_words(split, validation_seed)
    sequence = np.random.SeedSequence([seed, stream, *secret])
    generator = np.random.Generator(np.random.Philox(sequence))
    images, labels = [], []
    for start in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - start)
        # Whole chunks are drawn, so that fewer rows are the first of more.
        drawn = _chunk(generator, size, split == "train", difficulty)
        images.append(drawn[0][:count])
        labels.append(drawn[1][:count])
    return {"inputs": np.concatenate(images), "targets": np.concatenate(labels)}


def _chunk(
    generator: np.random.Generator, size: int, in_training: bool, difficulty: Difficulty
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    N = CHUNK_ROWS

    def uniform(low: float, high: float) -> Floats:
        width = np.float32(high) - np.float32(low)
        return np.float32(low) + width * generator.random((N, 1, 1), np.float32)

    classes_N = generator.integers(0, CLASSES, N)
    shape_N, texture_N = classes_N // len(TEXTURES), classes_N % len(TEXTURES)
    background_N = generator.integers(0, BACKGROUNDS - in_training, N)
    if in_training:  # all but one, which depends on the class
        background_N += background_N >= classes_N % BACKGROUNDS
    line = (2 * np.arange(size, dtype=np.float32) + 1 - size) / np.float32(size)
    x_NSS, y_NSS = np.broadcast_to(line, (N, 1, size)), np.broadcast_to(line[:, None], (N, size, 1))

    off, radius_N = difficulty.off_centre, uniform(*difficulty.radius)
    x_NSS, y_NSS = x_NSS - uniform(-off, off), y_NSS - uniform(-off, off)
    u_NSS, v_NSS = _turned(x_NSS / radius_N, y_NSS / radius_N, generator)
    inside_NSS = _inside(shape_N, u_NSS, v_NSS)
    pattern_NSS = _pattern(texture_N, x_NSS, y_NSS, generator)
    behind_NSS = _pattern(background_N, x_NSS, y_NSS, generator)

    image_NSSC = np.empty((N, size, size, 3), np.float32)
    light, dark, ground = uniform(170, 240), uniform(80, 140), uniform(10, 60)
    spread, weak = difficulty.colours, 128 * difficulty.background_contrast * uniform(0, 1)
    painted = np.where(background_N[:, None, None] == len(TEXTURES), np.float32(0), weak)
    for channel in range(3):
        tints = [uniform(-spread, spread) for _ in range(3)]
        filled = np.where(pattern_NSS, light + tints[0], dark + tints[1])
        slope = uniform(-30, 30) * x_NSS + uniform(-30, 30) * y_NSS
        shaded = ground + tints[2] + slope + np.where(behind_NSS, painted, -painted)
        image_NSSC[..., channel] = np.where(inside_NSS, filled, shaded)
    for _ in range(DISCS):
        dx, dy, reach = x_NSS - uniform(-1, 1), y_NSS - uniform(-1, 1), uniform(0.08, 0.2)
        covered_NSS = dx * dx + dy * dy < reach * reach
        for channel in range(3):
            colour = np.broadcast_to(uniform(0, 256), covered_NSS.shape)
            np.copyto(image_NSSC[..., channel], colour, where=covered_NSS)
    noise = generator.integers(0, difficulty.noise, (2, *image_NSSC.shape), np.int16, endpoint=True)
    pixels = np.clip(image_NSSC, 0, 255).astype(np.int16) + (noise[0] - noise[1])
    wrong_N = generator.random(N) < difficulty.label_noise
    shift_N = generator.integers(1, CLASSES, N)
    labels_N = np.where(wrong_N, (classes_N + shift_N) % CLASSES, classes_N).astype(np.int32)
    return np.clip(pixels, 0, 255).astype(np.uint8), labels_N


def _turned(x_NSS: Floats, y_NSS: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Coordinates turned by a random angle, without a sine: (1 - t^2, 2 t) / (1 + t^2)."""
    t = np.float32(TURN) * (2 * generator.random((len(x_NSS), 1, 1), np.float32) - 1)
    whole = 1 + t * t
    c, s = (1 - t * t) / whole, 2 * t / whole
    return c * x_NSS + s * y_NSS, c * y_NSS - s * x_NSS


def _inside(shape_N: NDArray[np.int64], u_NSS: Floats, v_NSS: Floats) -> NDArray[np.bool_]:
    """Which pixels are of the object; u and v are coordinates of it, in its radius."""
    across, along = np.abs(u_NSS), np.abs(v_NSS)
    arm = np.float32(0.36)
    each = (
        np.maximum(across, along) < np.float32(0.78),
        (v_NSS < np.float32(0.72)) & (np.float32(1.8) * across - v_NSS < np.float32(0.95)),
        (np.minimum(across, along) < arm) & (np.maximum(across, along) < 1),
    )
    return np.choose(shape_N[:, None, None], each)


def _pattern(
    texture_N: NDArray[np.int64], x_NSS: Floats, y_NSS: Floats, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Which pixels have the first of a texture's two colours: about half of them."""
    N = len(texture_N)
    a, b = _turned(x_NSS, y_NSS, generator)
    period = np.float32(0.4) + np.float32(0.2) * generator.random((N, 1, 1), np.float32)
    phase = generator.random((2, N, 1, 1), np.float32)
    a, b = a / period + phase[0], b / period + phase[1]
    a, b = a - np.floor(a), b - np.floor(b)  # both in [0, 1)
    half, edge = np.float32(0.5), np.float32(0.7071)  # a square of this side is half of one of 1
    columns, rows = a < half, b < half
    checks, tiles = columns != rows, (a < edge) & (b < edge)
    drawn = np.minimum(texture_N, len(TEXTURES) - 1)[:, None, None]
    return np.choose(drawn, (rows, columns, checks, tiles))

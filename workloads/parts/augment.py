"""Random changes of images for training, drawn by NumPy and computed by Pillow, so that both
frameworks train on the same pixels.

An image is changed in this order: random resized crop, flip, and operations of RandAugment. Mixup
comes last, over the batch. Distances are shares of the image's side, so that they mean the same at
every size.

Shapes: B rows of a batch, H height, W width, C channels, K classes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageOps

from algoperf.workload import Drawn, Field, Rows
from algoperf.workload.rows import source_row

ATTEMPTS = 10  # at a crop that lies inside of the image
ASPECTS = (3 / 4, 4 / 3)
GREY = (128, 128, 128)  # what fills the pixels that an operation leaves without one
# The strongest of RandAugment's magnitudes (10 of 10), as AlgoPerf has them at 224 x 224 pixels.
REFERENCE_SIDE = 224
ENHANCE, ROTATE_DEGREES, SHEAR = 1.9, 30.0, 0.3
POSTERIZE_BITS, SOLARIZE_FROM, SOLARIZE_ADD = 4, 256, 110
TRANSLATE_SHARE, CUTOUT_SHARE = 100 / REFERENCE_SIDE, 40 / REFERENCE_SIDE
Box = tuple[int, int, int, int]  # left, upper, right, lower; the last two are outside
Operation = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop_box(
    width: int, height: int, area: tuple[float, float], generator: np.random.Generator
) -> Box:
    """Return the box of a random resized crop (Szegedy et al. 2015), by torchvision's definition.

    Up to ten times a share of the area is drawn uniformly and an aspect from the logarithms of
    3/4 to 4/3; a box that fits is placed uniformly. Where none fits it is the centre, cut to the
    nearest aspect that is allowed.

    Args:
        width: The image's width in pixels.
        height: Its height.
        area: The least and the largest share of the image's area.
        generator: What the box is drawn from.
    """
    logs = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    for _ in range(ATTEMPTS):
        target = width * height * generator.uniform(*area)
        aspect = math.exp(generator.uniform(*logs))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            upper = int(generator.integers(0, height - h + 1))
            left = int(generator.integers(0, width - w + 1))
            return left, upper, left + w, upper + h
    w, h = width, height
    if width / height < ASPECTS[0]:
        h = round(width / ASPECTS[0])
    elif width / height > ASPECTS[1]:
        w = round(height * ASPECTS[1])
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def resized_crop(image: Image.Image, box: Box, size: int) -> Image.Image:
    """Return the box of an image, bilinearly resized to a square, with antialiasing."""
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int, resized: int) -> Image.Image:
    """Return what evaluation sees: the centre of the image, resized so that its short side is
    `resized` pixels long; by torchvision's definition of both steps.
    """
    width, height = image.size
    short = min(width, height)
    if short != resized:
        width, height = int(resized * width / short), int(resized * height / short)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, upper, left + size, upper + size))


def flip(image: Image.Image) -> Image.Image:
    """Return the image's mirror image, left and right exchanged."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Return an image whose pixel (x, y) is the nearest to (a x + b y + c, d x + e y + f)."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.NEAREST,
        fillcolor=GREY,
    )


def _sign(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Return the image turned around its centre, counter-clockwise where `degrees` is positive."""
    return image.rotate(degrees, resample=Image.Resampling.NEAREST, fillcolor=GREY)


def shear_x(image: Image.Image, share: float) -> Image.Image:
    """Return the image with row y moved by `share` times y to the left."""
    return _affine(image, (1, share, 0, 0, 1, 0))


def shear_y(image: Image.Image, share: float) -> Image.Image:
    """Return the image with column x moved by `share` times x upwards."""
    return _affine(image, (1, 0, 0, share, 1, 0))


def translate(image: Image.Image, right: int, down: int) -> Image.Image:
    """Return the image moved by so many pixels."""
    return _affine(image, (1, 0, -right, 0, 1, -down))


def posterize(image: Image.Image) -> Image.Image:
    """Return the image with the highest bits of each value alone."""
    return ImageOps.posterize(image, POSTERIZE_BITS)


def solarize(image: Image.Image) -> Image.Image:
    """Return the image with the values from the threshold on inverted: at full strength none."""
    return ImageOps.solarize(image, SOLARIZE_FROM)


def solarize_add(image: Image.Image) -> Image.Image:
    """Return the image with dark values (below 128) made lighter."""
    return image.point([min(value + SOLARIZE_ADD, 255) if value < 128 else value
                        for value in range(256)] * 3)  # fmt: skip


def cutout(image: Image.Image, x: int, y: int, half: int) -> Image.Image:
    """Return the image with a grey square around (x, y), as far as it is inside."""
    covered = image.copy()
    width, height = image.size
    box = max(x - half, 0), max(y - half, 0), min(x + half, width), min(y + half, height)
    covered.paste(GREY, box)
    return covered


def _enhanced(kind: Callable[[Image.Image], Any]) -> Operation:
    return lambda image, generator: kind(image).enhance(ENHANCE)


def _pixels(image: Image.Image, share: float) -> int:
    return round(image.size[0] * share)


def _cutout(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    x, y = (int(generator.integers(0, side)) for side in image.size)
    return cutout(image, x, y, _pixels(image, CUTOUT_SHARE))


OPERATIONS: Mapping[str, Operation] = {
    "autocontrast": lambda image, generator: ImageOps.autocontrast(image),
    "equalize": lambda image, generator: ImageOps.equalize(image),
    "invert": lambda image, generator: ImageChops.invert(image),
    "rotate": lambda image, generator: rotate(image, _sign(generator) * ROTATE_DEGREES),
    "posterize": lambda image, generator: posterize(image),
    "solarize": lambda image, generator: solarize(image),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, generator: shear_x(image, _sign(generator) * SHEAR),
    "shear_y": lambda image, generator: shear_y(image, _sign(generator) * SHEAR),
    "translate_x": lambda image, generator: translate(
        image, _sign(generator) * _pixels(image, TRANSLATE_SHARE), 0
    ),
    "translate_y": lambda image, generator: translate(
        image, 0, _sign(generator) * _pixels(image, TRANSLATE_SHARE)
    ),
    "cutout": _cutout,
    "solarize_add": lambda image, generator: solarize_add(image),
}
NAMES = tuple(OPERATIONS)


def rand_augment(
    image: Image.Image, operations: int, generator: np.random.Generator
) -> Image.Image:
    """Return the image after random operations at full strength (Cubuk et al. 2020).

    Each is drawn uniformly from `OPERATIONS`, with replacement; those with a direction draw it.

    Args:
        image: The image.
        operations: How many are drawn, one after another.
        generator: What they are drawn from.
    """
    for _ in range(operations):
        name = NAMES[int(generator.integers(0, len(NAMES)))]
        image = OPERATIONS[name](image, generator)
    return image


def mixed(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Return `share` times the one and the rest of the other, in float32 (Zhang et al. 2018)."""
    weight = np.float32(share)
    return weight * first.astype(np.float32) + (1 - weight) * second.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ImageAugmentation:
    """Random changes of images, an `algoperf.workload.Augmentation`.

    Attributes:
        size: The side of what is trained on, in pixels.
        area: The least and the largest share of an image that a crop has.
        operations: How many operations of RandAugment change an image.
        mixup_alpha: Both parameters of the beta distribution that the share of mixup is drawn
            from, one for each batch; 0 mixes nothing. A row is mixed with the one before it.
        classes: The number K of classes; mixed targets are distributions over them.
    """

    size: int
    area: tuple[float, float]
    operations: int = 0
    mixup_alpha: float = 0.0
    classes: int = 0

    def fields(self, rows: Rows) -> Mapping[str, Field]:
        """Uint8 pixels and a class; or float32 pixels, from 0 to 255 too, and a distribution."""
        channels = rows.fields["inputs"].shape[-1]
        shape, dtype = (self.size, self.size, channels), np.dtype(np.uint8)
        if not self.mixup_alpha:
            return {**rows.fields, "inputs": Field(shape, dtype)}
        shapes = {"inputs": shape, "targets": (self.classes,)}
        mixed_fields = {name: Field(each, np.dtype(np.float32)) for name, each in shapes.items()}
        return {**rows.fields, **mixed_fields}

    def __call__(self, rows: Rows, drawn: Drawn) -> dict[str, np.ndarray]:
        """Return the own rows of a batch, each changed by its own draws."""
        count = len(drawn.rows)
        own = list(range(count))[drawn.own]
        if not self.mixup_alpha:
            return self._changed(rows, drawn, own)
        # Of another rank's rows the one before the own ones is needed as well.
        first = [(own[0] - 1) % count]
        whole = self._changed(rows, drawn, first + own)
        share = drawn.batch_generator().beta(self.mixup_alpha, self.mixup_alpha)
        whole["targets"] = np.eye(self.classes, dtype=np.float32)[whole["targets"]]
        batch = {name: array[1:] for name, array in whole.items()}
        for name in ("inputs", "targets"):
            batch[name] = mixed(whole[name][1:], whole[name][:-1], share)
        return batch

    def _changed(self, rows: Rows, drawn: Drawn, positions: list[int]) -> dict[str, np.ndarray]:
        """Rows at these positions of the batch, each with the changes that are drawn for it."""
        taken = [source_row(rows, int(drawn.rows[position])) for position in positions]
        changed = [
            self._image(row["inputs"], drawn.row_generator(position))
            for row, position in zip(taken, positions, strict=True)
        ]
        others = {
            name: np.stack([row[name] for row in taken]).astype(field.dtype, copy=False)
            for name, field in rows.fields.items()
            if name != "inputs"
        }
        return {"inputs": np.stack(changed), **others}

    def _image(self, pixels_HWC: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        image = Image.fromarray(pixels_HWC)
        box = crop_box(*image.size, self.area, generator)
        image = resized_crop(image, box, self.size)
        if generator.random() < 0.5:
            image = flip(image)
        return np.asarray(rand_augment(image, self.operations, generator))

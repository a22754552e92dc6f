"""Random changes of images against other implementations: NumPy by the operations' definitions, and
torchvision where it is installed.

Legend: B rows, H height, W width, C channels, K classes.
"""

import math

import numpy as np
import pytest
from PIL import Image

from algoperf.data.batches import TrainingQueue
from algoperf.data.rows import DecodedRows
from algoperf.workload import Drawn
from workloads.parts import augment
from workloads.parts.augment import ImageAugmentation

RNG = np.random.default_rng(3)
PIXELS_HWC = RNG.integers(0, 256, (28, 28, 3)).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS_HWC)
LUMA = np.array([19595, 38470, 7471])  # of 65,536: ITU-R 601


def test_a_crop_lies_inside_and_has_the_area_and_aspect_asked_for():
    generator = np.random.default_rng(0)
    boxes = np.array([augment.crop_box(500, 375, (0.08, 1), generator) for _ in range(4000)])
    width_N, height_N = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 500).all()
    assert (boxes[:, 3] <= 375).all()
    aspects, areas = width_N / height_N, width_N * height_N / (500 * 375)
    assert 0.73 < aspects.min() < 0.76
    assert 1.31 < aspects.max() < 1.35
    assert 0.079 < areas.min() < 0.085
    small = areas < 0.5  # of which all fit: as many tall ones as wide ones, uniform in area
    assert abs(np.log(aspects[small]).mean()) < 0.015
    assert areas[small].mean() == pytest.approx((0.08 + 0.5) / 2, abs=0.012)


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(100, 10, (43, 0, 56, 10)), (10, 100, (0, 43, 10, 56)), (12, 12, (0, 0, 12, 12))],
)
def test_the_centre_where_no_crop_fits(width, height, box):
    """10 x 4/3 is 13 pixels; the whole of a square is no other than itself."""

    class Largest(np.random.Generator):
        def uniform(self, low, high):
            return high

    generator = Largest(np.random.PCG64(0))
    assert augment.crop_box(width, height, (1.2, 1.3), generator) == box


def test_evaluation_sees_the_centre():
    """A short side of 20 becomes 8: of 50 columns 20, of which 6 to the right of 7."""
    image = Image.fromarray(np.arange(0, 250, 5, dtype=np.uint8)[None].repeat(20, 0))
    seen = np.asarray(augment.centre_crop(image, 6, 8))
    assert seen.shape == (6, 6)
    # A pixel of the small image is 2.5 of the large one's, which rise by 5: by 12.5 each.
    np.testing.assert_allclose(seen[0], (np.arange(7, 13) + 0.5) * 12.5 - 2.5, atol=1)
    same = augment.centre_crop(IMAGE, 24, 28)
    np.testing.assert_array_equal(same, PIXELS_HWC[2:26, 2:26])


def nearest(column_of, row_of):
    """The image whose pixel (x, y) is the source's at these places, grey where there is none."""
    rows, columns = np.mgrid[:28, :28] + 0.5
    y, x = np.floor(row_of(columns, rows)), np.floor(column_of(columns, rows))
    inside = (x >= 0) & (x < 28) & (y >= 0) & (y < 28)
    taken = PIXELS_HWC[np.clip(y, 0, 27).astype(int), np.clip(x, 0, 27).astype(int)]
    return np.where(inside[..., None], taken, 128)


def blended(other_HWC):
    return np.clip(other_HWC + 1.9 * (PIXELS_HWC.astype(float) - other_HWC), 0, 255)


def grey():
    return ((PIXELS_HWC.astype(int) @ LUMA + 2**15) >> 16).astype(float)


def autocontrast():
    low, high = (function((0, 1)) for function in (PIXELS_HWC.min, PIXELS_HWC.max))
    return (PIXELS_HWC.astype(float) - low) * 255 / (high - low)


def equalized():
    """By the cumulative histogram, as the documentation of Pillow's function has it."""
    planes = []
    for channel in range(3):
        values = PIXELS_HWC[..., channel]
        histogram = np.bincount(values.ravel(), minlength=256)
        step = (histogram.sum() - histogram[histogram > 0][-1]) // 255
        before = np.concatenate([[0], np.cumsum(histogram)[:-1]])
        table = np.minimum((step // 2 + before) // max(step, 1), 255) if step else np.arange(256)
        planes.append(table[values])
    return np.stack(planes, -1)


def turned(degrees):
    angle, middle = math.radians(degrees), 14
    c, s = math.cos(angle), math.sin(angle)
    return nearest(
        lambda x, y: c * (x - middle) - s * (y - middle) + middle,
        lambda x, y: s * (x - middle) + c * (y - middle) + middle,
    )


BY_HAND = {
    "autocontrast": autocontrast,
    "equalize": equalized,
    "invert": lambda: 255 - PIXELS_HWC,
    "posterize": lambda: PIXELS_HWC & 0xF0,
    "solarize": lambda: PIXELS_HWC,
    "solarize_add": lambda: np.where(
        PIXELS_HWC < 128, np.minimum(PIXELS_HWC.astype(int) + 110, 255), PIXELS_HWC
    ),
    "brightness": lambda: blended(np.zeros_like(PIXELS_HWC)),
    "color": lambda: blended(grey()[..., None]),
    "contrast": lambda: blended(np.full_like(PIXELS_HWC, int(grey().mean() + 0.5), float)),
}


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_operations_on_colours_by_their_definition(name):
    changed = np.asarray(augment.OPERATIONS[name](IMAGE, RNG)).astype(float)
    assert np.abs(changed - BY_HAND[name]()).max() <= 1  # one where a fraction is cut off
    assert np.abs(changed - BY_HAND[name]()).mean() < 0.6


def test_sharpness_by_its_definition():
    """Away from Pillow's smoothed image: each pixel five times, its neighbours once, over 13."""
    kernel, padded = np.ones((3, 3)), PIXELS_HWC.astype(float)
    kernel[1, 1] = 5
    smooth = padded.copy()
    smooth[1:-1, 1:-1] = (
        sum(kernel[i, j] * padded[i : 26 + i, j : 26 + j] for i in range(3) for j in range(3))
        / kernel.sum()
    )
    changed = np.asarray(augment.OPERATIONS["sharpness"](IMAGE, RNG)).astype(float)
    assert np.abs(changed - blended(np.round(smooth))).max() <= 2


class Signs:
    """A generator that draws a sign, or a place."""

    def __init__(self, value, *places):
        self.value = value
        self.places = list(places)

    def random(self):
        return self.value

    def integers(self, low, high):
        return self.places.pop(0)


PLUS, MINUS = Signs(0.1), Signs(0.9)
SHIFT = 12  # 28 x 100 / 224 = 12.5, and halves go to the even number


@pytest.mark.parametrize(
    ("name", "signs", "expected"),
    [
        ("rotate", PLUS, lambda: turned(30)),
        ("rotate", MINUS, lambda: turned(-30)),
        ("shear_x", PLUS, lambda: nearest(lambda x, y: x + 0.3 * y, lambda x, y: y)),
        ("shear_x", MINUS, lambda: nearest(lambda x, y: x - 0.3 * y, lambda x, y: y)),
        ("shear_y", PLUS, lambda: nearest(lambda x, y: x, lambda x, y: y + 0.3 * x)),
        ("translate_x", PLUS, lambda: nearest(lambda x, y: x - SHIFT, lambda x, y: y)),
        ("translate_y", MINUS, lambda: nearest(lambda x, y: x, lambda x, y: y + SHIFT)),
    ],
)
def test_operations_that_move_pixels_by_their_definition(name, signs, expected):
    changed = np.asarray(augment.OPERATIONS[name](IMAGE, signs))
    differs = (changed != expected()).any(-1)
    assert differs.mean() < 0.01  # of pixels between two, rounding decides


def test_cutout_by_hand():
    """Half the side is 28 x 40 / 224 = 5 pixels; around (3, 20) columns 0 to 7, rows 15 to 24."""
    changed = np.asarray(augment.OPERATIONS["cutout"](IMAGE, Signs(0, 3, 20)))
    expected = PIXELS_HWC.copy()
    expected[15:25, 0:8] = 128
    np.testing.assert_array_equal(changed, expected)


def test_all_operations_are_drawn_alike():
    assert len(augment.OPERATIONS) == 16
    counts = dict.fromkeys(augment.NAMES, 0)
    generator = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        for name in augment.NAMES:

            def count(image, generator, name=name):
                counts[name] += 1
                return image

            patch.setitem(augment.OPERATIONS, name, count)
        for _ in range(1600):
            augment.rand_augment(IMAGE, 2, generator)
    assert sum(counts.values()) == 3200
    assert min(counts.values()) > 150
    assert max(counts.values()) < 250


def test_torchvision_computes_the_same():
    functional = pytest.importorskip("torchvision.transforms.functional")
    nearest_mode = functional.InterpolationMode.NEAREST

    def affine(angle=0.0, right=0, down=0, shear=(0.0, 0.0)):
        return functional.affine(
            IMAGE, angle, [right, down], 1.0, list(shear), nearest_mode, [128] * 3, [0, 0]
        )

    degrees = math.degrees(math.atan(augment.SHEAR))
    for ours, theirs in (
        (augment.resized_crop(IMAGE, (3, 5, 20, 26), 12),
         functional.resized_crop(IMAGE, 5, 3, 21, 17, [12, 12], antialias=True)),
        (augment.centre_crop(IMAGE, 14, 16),
         functional.center_crop(functional.resize(IMAGE, [16]), [14])),
        (augment.flip(IMAGE), functional.hflip(IMAGE)),
        (augment.rotate(IMAGE, 30), functional.rotate(IMAGE, 30, nearest_mode, fill=[128] * 3)),
        (augment.translate(IMAGE, 12, 0), affine(right=12)),
        (augment.shear_x(IMAGE, 0.3), affine(shear=(degrees, 0.0))),
        (augment.shear_y(IMAGE, 0.3), affine(shear=(0.0, degrees))),
        (augment.posterize(IMAGE), functional.posterize(IMAGE, 4)),
        (augment.OPERATIONS["equalize"](IMAGE, RNG), functional.equalize(IMAGE)),
        (augment.OPERATIONS["autocontrast"](IMAGE, RNG), functional.autocontrast(IMAGE)),
        (augment.OPERATIONS["color"](IMAGE, RNG), functional.adjust_saturation(IMAGE, 1.9)),
        (augment.OPERATIONS["contrast"](IMAGE, RNG), functional.adjust_contrast(IMAGE, 1.9)),
        (augment.OPERATIONS["brightness"](IMAGE, RNG), functional.adjust_brightness(IMAGE, 1.9)),
        (augment.OPERATIONS["sharpness"](IMAGE, RNG), functional.adjust_sharpness(IMAGE, 1.9)),
    ):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


ROWS, CLASSES = 12, 3
ARRAYS = {
    "inputs": RNG.integers(0, 256, (ROWS, 20, 20, 3)).astype(np.uint8),
    "targets": (np.arange(ROWS) % CLASSES).astype(np.int32),
}
PLAIN = ImageAugmentation(16, (0.3, 1.0), operations=2)
MIXED = ImageAugmentation(16, (0.3, 1.0), operations=2, mixup_alpha=0.2, classes=CLASSES)


def queue(augmentation, batch_size=5, seed=9, rows=ARRAYS, **settings):
    return TrainingQueue(rows, batch_size, seed, augmentation=augmentation, **settings)


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for name, array in batch.items():
        np.testing.assert_array_equal(array, other[name])
        assert array.dtype == other[name].dtype


@pytest.mark.parametrize("augmentation", [PLAIN, MIXED])
def test_what_is_in_a_row_is_said_beforehand(augmentation):
    batch = next(queue(augmentation))
    for name, field in queue(augmentation).fields.items():
        assert batch[name].shape == (5, *field.shape)
        assert batch[name].dtype == field.dtype


def test_a_row_changes_by_seed_epoch_and_row_alone():
    """Not by the size of the batch, nor by where it stands there; in each epoch anew."""

    def by_row(batch_size, seed=9):
        source, rows = queue(PLAIN, batch_size, seed), {}
        order = TrainingQueue({"targets": np.arange(ROWS)}, batch_size, seed)
        for _ in range(4 * ROWS // batch_size):
            batch = next(source)
            for number, image in zip(next(order)["targets"], batch["inputs"], strict=True):
                rows.setdefault(int(number), []).append(image)
        return rows

    ours, theirs, other_seed = by_row(4), by_row(6), by_row(4, seed=10)
    for row, images in ours.items():
        assert len(images) == 4
        for one, other in zip(images, theirs[row], strict=True):
            np.testing.assert_array_equal(one, other)
        assert len({image.tobytes() for image in images}) == 4
        assert images[0].tobytes() != other_seed[row][0].tobytes()


def test_mixup_by_hand():
    """A row and the one before it, the first one and the last; one share for the batch."""
    plain, mixed = (next(queue(each)) for each in (PLAIN, MIXED))
    first = plain["inputs"].astype(np.float32)
    other = np.roll(first, 1, axis=0)
    apart = np.abs(first - other) > 50
    shares = ((mixed["inputs"] - other) / np.where(apart, first - other, 1))[apart]
    share = shares.mean()
    assert 0 < share < 1
    np.testing.assert_allclose(shares, share, atol=1e-5)
    one_hot = np.eye(CLASSES)[plain["targets"]]
    expected = share * one_hot + (1 - share) * np.roll(one_hot, 1, axis=0)
    np.testing.assert_allclose(mixed["targets"], expected, atol=1e-5)
    np.testing.assert_allclose(mixed["targets"].sum(1), 1, atol=1e-6)


def test_the_share_of_mixup_is_of_a_beta_distribution():
    """Both parameters 0.2: mean 1/2, variance 1 / (4 (2 x 0.2 + 1)) = 0.1786."""
    order = np.arange(1000)
    shares = [
        Drawn(order[row : row + 1], order[:1], 5, slice(0, 1)).batch_generator().beta(0.2, 0.2)
        for row in range(1000)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(0.1786, abs=0.015)


@pytest.mark.parametrize("augmentation", [PLAIN, MIXED])
@pytest.mark.parametrize("is_slow", [False, True])
def test_ranks_have_the_parts_of_the_batch_of_one_process(augmentation, is_slow):
    rows = DecodedRows(
        ROWS,
        {name: (array.shape[1:], array.dtype) for name, array in ARRAYS.items()},
        lambda index: {name: array[index] for name, array in ARRAYS.items()},
        "test",
        is_slow=is_slow,
    )
    whole = queue(augmentation, 6)
    parts = [queue(augmentation, 6, rows=rows, shard=(rank, 3)) for rank in range(3)]
    for _ in range(5):
        batch, shares = next(whole), [next(part) for part in parts]
        joined = {name: np.concatenate([share[name] for share in shares]) for name in batch}
        assert_same(batch, joined)
    for part in parts:
        part.close()


@pytest.mark.parametrize("is_slow", [False, True])
def test_training_goes_on_with_the_same_changes(is_slow):
    rows = DecodedRows(
        ROWS,
        {name: (array.shape[1:], array.dtype) for name, array in ARRAYS.items()},
        lambda index: {name: array[index] for name, array in ARRAYS.items()},
        "test",
        is_slow=is_slow,
    )
    whole = queue(MIXED)
    for _ in range(4):
        next(whole)
    first, again = queue(MIXED, rows=rows), queue(MIXED, rows=rows)
    for _ in range(4):
        next(first)
    again.go_to(first.position())
    for _ in range(4):  # over the end of an epoch
        assert_same(next(whole), next(again))
    for each in (first, again):
        each.close()


def test_rows_of_a_source_are_changed_before_they_are_cropped():
    """An image of a file is as large as it is; what evaluation sees is a part of it."""
    wide = RNG.integers(0, 256, (20, 40, 3)).astype(np.uint8)
    rows = DecodedRows(
        1,
        {"inputs": ((4, 4, 3), np.uint8), "targets": ((), np.int32)},
        lambda index: {"inputs": wide[:4, :4], "targets": np.int32(1)},
        "test",
        is_slow=False,
        open_row=lambda index: {"inputs": wide, "targets": np.int32(1)},
    )
    batch = next(queue(PLAIN, 1, rows=rows))
    generator = Drawn(np.arange(1), np.zeros(1, int), 9, slice(0, 1)).row_generator(0)
    box = augment.crop_box(40, 20, (0.3, 1.0), generator)
    image = augment.resized_crop(Image.fromarray(wide), box, 16)
    image = augment.flip(image) if generator.random() < 0.5 else image
    expected = np.asarray(augment.rand_augment(image, 2, generator))
    np.testing.assert_array_equal(batch["inputs"][0], expected)

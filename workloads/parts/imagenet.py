"""The rows of the ImageNet workloads: generated images at mini, and image files of a folder.

Shapes: N rows, S side of an image in pixels.
"""

import functools
from collections.abc import Mapping
from typing import Any

from algoperf.data.formats import images as image_files
from algoperf.data.formats.records import Hub
from algoperf.workload import SPLITS, Data, Target
from workloads.parts import textured_shapes
from workloads.parts.augment import ImageAugmentation, centre_crop

HUB = Hub("ILSVRC/imagenet-1k", "49e2ee26f3810fb5a7536bbf732a7b07389a47b5")
CENTRE_SHARE = 224 / 256  # of the short side, what evaluation sees
MINI_ROWS = {"train": 10_000, "validation": 1_000, "test": 1_000}
MINI = {"size": 32, "area": (0.7, 1.0), "rows": MINI_ROWS}
MINI_CEILING = 0.943  # of the validation rows have the right label
MINI_BASELINES = {
    "logistic regression on pixels (best of C 1e-4, 1e-3, 1e-2)": 0.246,
    "logistic regression on colour histograms (best of the same)": 0.13,
}
FULL = {"size": 224, "area": (0.08, 1.0)}


def published(validation: float, test: float) -> Mapping[str, Target]:
    """Return AlgoPerf's targets, of accuracy on ImageNet's validation rows and on its test rows."""
    provenance = "AlgoPerf's; its test rows are ImageNet-v2's (matched frequency)"
    target = Target(validation=validation, test=test, provenance=provenance)
    return dict.fromkeys(("folder", "hub"), target)


def load(
    source: str,
    size: int,
    area: tuple[float, float],
    operations: int = 0,
    mixup_alpha: float = 0.0,
    rows: Mapping[str, int] | None = None,
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return images, uint8 (N, S, S, 3), and their classes, int32 (N,).

    Args:
        source: 'builtin', 'hub' or a folder.
        size: The side of an image that the model sees.
        area: The least and the largest share of an image that is trained on.
        operations: How many operations of RandAugment change it then.
        mixup_alpha: The parameter of mixup; 0 mixes nothing.
        rows: The number of generated images of each split.
        seed: The seed of the generated images, and of a held-out split.
        skip_bad_rows: Whether files that cannot be decoded are left out and counted.
        validation_seed: As of `textured_shapes.generate`.
    """
    if source == "builtin":
        assert rows is not None
        splits = {
            split: textured_shapes.generate(
                split, rows[split], size, seed, validation_seed=validation_seed
            )
            for split in SPLITS
        }
        classes = textured_shapes.CLASSES
        notes: dict[str, Any] = {}
        model: dict[str, Any] = {}
        built: Mapping[str, Any] = splits
    else:
        images, names, notes = image_files.read(source, HUB, seed, skip_bad_rows)
        classes, model = len(names), {"classes": len(names)}
        crop = functools.partial(centre_crop, size=size, resized=round(size / CENTRE_SHARE))
        built = {split: images[split].rows(crop, (size, size, 3)) for split in SPLITS}
    augmentation = ImageAugmentation(size, area, operations, mixup_alpha, classes)
    return Data(built, model=model, notes=notes, augmentation=augmentation)

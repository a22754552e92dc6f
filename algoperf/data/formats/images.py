"""Images in files, decoded when they are asked for: a folder for each class, ImageNet's validation
images with their labels as they are published, and the hub's parquet layout.

    FOLDER/train/n01440764/*.JPEG     a folder for each class, of any name (JPEG or PNG)
    FOLDER/val/n01440764/*.JPEG       the same, or
    FOLDER/val/*_00000001.JPEG        all in one folder, with LOC_val_solution.csv (Kaggle's), or
                                      ILSVRC2012_validation_ground_truth.txt and meta.mat (the
                                      development kit's), in FOLDER, val, data or the kit's folder
    FOLDER/test/...                   as train; or imagenetv2-matched-frequency-format-val, whose
                                      folders are the classes' numbers

A class is its place among the sorted names of train's folders. Rows are in the order of their
names. A split that is not there is a seeded tenth of the training rows, at most 6,000. ImageNet's
own test images, ILSVRC2012_test_*.JPEG in one folder, have no labels that are published: that
folder is left out and noted.
"""

import concurrent.futures
import csv
import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from algoperf.data import prefetch
from algoperf.data.formats import records, sources
from algoperf.data.rows import SAMPLES, DecodedRows
from algoperf.errors import UserError
from algoperf.workload import SPLITS

ENDINGS = (".jpeg", ".jpg", ".png")
FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "dev"),
    "test": ("test", "imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"),
}
KAGGLE_LABELS = "LOC_val_solution.csv"
KIT_LABELS, KIT_CLASSES = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LABEL_FOLDERS = (".", "val", "validation", "data", "ILSVRC2012_devkit_t12/data")
NUMBER = re.compile(r"(\d+)\.[A-Za-z]+$")
PUBLISHED = re.compile(r"_val_\d+\.[A-Za-z]+$")  # whose labels are, in whatever folder they lie
BAD = "cannot be decoded"
Labels = NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        labels: Their classes, (N,).
        read: From a row's index to the bytes of its file.
        where: From a row's index to what an error calls the image.
        digest: What tells these images and their labels from others.
    """

    labels: Labels
    read: Callable[[int], bytes]
    where: Callable[[int], str]
    digest: str

    def open(self, index: int) -> Image.Image:
        """Return an image in three colours.

        Raises:
            UserError: It cannot be decoded; the message names it.
        """
        try:
            with Image.open(io.BytesIO(self.read(index))) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            is_unknown = isinstance(error, UnidentifiedImageError)  # whose text is an address
            reason = "no format that is known" if is_unknown else str(error).splitlines()[0]
            raise UserError(
                f"{self.where(index)}: no image that can be decoded ({reason})"
            ) from error

    def chosen(self, rows: NDArray[np.int64]) -> "Images":
        """Return these images alone, in that order."""
        return dataclasses.replace(
            self,
            labels=self.labels[rows],
            read=lambda index: self.read(int(rows[index])),
            where=lambda index: self.where(int(rows[index])),
            digest=_digest([self.digest, hashlib.sha256(rows.tobytes()).hexdigest()]),
        )

    def rows(
        self, crop: Callable[[Image.Image], Image.Image], shape: tuple[int, ...]
    ) -> DecodedRows:
        """Return them as rows with 'inputs', uint8, and 'targets', int32.

        Args:
            crop: From an image to what evaluation sees of it, a function of the image alone.
            shape: The shape of that, (height, width, 3).
        """

        def row(index: int, image: Image.Image) -> Mapping[str, Any]:
            return {"inputs": np.asarray(image), "targets": self.labels[index]}

        return DecodedRows(
            len(self.labels),
            {"inputs": (shape, np.uint8), "targets": ((), np.int32)},
            lambda index: row(index, crop(self.open(index))),
            f"images {self.digest} as {shape}",
            open_row=lambda index: row(index, self.open(index)),
        )


def read(
    source: str, hub: records.Hub, seed: int = 0, skip_bad_rows: bool = False
) -> tuple[dict[str, Images], list[str], dict[str, Any]]:
    """Return the images of every split, the names of the classes, and notes.

    Notes count 'classes', 'bad_rows' and the rows 'held_out' from train, and name as
    'files_ignored' a folder of images without labels, where there is one.

    Args:
        source: 'hub' or a folder, in one of the layouts above.
        hub: The data set of the hub.
        seed: The seed of a split that is held out from the training rows.
        skip_bad_rows: Whether images that cannot be decoded are left out, and counted in the notes;
            each is decoded once for that.

    Raises:
        UserError: A split, a label or a class is missing; the message names where.
    """
    folder = Path(source)
    ignored: list[str] = []
    if source == "hub" or any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet")):
        images, names = _parquet(source, hub)
    else:
        images, names, ignored = _folders(folder)
    notes: dict[str, Any] = {"classes": len(names), "bad_rows": {}}
    if ignored:
        notes["files_ignored"] = ignored
    if skip_bad_rows:
        for split, each in images.items():
            images[split], count = _decodable(f"{source}/{split}", each)
            if count:
                notes["bad_rows"][split] = {BAD: count}
    missing = [split for split in SPLITS if split not in images]
    parts = records.held_out_rows(len(images["train"].labels), missing, seed)
    notes["held_out"] = {split: len(parts[split]) for split in missing}
    held_out = {split: images["train"].chosen(rows) for split, rows in parts.items()}
    return {**images, **held_out}, names, notes


def _decodable(where: str, images: Images) -> tuple[Images, int]:
    """Return the images that can be decoded, and how many cannot."""

    def is_good(index: int) -> bool:
        try:
            images.open(index)
        except UserError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(prefetch.thread_count()) as threads:
        good = np.fromiter(threads.map(is_good, range(len(images.labels))), bool)
    if not good.any():
        raise UserError(f"{where}: no row is left ({len(good)} x {BAD})")
    return images.chosen(np.flatnonzero(good)), int((~good).sum())


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _folders(folder: Path) -> tuple[dict[str, Images], list[str], list[str]]:
    """The splits' images, the names of the classes, and the folders of images without labels."""
    splits: dict[str, Path] = {}
    ignored: list[str] = []
    for split, candidates in FOLDERS.items():
        for path in [folder / name for name in candidates if (folder / name).is_dir()]:
            if split == "test" and _is_unlabelled(path):
                ignored.append(path.name)
            else:
                splits.setdefault(split, path)
    if "train" not in splits:
        raise UserError(
            f"{folder}: no images; expected train, val and test, each with a folder of JPEG or PNG "
            "files for each class, or the hub's parquet layout"
        )
    names = sorted(_subfolders(splits["train"]), key=_class_order)
    if not names:
        raise UserError(f"{splits['train']}: no folder of a class")
    numbers = {name: number for number, name in enumerate(names)}
    images = {}
    for split, path in splits.items():
        classes = _subfolders(path)
        if classes or split == "train":
            images[split] = _of_classes(path, classes, numbers)
        else:
            images[split] = _of_files(path, _published_labels(folder, path, numbers))
    return images, names, ignored


def _is_unlabelled(folder: Path) -> bool:
    """Whether it has images, in no folder of a class, that are not those with published labels."""
    if _subfolders(folder):
        return False
    return any(PUBLISHED.search(name) is None for name, _ in _files(folder))


def _class_order(name: str) -> tuple[int, str]:
    """Numbers in their own order, and all else in that of text."""
    return (int(name) if _is_number(name) else -1, name)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        ]


def _files(folder: Path) -> list[tuple[str, int]]:
    """The images of a folder, by name, with their sizes in bytes."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.stat().st_size)
            for entry in entries
            if entry.name.lower().endswith(ENDINGS) and entry.is_file()
        )


def _of_classes(folder: Path, classes: Sequence[str], numbers: Mapping[str, int]) -> Images:
    by_number: Mapping[int, int] = {}
    if all(_is_number(name) for name in classes):
        by_number = {int(name): each for name, each in numbers.items() if _is_number(name)}
        # Where train has no numbers, they are places among its names: as ImageNet-v2 has them.
        by_number = by_number or dict(enumerate(numbers.values()))
    files: list[tuple[str, int]] = []
    labels: list[int] = []
    for name in sorted(classes, key=_class_order):
        number = numbers.get(name)
        if number is None and by_number:
            number = by_number.get(int(name))
        if number is None:
            raise UserError(f"{folder / name}: a class that no folder of train has")
        own = _files(folder / name)
        files += [(f"{name}/{file}", size) for file, size in own]
        labels += [number] * len(own)
    return _images(folder, files, labels)


def _of_files(folder: Path, labels: Callable[[str], int]) -> Images:
    files = _files(folder)
    return _images(folder, files, [labels(name) for name, _ in files])


def _images(folder: Path, files: Sequence[tuple[str, int]], labels: Sequence[int]) -> Images:
    if not files:
        raise UserError(f"{folder}: no JPEG or PNG file")
    # As bytes of one array: a million texts would take several times as much.
    names = np.array([os.fsencode(name) for name, _ in files])

    def path(index: int) -> Path:
        return folder / os.fsdecode(names[index])

    return Images(
        np.array(labels, np.int32),
        lambda index: path(index).read_bytes(),
        lambda index: str(path(index)),
        _digest(
            [f"{name}:{size}:{label}" for (name, size), label in zip(files, labels, strict=True)]
        ),
    )


def _published_labels(
    folder: Path, images: Path, numbers: Mapping[str, int]
) -> Callable[[str], int]:
    """Return what gives the class of a validation image by its file's name."""
    beside = [folder / name for name in LABEL_FOLDERS] + [images]
    kaggle = next((path for each in beside if (path := each / KAGGLE_LABELS).is_file()), None)
    kit = next((path for each in beside if (path := each / KIT_LABELS).is_file()), None)
    if kaggle is not None:
        classes = _kaggle_classes(kaggle)
        where = kaggle
    elif kit is not None:
        where = kit
        classes = _kit_classes(kit)
    else:
        raise UserError(
            f"{images}: neither a folder for each class nor labels; expected {KAGGLE_LABELS}, or "
            f"{KIT_LABELS} and {KIT_CLASSES}, in {folder}"
        )

    def label(file: str) -> int:
        number = NUMBER.search(file)
        name = classes.get(int(number[1])) if number else None
        if name is None:
            raise UserError(f"{images / file}: {where} has no label for it")
        if name not in numbers:
            raise UserError(f"{where}: class {name!r}, which no folder of train has")
        return numbers[name]

    return label


def _kaggle_classes(path: Path) -> dict[int, str]:
    """By image number, the class of its first box; the header is ImageId,PredictionString."""
    classes = {}
    lines = io.StringIO(_text(path, "utf-8"), newline="")
    for row, fields in enumerate(csv.reader(lines), start=1):
        number = NUMBER.search(f"{fields[0]}.x") if len(fields) == 2 else None
        words = fields[1].split() if len(fields) == 2 else []
        if number and words:
            classes[int(number[1])] = words[0]
        elif row > 1:
            raise UserError(f"{path}:{row}: expected an image and its class")
    return classes


def _text(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no text that can be read ({error}), expected labels") from error


def _kit_classes(path: Path) -> dict[int, str]:
    """By image number, its class: a line of the file is the ILSVRC2012_ID of an image, which is no
    place in the order of names.
    """
    from scipy import io as scipy_io

    meta = path.with_name(KIT_CLASSES)
    if not meta.is_file():
        raise UserError(f"{path}: no {KIT_CLASSES} beside it, which says what its numbers mean")
    try:
        synsets = scipy_io.loadmat(meta, squeeze_me=True)["synsets"]
        names = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
    except Exception as error:  # SciPy's reader raises whatever it stumbles over
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{meta}: no synsets that can be read ({reason}), expected the development kit's"
        ) from error
    classes = {}
    for row, line in enumerate(_text(path, "ascii").split(), start=1):
        if not line.isdigit() or int(line) not in names:
            raise UserError(f"{path}:{row}: class {line!r}, which {meta} does not have")
        classes[row] = names[int(line)]
    return classes


def _parquet(source: str, hub: records.Hub) -> tuple[dict[str, Images], list[str]]:
    import datasets

    path, revision = (hub.path, hub.revision) if source == "hub" else (source, None)
    loaded = sources.load_dataset(path, revision, ("image", "label"), needed=("train",))
    feature = loaded["train"].features["label"]
    names = list(getattr(feature, "names", None) or [])
    images: dict[str, Images] = {}
    for split in (each for each in SPLITS if each in loaded):
        rows = loaded[split].cast_column("image", datasets.Image(decode=False))
        labels = np.asarray(rows.with_format("numpy")["label"][:], np.int64)
        where = f"{path}/{split}"
        if (labels == -1).all():  # the hub's way to keep labels back
            if split == "train":
                raise UserError(f"{where}: no image has a label; expected 0 and more, not -1")
            continue
        largest = len(names) if names else int(labels.max()) + 1
        bad = np.flatnonzero((labels < 0) | (labels >= largest))
        if len(bad):
            raise UserError(
                f"{where}:{bad[0]}: label {labels[bad[0]]}, expected 0 to {largest - 1}"
            )
        names = names or [str(number) for number in range(largest)]
        images[split] = _of_table(where, rows, labels)
    return images, names


def _of_table(where: str, rows: Any, labels: NDArray[np.int64]) -> Images:
    def content(index: int) -> bytes:
        image = rows[index]["image"]
        if image is None:
            raise OSError("there is none")
        return (
            bytes(image["bytes"])
            if image["bytes"] is not None
            else Path(image["path"]).read_bytes()
        )

    return Images(
        labels.astype(np.int32),
        content,
        lambda index: f"{where}:{index}",
        _table_digest(content, labels),
    )


def _table_digest(content: Callable[[int], bytes], labels: NDArray[np.int64]) -> str:
    """Of all labels and of some images, evenly spread; as for files that are mapped."""
    digest = hashlib.sha256(labels.tobytes())
    for index in np.unique(np.linspace(0, len(labels) - 1, SAMPLES, dtype=np.int64)).tolist():
        try:
            digest.update(content(index))
        except OSError:  # it is named where it is opened, or left out
            digest.update(b"no image")
    return digest.hexdigest()[:16]

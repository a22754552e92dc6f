"""Images in files that the tests write: layouts, labels, damage, and decoding by threads."""

import csv
import dataclasses
import io
import itertools
import threading

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io

from algoperf.data import batches, prefetch
from algoperf.data.batches import TrainingQueue
from algoperf.data.formats import images
from algoperf.data.formats.records import Hub
from algoperf.errors import UnreadableRowError, UserError
from workloads.parts.augment import ImageAugmentation
from workloads.parts.imagenet import load

WNIDS = ("n02", "n01", "n10")
NO_HUB = Hub("nobody/nothing", "0" * 40)
SIZE = 8


def picture(number, mode="RGB", size=(20, 16)):
    """A picture that its number tells from others, even after a JPEG's losses."""
    rng = np.random.default_rng(number)
    colour = rng.integers(0, 256, 3)
    pixels = np.empty((*size[::-1], 3), np.uint8)
    pixels[:] = colour
    pixels[: size[1] // 2] = 255 - colour
    return Image.fromarray(pixels).convert(mode)


def save(path, number, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, mode).save(path, quality=95)


@pytest.fixture
def folder(tmp_path):
    """Three classes of five, a validation split by class, a test split by number."""
    number = 0
    for split, names in (("train", WNIDS), ("val", WNIDS), ("test", ("0", "2", "1"))):
        for name in names:
            for row in range(5 if split == "train" else 2):
                save(tmp_path / split / name / f"{name}_{row}.JPEG", number)
                number += 1
    return tmp_path


def read(folder, **settings):
    return images.read(str(folder), NO_HUB, **settings)


def test_a_class_is_its_place_among_the_names(folder):
    splits, names, notes = read(folder)
    assert names == ["n01", "n02", "n10"]
    assert notes == {"classes": 3, "bad_rows": {}, "held_out": {}}
    # In the order of names, so n01 before n02, which were written the other way round.
    assert splits["train"].labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert splits["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.asarray(Image.open(folder / "train" / "n02" / "n02_3.JPEG"))
    np.testing.assert_array_equal(np.asarray(splits["train"].open(8)), expected)
    assert splits["train"].where(8) == str(folder / "train" / "n02" / "n02_3.JPEG")


def test_names_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    for name in ("10", "9", "0"):
        for row in range(5):
            save(tmp_path / "train" / name / f"{row}.png", int(name))
    assert read(tmp_path)[1] == ["0", "9", "10"]


def test_pictures_of_any_mode_become_three_colours(tmp_path):
    for row, (mode, ending) in enumerate(
        [("L", "jpg"), ("RGBA", "png"), ("P", "PNG"), ("CMYK", "jpeg"), ("RGB", "JPEG")] * 3
    ):
        save(tmp_path / "train" / "a" / f"{row:02}.{ending}", row, mode)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".cache").mkdir()
    splits, _, notes = read(tmp_path)
    assert notes["held_out"] == {"validation": 1, "test": 1}
    for split in splits.values():
        for row in range(len(split.labels)):
            assert split.open(row).mode == "RGB"
    assert sum(len(split.labels) for split in splits.values()) == 15


def test_a_split_that_is_missing_is_held_out_by_the_seed(folder):
    for name in ("val", "test"):
        (folder / name).rename(folder / f"no_{name}")
    for row in range(5, 25):
        save(folder / "train" / "n01" / f"n01_{row:02}.JPEG", 100 + row)

    def names(seed):
        splits, _, _ = read(folder, seed=seed)
        return {split: [each.where(row) for row in range(len(each.labels))]
                for split, each in splits.items()}  # fmt: skip

    one, other = names(0), names(1)
    assert {split: len(each) for split, each in one.items()} == {
        "train": 29, "validation": 3, "test": 3,
    }  # fmt: skip
    assert len({name for each in one.values() for name in each}) == 35
    assert one == names(0)
    assert one["test"] != other["test"]
    assert all(each == sorted(each) for each in one.values())


def flat_validation(folder, labels):
    """ImageNet's validation images in one folder; by number the wnid of each."""
    for path in (folder / "val").glob("*/*"):
        path.unlink()
    for path in (folder / "val").iterdir():
        path.rmdir()
    for number in labels:
        save(folder / "val" / f"ILSVRC2012_val_{number:08}.JPEG", number)


LABELS = {1: "n10", 2: "n01", 3: "n10", 4: "n02"}
EXPECTED = [2, 0, 2, 1]


def write_kaggle(folder, labels):
    with (folder / images.KAGGLE_LABELS).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "PredictionString"])
        for number, name in reversed(labels.items()):
            writer.writerow([f"ILSVRC2012_val_{number:08}", f"{name} 1 2 30 40 {name} 5 6 7 8 "])


def write_kit(folder, labels, ids):
    """The kit numbers classes in an order of its own."""
    kit = folder / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    lines = "".join(f"{ids[name]}\n" for _, name in sorted(labels.items()))
    (kit / images.KIT_LABELS).write_text(lines)
    write_kit_classes(kit, ids)
    return kit


def write_kit_classes(kit, ids):
    synsets = np.array(
        [(number, name) for name, number in ids.items()],
        [("ILSVRC2012_ID", "O"), ("WNID", "O")],
    )
    scipy_io.savemat(kit / images.KIT_CLASSES, {"synsets": synsets})


@pytest.mark.parametrize("published", ["kaggle", "kit"])
def test_validation_labels_as_they_are_published(folder, published):
    flat_validation(folder, LABELS)
    if published == "kaggle":
        write_kaggle(folder, LABELS)
    else:
        write_kit(folder, LABELS, {"n10": 1, "n01": 2, "n02": 3})
    validation = read(folder)[0]["validation"]
    assert validation.labels.tolist() == EXPECTED
    assert validation.where(3).endswith("ILSVRC2012_val_00000004.JPEG")


def flat_test(folder, names):
    """A test split of images in one folder."""
    for path in (folder / "test").glob("*/*"):
        path.unlink()
    for path in (folder / "test").iterdir():
        path.rmdir()
    for number, name in enumerate(names):
        save(folder / "test" / name, 200 + number)


@pytest.mark.parametrize("count", [4, 7])
def test_imagenet_s_test_images_have_no_labels(folder, count):
    """Those of the validation images, whose numbers they have, are none of theirs."""
    flat_validation(folder, LABELS)
    write_kaggle(folder, LABELS)
    flat_test(folder, [f"ILSVRC2012_test_{number:08}.JPEG" for number in range(1, count + 1)])
    splits, _, notes = read(folder)
    assert notes["files_ignored"] == ["test"]
    assert notes["held_out"] == {"test": 1}
    assert "train" in splits["test"].where(0)
    assert len(splits["train"].labels) == 14
    assert splits["validation"].labels.tolist() == EXPECTED
    for name in ("0", "2"):  # ImageNet-v2 beside them is the test split
        save(folder / images.FOLDERS["test"][1] / name / "a.jpeg", int(name))
    splits, _, notes = read(folder)
    assert notes["files_ignored"] == ["test"]
    assert notes["held_out"] == {}
    assert splits["test"].labels.tolist() == [0, 2]


def test_validation_images_with_published_labels_may_be_the_test_split(folder):
    flat_test(folder, [f"ILSVRC2012_val_{number:08}.JPEG" for number in LABELS])
    write_kaggle(folder, LABELS)
    splits, _, notes = read(folder)
    assert "files_ignored" not in notes
    assert splits["test"].labels.tolist() == EXPECTED


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ("1 2 3", "1 2", [0, 1]),
        ("1 2 3", "0 1 2", "test/0: a class that no folder of train has"),
        ("1 2 3", "0", "test/0: a class that no folder of train has"),
        ("00 01 10", "0 10", [0, 2]),
        ("a b c", "0 2", [0, 2]),
        ("a b c", "3", "test/3: a class that no folder of train has"),
    ],
)
def test_numbers_are_those_of_train_if_it_has_any(tmp_path, train, test, expected):
    for split, names in (("train", train), ("val", train), ("test", test)):
        for name in names.split():
            save(tmp_path / split / name / "a.png", 0)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            read(tmp_path)
    else:
        assert read(tmp_path)[0]["test"].labels.tolist() == expected


def test_what_is_wrong_with_a_folder_is_said(folder, tmp_path):
    def refused(pattern):
        with pytest.raises(UserError, match=pattern):
            read(folder)

    (folder / "val" / "n99").mkdir()
    refused("n99: a class that no folder of train has")
    (folder / "val" / "n99").rmdir()
    flat_validation(folder, LABELS)
    refused("neither a folder for each class nor labels; expected LOC_val_solution.csv, or ")
    write_kaggle(folder, {1: "n10", 2: "n01", 3: "n10"})
    refused("00000004.JPEG: .*LOC_val_solution.csv has no label for it")
    write_kaggle(folder, {**LABELS, 2: "n77"})
    refused("LOC_val_solution.csv: class 'n77', which no folder of train has")
    (folder / images.KAGGLE_LABELS).unlink()
    kit = write_kit(folder, LABELS, {"n10": 1, "n01": 2, "n02": 3})
    (kit / images.KIT_LABELS).write_text("1\n2\n7\n3\n")
    refused("ground_truth.txt:3: class '7', which .*meta.mat does not have")
    (kit / images.KIT_CLASSES).unlink()
    refused("no meta.mat beside it")
    (folder / "train").rename(folder / "training")
    refused("no images; expected train, val and test")


@pytest.fixture
def truncated(folder):
    path = folder / "train" / "n02" / "n02_1.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_a_truncated_file_is_named_where_it_comes(folder, truncated):
    rows = load(str(folder), SIZE, (0.5, 1.0)).splits["train"]
    rows.take(np.array([0, 5]))
    with pytest.raises(UnreadableRowError, match=f"row 6 .*{truncated}: .*[Tt]runcated"):
        rows.take(np.array([6]))
    augmentation = ImageAugmentation(SIZE, (0.5, 1.0))
    queue = TrainingQueue(rows, 5, 0, augmentation=augmentation)
    with pytest.raises(UnreadableRowError, match=str(truncated)):
        list(itertools.islice(queue, 3))
    queue.close()


def test_bad_rows_can_be_skipped_and_are_counted(folder, truncated):
    (folder / "test" / "1" / "1_0.JPEG").write_bytes(b"no picture at all")
    data = load(str(folder), SIZE, (0.5, 1.0), skip_bad_rows=True)
    assert data.notes["bad_rows"] == {
        "train": {images.BAD: 1},
        "test": {images.BAD: 1},
    }
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 14, "validation": 6, "test": 5,
    }  # fmt: skip
    labels = data.splits["train"].take(np.arange(14))["targets"]
    assert labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    with pytest.raises(UserError, match=r"1_0.JPEG: no image .*no format that is known"):
        read(folder)[0]["test"].open(2)


def test_the_fingerprint_is_of_names_and_sizes(folder):
    def fingerprint():
        return load(str(folder), SIZE, (0.5, 1.0)).fingerprint

    before = fingerprint()
    moved = folder.with_name("elsewhere")
    folder.rename(moved)
    assert load(str(moved), SIZE, (0.5, 1.0)).fingerprint == before
    moved.rename(folder)
    path = folder / "val" / "n01" / "n01_1.JPEG"
    path.write_bytes(path.read_bytes() + b"x")
    assert fingerprint() != before


def test_the_fingerprint_is_of_the_labels_too(folder):
    """Which are written elsewhere than the images: other labels, or one more class in train."""
    flat_validation(folder, LABELS)
    write_kaggle(folder, LABELS)

    def digests():
        return {split: each.digest for split, each in read(folder)[0].items()}

    before = digests()
    write_kaggle(folder, {**LABELS, 2: "n02"})
    after = digests()
    assert {split for split in after if after[split] != before[split]} == {"validation"}
    save(folder / "train" / "n00" / "a.JPEG", 0)
    more = digests()
    # The folders of the test split are the numbers of classes, and still mean the same.
    assert {split for split in more if more[split] != after[split]} == {"train", "validation"}


def test_a_parquet_train_split_without_labels_is_told(tmp_path):
    datasets = pytest.importorskip("datasets")
    file = io.BytesIO()
    picture(0).save(file, "PNG")
    row = {"image": [{"bytes": file.getvalue(), "path": None}] * 2, "label": [-1, -1]}
    table = datasets.Dataset.from_dict(row)
    table.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="/train: no image has a label; expected 0 and more"):
        read(tmp_path)


def test_parquet_images_that_are_not_there(tmp_path):
    """A null, and a file that is missing: named, or left out and counted."""
    pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    picture(0).save(file, "PNG")
    whole = {"bytes": file.getvalue(), "path": None}
    missing = {"bytes": None, "path": str(tmp_path / "missing.png")}
    pixels = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    for split, contents in (
        ("train", [whole] * 20 + [None, missing]),
        ("validation", [whole]),
        ("test", [whole]),
    ):
        columns = {
            "image": pyarrow.array(contents, pixels),
            "label": pyarrow.array([0] * len(contents)),
        }
        path = tmp_path / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table(columns), path)
    train = read(tmp_path)[0]["train"]
    for row in (20, 21):
        with pytest.raises(UserError, match=f"/train:{row}: no image that can be decoded"):
            train.open(row)
    splits, _, notes = read(tmp_path, skip_bad_rows=True)
    assert notes["bad_rows"] == {"train": {images.BAD: 2}}
    assert len(splits["train"].labels) == 20


def test_labels_that_cannot_be_read_are_named(folder):
    def refused(pattern):
        with pytest.raises(UserError, match=pattern):
            read(folder)

    flat_validation(folder, LABELS)
    kit = write_kit(folder, LABELS, {"n10": 1, "n01": 2, "n02": 3})
    scipy_io.savemat(kit / images.KIT_CLASSES, {"others": np.zeros(3)})
    refused(r"meta.mat: no synsets that can be read \(.*\), expected the development kit's")
    (kit / images.KIT_CLASSES).write_bytes(b"no such file" * 20)
    refused(r"meta.mat: no synsets that can be read \(.*\), expected the development kit's")
    (kit / images.KIT_LABELS).write_bytes(b"1\n\xff\n")
    (kit / images.KIT_CLASSES).unlink()
    write_kit_classes(kit, {"n10": 1, "n01": 2, "n02": 3})
    refused("ground_truth.txt: no text that can be read ")
    (folder / images.KAGGLE_LABELS).write_bytes(b"ImageId,PredictionString\nimage_1,\xff\n")
    refused("LOC_val_solution.csv: no text that can be read ")


def test_the_hub_s_parquet_layout(tmp_path):
    """Its images are bytes; a split whose labels are kept back is none."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "elk"])}
    )
    expected = {}
    for split, count in (("train", 20), ("validation", 4), ("test", 3)):
        contents, labels = [], []
        for row in range(count):
            file = io.BytesIO()
            picture(row).save(file, "PNG")
            contents.append({"bytes": file.getvalue(), "path": f"{row}.png"})
            labels.append(-1 if split == "test" else row % 3)
        table = datasets.Dataset.from_dict({"image": contents, "label": labels}, features)
        table.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
        expected[split] = labels
    splits, names, notes = read(tmp_path)
    assert names == ["cat", "dog", "elk"]
    assert notes["held_out"] == {"test": 2}
    assert splits["validation"].labels.tolist() == expected["validation"]
    np.testing.assert_array_equal(np.asarray(splits["validation"].open(2)), picture(2))
    together = np.concatenate([splits["train"].labels, splits["test"].labels])
    assert sorted(together) == sorted(expected["train"])


@pytest.mark.parametrize("threads", [1, 4])
def test_pixels_and_order_do_not_depend_on_threads(folder, threads, monkeypatch):
    """Nor does evaluation, and no more batches are decoded ahead than are allowed."""
    monkeypatch.setattr(prefetch, "thread_count", lambda: threads)
    data = load(str(folder), SIZE, (0.3, 1.0), operations=2, mixup_alpha=0.2)
    rows = data.splits["train"]
    opened, lock = [0], threading.Lock()
    read_file = data.splits["train"]._open_row

    def counted(index):
        with lock:
            opened[0] += 1
        return read_file(index)

    rows._open_row = counted
    queue = TrainingQueue(rows, 4, 1, augmentation=data.augmentation, depth=3)
    plain = dataclasses.replace(data).splits["train"]
    plain.is_slow = False
    alone = TrainingQueue(plain, 4, 1, augmentation=data.augmentation)
    for step in range(12):
        batch, expected = next(queue), next(alone)
        for name, array in batch.items():
            np.testing.assert_array_equal(array, expected[name])
        # Five images a batch (four, and the one before the first), of which `alone` has its own.
        assert opened[0] <= 5 * (2 * (step + 1) + 3)
    queue.close()
    rows.is_slow = True
    whole = list(batches.once(rows, 4))
    rows.is_slow = False
    for batch, expected in zip(whole, batches.once(rows, 4), strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, expected[name])

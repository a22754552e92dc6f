"""Rows from files: the original CSV layout, gzipped or not, and the hub's parquet layout."""

import gzip

import pyarrow
import pyarrow.parquet
import pytest

from algoperf.data.formats import sources
from algoperf.errors import UserError
from algoperf.workload import catalogue
from workloads.ag_news import data


def csv_lines(rows, start=0):
    return "".join(
        f'"{1 + row % 4}","t{row}","said ""{row}"", and\nwent"\n'
        for row in range(start, start + rows)
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.csv").write_text(csv_lines(40))
    (tmp_path / "test.csv").write_text(csv_lines(8, 100))
    return tmp_path


def parquet(folder, columns=("text", "label"), splits=("train", "test"), rows=40):
    (folder / "data").mkdir()
    for split in splits:
        count, start = (rows, 0) if split == "train" else (8, 100)
        texts = [f't{row} said "{row}", and\nwent' for row in range(start, start + count)]
        labels = [row % 4 for row in range(start, start + count)]
        table = pyarrow.table(dict(zip(columns, (texts, labels), strict=True)))
        pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_csv(folder):
    splits = data.read(str(folder))
    texts, labels = splits["test"]
    assert texts[1] == 't101 said "101", and\nwent'
    assert labels == [0, 1, 2, 3, 0, 1, 2, 3]
    assert len(splits["validation"][0]) == 4
    held_out = set(splits["validation"][0])
    assert held_out | set(splits["train"][0]) == {
        f't{row} said "{row}", and\nwent' for row in range(40)
    }
    assert len(splits["train"][0]) == 36
    for text, label in zip(*splits["train"], strict=True):
        assert int(text[1:].split()[0]) % 4 == label
    assert data.read(str(folder)) == splits
    assert set(data.read(str(folder), seed=1)["validation"][0]) != held_out


def test_gzipped_rows_are_the_same(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("gz")
    for path in folder.iterdir():
        (other / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert data.read(str(other)) == data.read(str(folder))


def test_parquet_rows_are_the_same(folder, tmp_path_factory, cache):
    assert data.read(str(parquet(tmp_path_factory.mktemp("hub")))) == data.read(str(folder))


def test_parquet_with_other_columns_or_splits(tmp_path_factory, cache):
    path = parquet(tmp_path_factory.mktemp("hub"), columns=("text", "class"))
    with pytest.raises(
        UserError, match="split 'train' has no column 'label'; expected: text, label"
    ):
        data.read(str(path))
    path = parquet(tmp_path_factory.mktemp("hub"), splits=("train",))
    with pytest.raises(UserError, match="no split 'test'; it has: train"):
        data.read(str(path))


def test_folder_in_no_layout(tmp_path, cache):
    with pytest.raises(UserError, match="neither the data set's original files nor the hub's"):
        data.read(str(tmp_path))
    (tmp_path / "train.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="neither the data set's original files nor the hub's"):
        data.read(str(tmp_path))


def test_only_one_split(folder):
    (folder / "test.csv").unlink()
    with pytest.raises(UserError, match=r"no test\.csv or test\.csv\.gz beside the other split"):
        data.read(str(folder))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"no gzip", "csv.gz:1: unreadable"),
        (gzip.compress(csv_lines(4000).encode())[:-2000], "csv.gz:[0-9]+: unreadable"),
        (gzip.compress(csv_lines(400).encode())[:40] + b"\xff" * 400, "csv.gz:[0-9]+: unreadable"),
        (gzip.compress(b'"1","a","b"\n' * 900 + b'"1","\xff","b"\n'), "csv.gz:901: unreadable"),
    ],
    # Not by the bytes: gzip puts the time into them, and two processes must find the same tests.
    ids=["not gzip", "cut off", "corrupt", "not UTF-8"],
)
def test_broken_gzip(tmp_path, content, place):
    path = tmp_path / "train.csv.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=place):
        list(sources.read_csv(path, 3))


def test_a_byte_order_mark_hides_no_label(folder):
    path = folder / "train.csv"
    before = data.read(str(folder))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert data.read(str(folder)) == before


@pytest.mark.parametrize("label", [True, float("nan"), float("inf"), 1.0, 4])
def test_labels_that_are_none(label):
    with pytest.raises(UserError, match=r"^here:1: label .* expected 0 to 3$"):
        data._checked("here", iter([("here:1", "a text", label)]))


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UserError, match=r"^here:1: no Unicode text \(character 3 "):
        data._checked("here", iter([("here:1", "a \ud800", 1)]))


def test_a_quotation_mark_without_its_other_swallows_no_rows(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text('a,b\n1,"2"\n3,"4\n5,6\n')
    with pytest.raises(UserError, match=r"all\.csv:3: unreadable \(unexpected end of data\)"):
        list(sources.read_csv(path, None))


def test_quoted_newlines_do_not_shift_the_row_number(folder):
    with (folder / "train.csv").open("a") as file:
        file.write('"9","a","b"\n')
    with pytest.raises(UserError, match=r"train\.csv:41: class '9', expected 1 to 4"):
        data.read(str(folder))


def test_resolve():
    ag_news, digits = catalogue.find("ag_news"), catalogue.find("digits")
    assert sources.resolve(ag_news, ag_news.scales["mini"], None) == ("builtin", "builtin")
    assert sources.resolve(ag_news, ag_news.scales["full"], None) == ("hub", "hub")
    assert sources.resolve(ag_news, ag_news.scales["mini"], "hub") == ("hub", "hub")
    with pytest.raises(UserError, match="digits reads no folder"):
        sources.resolve(digits, digits.scales["mini"], ".")
    fastmri = catalogue.find("fastmri")  # which neither the hub nor a generator has at full scale
    with pytest.raises(UserError, match=r"fastmri at this scale needs .* give --data FOLDER"):
        sources.resolve(fastmri, fastmri.scales["full"], None)


def test_a_folder_that_is_named_like_a_source_is_reached_by_a_path(tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    monkeypatch.chdir(tmp_path)
    ag_news = catalogue.find("ag_news")
    assert sources.resolve(ag_news, ag_news.scales["mini"], "hub") == ("hub", "hub")
    assert sources.resolve(ag_news, ag_news.scales["mini"], "./hub") == (
        "folder",
        str(tmp_path / "hub"),
    )


def test_digits_are_scikit_learns_own():
    import numpy as np
    from sklearn.datasets import load_digits

    from workloads.digits.data import load

    splits = load("builtin", validation_rows=500, test_rows=297, seed=0).splits
    images, labels = load_digits(return_X_y=True)
    rows = [
        (*(16 * image), label)
        for split in splits.values()
        for image, label in zip(split["inputs"], split["targets"], strict=True)
    ]
    expected = np.column_stack([images, labels])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    assert {split: len(arrays["targets"]) for split, arrays in splits.items()} == {
        "train": 1000,
        "validation": 500,
        "test": 297,
    }

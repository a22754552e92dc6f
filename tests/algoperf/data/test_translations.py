"""Pairs of sentences from a folder, in every layout; what is damaged is named."""

import gzip
import io
import json

import pyarrow
import pytest
from pyarrow import parquet

from algoperf.data.formats import translations
from algoperf.errors import UserError

LANGUAGES = ("de", "en")
PAIRS = {
    split: [(f"{split} {row} Wörter\u2028hier", f"{split} {row} words") for row in range(count)]
    for split, count in (("train", 20), ("validation", 3), ("test", 2))
}


def objects(split, nested):
    rows = [dict(zip(LANGUAGES, pair, strict=True)) for pair in PAIRS[split]]
    return [{"translation": row} if nested else row for row in rows]


def write_lines(folder, names, zipped):
    for split, name in names.items():
        for side, language in enumerate(LANGUAGES):
            content = "".join(f"{pair[side]}\n" for pair in PAIRS[split]).encode()
            path = folder / f"{name}.{language}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


def expected():
    return {
        split: {language: [pair[side] for pair in rows] for side, language in enumerate(LANGUAGES)}
        for split, rows in PAIRS.items()
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_files_of_lines(tmp_path, zipped):
    names = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
    write_lines(tmp_path, names, zipped)
    (tmp_path / "README.md").write_text("not rows")
    splits, notes = translations.read(str(tmp_path), LANGUAGES)
    assert splits == expected()
    assert notes == {"files_ignored": [], "bad_rows": {}, "held_out": {}}


@pytest.mark.parametrize("nested", [False, True])
def test_objects(tmp_path, nested):
    for split in PAIRS:
        lines = [json.dumps(row) for row in objects(split, nested)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    assert translations.read(str(tmp_path), LANGUAGES)[0] == expected()


def test_the_hub_s_files(tmp_path):
    for split in PAIRS:
        written = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(objects(split, True)), written)
        path = tmp_path / "de-en" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(written.getvalue())
    assert translations.read(str(tmp_path), LANGUAGES)[0] == expected()


def test_a_split_that_is_not_there_is_held_out(tmp_path):
    write_lines(tmp_path, {"train": "train", "test": "test"}, False)
    splits, notes = translations.read(str(tmp_path), LANGUAGES)
    assert notes["held_out"] == {"validation": 2}
    assert len(splits["train"]["de"]) == 18
    pairs = {
        pair
        for split in ("train", "validation")
        for pair in zip(*splits[split].values(), strict=True)
    }
    assert pairs == set(PAIRS["train"])


def refused(folder):
    with pytest.raises(UserError) as refusal:
        translations.read(str(folder), LANGUAGES)
    return str(refusal.value)


def test_what_is_damaged_is_named(tmp_path):
    write_lines(tmp_path, {split: split for split in PAIRS}, False)
    train = tmp_path / "train.en"
    whole = train.read_bytes()
    train.write_bytes(whole + b"one more\n")
    assert refused(tmp_path).startswith(f"{tmp_path}/train.de: 20 lines, and train.en has more")
    train.write_bytes(whole.replace(b"train 4 words", b"train \xff words"))
    assert f"{tmp_path}/train.de:5: 'en' is no Unicode text" in refused(tmp_path)
    train.write_bytes(whole.replace(b"train 4 words", b" "))
    assert f"{tmp_path}/train.de:5: 'en' is empty; --skip-bad-rows" in refused(tmp_path)
    splits, notes = translations.read(str(tmp_path), LANGUAGES, skip_bad_rows=True)
    assert notes["bad_rows"] == {"train": {"'en' is empty": 1}}
    assert [len(side) for side in splits["train"].values()] == [19, 19]
    train.unlink()
    assert f"{tmp_path}/train.de: there is no file of its lines in 'en'" in refused(tmp_path)
    (tmp_path / "train.en.gz").write_bytes(gzip.compress(whole)[:-30])
    assert f"{tmp_path}/train.en.gz:" in refused(tmp_path)
    assert "unreadable" in refused(tmp_path)


def test_names_that_mean_nothing_or_two_things(tmp_path):
    write_lines(tmp_path, {split: split for split in PAIRS}, False)
    write_lines(tmp_path, {"test": "test_2017"}, False)
    assert "a second file of split 'test'" in refused(tmp_path)
    for language in LANGUAGES:
        (tmp_path / f"test_2017.{language}").rename(tmp_path / f"corpus.{language}")
    assert f"{tmp_path}/corpus.de: unknown split" in refused(tmp_path)


def test_no_training_rows(tmp_path):
    write_lines(tmp_path, {"test": "test"}, False)
    assert "no train split; expected train.de" in refused(tmp_path)

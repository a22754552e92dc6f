"""`algoperf data`: what it prints and writes, exports that are read back, mistakes in one line."""

import csv
import json

import numpy as np
import pytest

from algoperf import workload
from algoperf.cli import commands
from algoperf.data.loading import load_data
from algoperf.data.report import export, facts
from algoperf.errors import UserError
from algoperf.workload import catalogue


@pytest.fixture
def shown(capsys):
    def run(*words):
        assert commands.main(["data", *map(str, words)]) == 0
        return capsys.readouterr().out

    return run


def test_json_png_and_tables_of_digits(shown, tmp_path):
    found = json.loads(shown("digits", "--json", "--out", tmp_path / "new"))
    assert json.loads((tmp_path / "new" / "facts.json").read_text()) == found
    definition = catalogue.find("digits")
    data = load_data(definition, definition.scales["mini"], "builtin")
    assert found["fingerprint"] == data.fingerprint
    assert found["rows"] == {"train": 1000, "validation": 500, "test": 297}
    for split, arrays in data.splits.items():
        counts = {str(label): int((arrays["targets"] == label).sum()) for label in range(10)}
        assert found["labels"][split]["rows"] == counts
    assert (tmp_path / "new" / "lengths.png").read_bytes().startswith(b"\x89PNG")
    text = shown("digits")
    assert data.fingerprint in text
    assert "unreadable" not in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["xsun"], "unknown workload 'xsun'; did you mean xsum?"),
        (["export"], "unknown workload 'export'"),
        (["digits", "--scale", "minni"], "did you mean mini?"),
        (["digits", "--data", "hub"], "unknown data for digits 'hub'"),
        (["ag_news", "--data", "nowhere"], "no such folder"),
        (["exprot", "digits"], "not exprot digits"),
        (["digits", "--format", "jsonl"], "data export WORKLOAD"),
        (["digits", "--skip-bad-rows"], "digits refuses bad rows"),
        (["export", "digits"], "needs --out"),
        (["export", "digits", "--out", "full"], "full is not an empty folder"),
        (["export", "digits", "--out", "full/file"], "--out full/file: a file, not a folder"),
        (["export", "digits", "--json", "--out", "new"], "--json is for facts"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert commands.main(["data", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert (tmp_path / "full" / "file").read_text() == "mine"


# Export.


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


AWKWARD = ['Oil, "black gold"\nrises', "Naïve 一\u2028two\x85", "a\r\nb\\n", "tab\there \U0001f642"]


def news(folder, rows=60):
    for name, count in (("train", rows), ("test", 9)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [1 + row % 4, f"t{row}", AWKWARD[row % 3 if name == "test" else row % 4]]
                for row in range(count)
            )
    return folder


@pytest.mark.parametrize("form", export.FORMATS)
def test_exported_news_are_read_back_as_the_same_rows(tmp_path, cache, shown, form):
    folder = news(tmp_path)
    out = tmp_path / "out"
    printed = shown("export", "ag_news", "--data", folder, "--format", form, "--out", out)
    names = [f"{split}.{form}" for split in workload.SPLITS]
    assert printed.split() == [str(out / name) for name in names]
    first, again = (
        json.loads(shown("ag_news", "--data", where, "--json")) for where in (folder, out)
    )
    assert first.pop("path") != again.pop("path")
    assert again == first
    assert first["rows"] == {"train": 54, "validation": 6, "test": 9}


def test_exported_digits(tmp_path):
    definition = catalogue.find("digits")
    scale = definition.scales["mini"]
    paths = export.write(definition, scale, "builtin", "jsonl", tmp_path / "new" / "out")
    data = load_data(definition, scale, "builtin")
    for path in paths:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        arrays = data.splits[path.stem]
        pixels = np.array([row["pixels"] for row in rows], np.float32)
        np.testing.assert_array_equal(pixels, arrays["inputs"])
        assert [row["label"] for row in rows] == arrays["targets"].tolist()


def test_an_exported_summarization_data_set_has_its_own_fields(tmp_path, shown):
    folder = tmp_path / "own"
    folder.mkdir()
    for split, count in (("train", 30), ("validation", 4), ("test", 4)):
        lines = [
            json.dumps({"document": f"{split} {row} {AWKWARD[1]}", "summary": f"s{row}"})
            for row in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    shown("export", "xsum", "--data", folder, "--format", "parquet", "--out", out)
    first, again = (json.loads(shown("xsum", "--data", where, "--json")) for where in (folder, out))
    assert again["fingerprint"] == first["fingerprint"]
    assert again["duplicates"] == first["duplicates"]
    assert first["duplicates"]["target"]["across"]["train/test"]["exact"] == 4


def test_bad_rows_are_counted(tmp_path, shown, capsys):
    lines = [json.dumps({"document": f"text {row}", "summary": f"s{row}"}) for row in range(40)]
    lines[3:3] = [json.dumps({"document": "text", "summary": " "}), "{", '{"document": "a"}']
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    assert commands.main(["data", "xsum", "--data", str(tmp_path)]) == 2
    assert "train.jsonl:4: 'summary' is empty" in capsys.readouterr().err
    words = ("xsum", "--data", tmp_path, "--skip-bad-rows")
    found = json.loads(shown(*words, "--json"))
    assert sum(found["bad_rows"]["train"].values()) == 3
    assert found["held_out"] == {"validation": 4, "test": 4}
    assert found["rows"]["train"] == 32
    text = shown(*words)
    assert "left out of train: 1 x 'summary' is empty" in text
    assert "test: 4 rows held out of train" in text


def test_a_damaged_row_that_is_met_while_reading_is_one_line(tmp_path, capsys):
    row = "\t".join(["1", *["3"] * 13, *["0000000f"] * 26])
    for day in (0, 1):
        lines = [row] * 40
        lines[6] = lines[6] if day else "1\t2\t3"
        (tmp_path / f"day_{day}").write_text("".join(f"{line}\n" for line in lines))
    for words in (["criteo1tb"], ["export", "criteo1tb", "--out", str(tmp_path / "new")]):
        assert commands.main(["data", *words, "--data", str(tmp_path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"algoperf: {tmp_path / 'day_0'}, line 7: 3 columns")
        assert captured.err.count("\n") == 1


def test_references_whose_words_rouge_does_not_see_are_told_once(tmp_path, shown):
    rows = [
        {"document": f"text {row}", "summary": "खबर" if row % 4 else "news"} for row in range(40)
    ]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = shown("xsum", "--data", tmp_path)
    assert told.count("75.0% of the reference texts have none and score 0") == 1
    (remark,) = json.loads(shown("xsum", "--data", tmp_path, "--json"))["remarks"]
    assert remark in told.replace("\n", "")


def test_a_folder_in_no_layout_is_the_loader_s_error(tmp_path, cache):
    definition = catalogue.find("ag_news")
    with pytest.raises(UserError, match="neither the data set's original files"):
        facts.read(definition, definition.scales["mini"], str(tmp_path))

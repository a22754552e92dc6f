"""Rows of named fields from files: every format, gzipped or not; every way a file can be bad."""

import csv
import gzip
import io
import itertools
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from algoperf.data.formats import records
from algoperf.errors import UserError

HUB = records.Hub("somebody/news", "0" * 40)
FIELDS = ("document", "summary")
TEXTS = {  # by split: awkward texts, each told apart by its number
    "train": [f'{row} "said",\nand\u2028\x85 naïve 東京' for row in range(30)],
    "validation": [f"{row} validation" for row in range(3)],
    "test": [f"{row} test" for row in range(2)],
}


def rows_of(split: str) -> list[dict[str, str]]:
    return [
        {"id": str(row), "document": text, "summary": f"about {text}"}
        for row, text in enumerate(TEXTS[split])
    ]


def columns_of(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    return {field: [row[field] for row in rows] for field in rows[0]}


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows) -> bytes:
    written = io.BytesIO()
    parquet.write_table(pyarrow.table(columns_of(rows)), written)
    return written.getvalue()


WRITERS = {
    "jsonl": ("jsonl", jsonl),
    "list": ("json", lambda rows: json.dumps(rows).encode()),
    "indented": ("json", lambda rows: json.dumps(rows, indent=1).encode()),
    "columns": ("json", lambda rows: json.dumps(columns_of(rows)).encode()),
    "data": ("json", lambda rows: json.dumps({"version": 1, "data": rows}).encode()),
    "lines named json": ("json", jsonl),
    "byte order mark": ("jsonl", lambda rows: b"\xef\xbb\xbf" + jsonl(rows)),
    "csv": ("csv", as_csv),
    "parquet": ("parquet", as_parquet),
}


def write_all(folder: Path, writer: str = "jsonl", zipped: bool = False) -> Path:
    ending, write = WRITERS[writer]
    for split in TEXTS:
        content = write(rows_of(split))
        path = folder / f"{split}.{ending}"
        if zipped:
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)
    return folder


def read(folder: Path, **settings):
    return records.read(str(folder), HUB, FIELDS, **settings)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, writer: str, zipped: bool) -> None:
    splits, notes = read(write_all(tmp_path, writer, zipped))
    assert list(splits) == ["train", "validation", "test"]
    for split, texts in TEXTS.items():
        assert splits[split] == {
            "document": texts,
            "summary": [f"about {text}" for text in texts],
        }
    assert notes == {"files_ignored": [], "bad_rows": {}, "held_out": {}}


def test_a_column_of_texts_that_is_there_twice_is_named(tmp_path: Path) -> None:
    content = "id,document,summary,id\n" + "0,a,b,1\n" * 10
    (tmp_path / "train.csv").write_text(content)
    assert read(tmp_path)[0]["train"]["document"] == ["a"] * 8
    (tmp_path / "train.csv").write_text(content.replace("id", "summary"))
    with pytest.raises(UserError, match=r"train.csv:1: column 'summary' is there twice; --skip"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["val", "dev", "validation"])
def test_the_names_of_the_validation_split(tmp_path: Path, name: str) -> None:
    write_all(tmp_path)
    (tmp_path / "validation.jsonl").rename(tmp_path / f"{name}.jsonl")
    assert read(tmp_path)[0]["validation"]["document"] == TEXTS["validation"]


@pytest.mark.parametrize("below", [".", "data"])
def test_the_hub_s_parquet_shards(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    halves = rows_of("train")[:20], rows_of("train")[20:]
    for shard, rows in enumerate(halves):
        (folder / f"train-0000{shard}-of-00002.parquet").write_bytes(as_parquet(rows))
    for split in ("validation", "test"):
        (folder / f"{split}-00000-of-00001-0a1b2c.parquet").write_bytes(as_parquet(rows_of(split)))
    (tmp_path / "dataset_infos.json").write_text("{}")
    splits, notes = read(tmp_path)
    assert {split: columns["document"] for split, columns in splits.items()} == TEXTS
    assert notes["files_ignored"] == []
    (folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="1 of the 2 files of 'train'"):
        read(tmp_path)


def test_line_ends_become_one_kind(tmp_path: Path) -> None:
    rows = [{"document": f"{row}\r\na\n\nb\rc\r\n", "summary": "a\r\nb"} for row in range(30)]
    for split in TEXTS:
        (tmp_path / f"{split}.jsonl").write_bytes(jsonl(rows).replace(b"\n", b"\r\n"))
    columns = read(tmp_path)[0]["test"]
    assert columns["document"] == [f"{row}\na\n\nb\nc\n" for row in range(30)]
    assert set(columns["summary"]) == {"a\nb"}


def test_missing_splits_are_held_out_of_train(tmp_path: Path) -> None:
    write_all(tmp_path)
    for name in ("validation.jsonl", "test.jsonl"):
        (tmp_path / name).unlink()
    splits, notes = read(tmp_path)
    assert notes["held_out"] == {"validation": 3, "test": 3}
    parts = [columns["document"] for columns in splits.values()]
    assert [len(part) for part in parts] == [24, 3, 3]
    assert sorted(itertools.chain(*parts)) == sorted(TEXTS["train"])
    for columns in splits.values():
        assert columns["summary"] == [f"about {text}" for text in columns["document"]]
        numbers = [int(text.split()[0]) for text in columns["document"]]
        assert numbers == sorted(numbers)
    assert read(tmp_path) == (splits, notes)
    assert read(tmp_path, seed=1)[0]["test"] != splits["test"]


def test_a_split_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "validation.jsonl").unlink()
    splits, notes = read(tmp_path)
    assert splits["test"]["document"] == TEXTS["test"]
    assert notes["held_out"] == {"validation": 3}
    assert len(splits["train"]["document"]) == 27


def test_at_most_6000_rows_are_held_out_and_at_least_one() -> None:
    splits, held_out = records.hold_out({"train": {"a": ["x"] * 70_000}, "test": {"a": ["y"]}}, 0)
    assert held_out == {"validation": 6000}
    assert len(splits["train"]["a"]) == 64_000
    with pytest.raises(UserError, match="9 training rows leave none for validation and test"):
        records.hold_out({"train": {"a": ["x"] * 9}}, 0)


GOOD = {"document": "d", "summary": "s"}
BAD_ROWS = {  # what stands in the file: (its place in the error, the reason it is counted under)
    "empty summary": ({"document": "d", "summary": ""}, "'summary' is empty"),
    "white document": ({"document": " \r\n\t", "summary": "s"}, "'document' is empty"),
    "no field": ({"document": "d", "id": "1"}, "no field 'summary'"),
    "a number": ({"document": 7, "summary": "s"}, "'document' is not text"),
    "null": ({"document": "d", "summary": None}, "'summary' is not text"),
    "a list": (["d", "s"], "not an object with fields"),
}


@pytest.mark.parametrize("form", ["jsonl", "list"])
@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_or_counted(tmp_path: Path, row, reason: str, form: str) -> None:
    write_all(tmp_path, form)
    ending, write = WRITERS[form]
    path = tmp_path / f"train.{ending}"
    path.write_bytes(write([GOOD, GOOD, row, GOOD, row]))
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: {reason}")
    assert "\n" not in message
    assert "--skip-bad-rows" in message
    splits, notes = read(tmp_path, skip_bad_rows=True)
    assert splits["train"] == {"document": ["d"] * 3, "summary": ["s"] * 3}
    assert notes["bad_rows"] == {"train": {reason: 2}}


def test_reasons_are_counted_apart(tmp_path: Path) -> None:
    write_all(tmp_path)
    bad = [row for row, _ in BAD_ROWS.values()]
    (tmp_path / "test.jsonl").write_bytes(jsonl([GOOD, *bad, bad[0]]) + b"{\n\n")
    notes = read(tmp_path, skip_bad_rows=True)[1]
    assert notes["bad_rows"]["test"] == {
        **{reason: 1 for _, reason in BAD_ROWS.values()},
        "'summary' is empty": 2,
        "not JSON": 1,
    }


def test_a_line_that_is_not_json(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / "train.jsonl"
    path.write_bytes(jsonl([GOOD]) + b"\n" + b'{"document": "d", \n' + jsonl([GOOD]))
    with pytest.raises(UserError, match=r"train\.jsonl:3: not JSON"):
        read(tmp_path)
    splits, notes = read(tmp_path, skip_bad_rows=True)
    assert len(splits["train"]["document"]) == 2
    assert notes["bad_rows"] == {"train": {"not JSON": 1}}


def test_a_csv_row_with_another_number_of_fields(tmp_path: Path) -> None:
    write_all(tmp_path, "csv")
    path = tmp_path / "train.csv"
    path.write_text('document,summary\n"a\nb",s\nd\nd,s\n')
    with pytest.raises(UserError, match=r"train\.csv:2: .*\(1 fields, the header has 2\)"):
        read(tmp_path)
    splits, _ = read(tmp_path, skip_bad_rows=True)
    assert splits["train"]["document"] == ["a\nb", "d"]


def test_long_csv_fields(tmp_path: Path) -> None:
    write_all(tmp_path, "csv")
    (tmp_path / "test.csv").write_bytes(as_csv([{"document": "long " * 60_000, "summary": "s"}]))
    assert len(read(tmp_path)[0]["test"]["document"][0]) == 300_000


NO_TEXT = "'document' is no Unicode text"
BAD_BYTES = json.dumps({"document": "a ~ b", "summary": "s"}).encode().replace(b"~", b"\xff")


def invalid_parquet() -> bytes:
    """Three rows, of which the second has a byte that is no UTF-8."""
    offsets = pyarrow.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3)))
    bad = pyarrow.StringArray.from_buffers(3, offsets, pyarrow.py_buffer(b"d\xffd"))
    written = io.BytesIO()
    parquet.write_table(pyarrow.table({"document": bad, "summary": ["s"] * 3}), written)
    return written.getvalue()


@pytest.mark.parametrize(
    ("ending", "content", "reason"),
    [
        (
            "jsonl",
            jsonl([GOOD]) + b'{"document": "\\ud800", "summary": "s"}\n' + jsonl([GOOD]),
            NO_TEXT,
        ),
        ("jsonl", jsonl([GOOD]) + BAD_BYTES + b"\n" + jsonl([GOOD]), NO_TEXT),
        ("jsonl", jsonl([GOOD]) + b"[" * 100_000 + b"\n" + jsonl([GOOD]), "not JSON"),
        ("jsonl", jsonl([GOOD]) + b'{"id": ' + b"7" * 5000 + b"}\n" + jsonl([GOOD]), "not JSON"),
        ("json", b'{"document": ["d", "\\udc00x", "d"], "summary": ["s", "s", "s"]}', NO_TEXT),
        ("json", b"[" + b",".join([jsonl([GOOD]), BAD_BYTES, jsonl([GOOD])]) + b"]", NO_TEXT),
        ("csv", b"document,summary\nd,s\na\xff,s\nd,s\n", NO_TEXT),
        ("csv", b"document,summary\nd,s\n\xed\xa0\x80,s\nd,s\n", NO_TEXT),
        ("parquet", invalid_parquet(), "not UTF-8"),
    ],
    ids=[
        "surrogate",
        "bytes",
        "deep",
        "digits",
        "json-surrogate",
        "json-bytes",
        "csv",
        "csv-surrogate",
        "parquet",
    ],
)
def test_a_row_that_is_no_unicode_is_a_bad_row(tmp_path, ending, content, reason) -> None:
    write_all(tmp_path)
    (tmp_path / "train.jsonl").unlink()
    path = tmp_path / f"train.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}:2: {reason} (")
    str(caught.value).encode()  # which a terminal asks of it
    splits, notes = read(tmp_path, skip_bad_rows=True)
    assert splits["train"] == {"document": ["d"] * 2, "summary": ["s"] * 2}
    assert notes["bad_rows"] == {"train": {reason: 1}}


def test_the_message_can_be_written_whatever_a_field_is_called(tmp_path) -> None:
    write_all(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"\\ud800": "x", "document": NaN}\n')
    with pytest.raises(UserError, match="'document' is not text") as caught:
        read(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"\\ud800": "x"}\n')
    with pytest.raises(UserError, match=r"it has: \\ud800") as caught:
        read(tmp_path)
    str(caught.value).encode()


def test_nul_is_a_character_of_a_text(tmp_path) -> None:
    write_all(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"document": "a\\u0000b", "summary": "s"}\n')
    assert read(tmp_path)[0]["train"]["document"] == ["a\0b"]


BROKEN = {
    "not gzip": ("train.jsonl.gz", b"not gzip"),
    "gzip breaks off": ("train.jsonl.gz", gzip.compress(jsonl(rows_of("train")))[:-30]),
    "json breaks off": ("train.json", json.dumps([GOOD, GOOD]).encode()[:-5]),
    "nested too deep": ("train.json", b"[" * 100_000),
    "uneven columns": ("train.json", b'{"document": ["a", "b"], "summary": ["c"]}'),
    "quote never closed": ("train.csv", b'document,summary\nd,s\n"d,s\n'),
    "not parquet": ("train.parquet", b"PAR1 or not"),
}


@pytest.mark.parametrize(("name", "content"), BROKEN.values(), ids=BROKEN)
def test_an_unreadable_file_is_an_error_whatever_is_skipped(
    tmp_path: Path, name: str, content: bytes
) -> None:
    write_all(tmp_path)
    (tmp_path / "train.jsonl").unlink()
    path = tmp_path / name
    path.write_bytes(content)
    for skip_bad_rows in (False, True):
        with pytest.raises(UserError) as caught:
            read(tmp_path, skip_bad_rows=skip_bad_rows)
        message = str(caught.value)
        place, _, reason = message.removeprefix(f"{path}:").partition(": ")
        assert place.isdigit()
        assert reason.startswith("unreadable (")
        assert "\n" not in message


def test_an_empty_split(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "test.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"/test: no row$"):
        read(tmp_path)
    (tmp_path / "test.jsonl").write_bytes(jsonl([{"document": "d"}] * 2))
    with pytest.raises(UserError, match=r"/test: no row is left \(2 x no field 'summary'\)"):
        read(tmp_path, skip_bad_rows=True)


def test_an_unknown_split(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "test.jsonl").rename(tmp_path / "tset.jsonl")
    with pytest.raises(UserError, match=r"tset\.jsonl: unknown split; .*validation \(val, dev\)"):
        read(tmp_path)


def test_other_files_beside_all_three_splits_are_noted(tmp_path: Path) -> None:
    write_all(tmp_path)
    for name in ("test_long.json.gz", "train.old.csv", "tokenizer.json", "README.md"):
        (tmp_path / name).write_bytes(b"unread")
    assert read(tmp_path)[1]["files_ignored"] == ["test_long.json.gz", "train.old.csv"]


@pytest.mark.parametrize("name", ["train.json", "train.jsonl.gz", "train-00000-of-00001.parquet"])
def test_two_files_of_one_split(tmp_path: Path, name: str) -> None:
    write_all(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="a second file of split 'train', beside "):
        read(tmp_path)


def test_two_names_of_one_split(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "dev.csv").write_bytes(as_csv([GOOD]))
    with pytest.raises(UserError, match="a second file of split 'validation'"):
        read(tmp_path)


def test_a_folder_without_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train split; expected train, .*jsonl, \.json, \.csv"):
        read(tmp_path)


def test_the_hub_is_asked_for_the_pinned_configuration(monkeypatch) -> None:
    import datasets

    asked = []

    def answer(*arguments, **settings):
        asked.append((arguments, settings))
        return {split: rows_of(split) for split in ("train", "test")}

    monkeypatch.setattr(datasets, "load_dataset", answer)
    hub = records.Hub("somebody/news", "1" * 40, "3.0.0")
    splits, notes = records.read("hub", hub, FIELDS)
    assert asked == [(("somebody/news", "3.0.0"), {"revision": "1" * 40})]
    assert splits["test"]["document"] == TEXTS["test"]
    assert notes == {"bad_rows": {}, "held_out": {"validation": 3}}


def test_a_bad_row_of_the_hub_is_named(monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: {"train": [GOOD, {"document": "d"}]}
    )
    with pytest.raises(UserError, match=r"^somebody/news/train:2: no field 'summary'"):
        records.read("hub", HUB, FIELDS)


@pytest.mark.parametrize("kind", [ConnectionError, ValueError])
def test_a_hub_out_of_reach_is_one_line_that_says_what_to_do(monkeypatch, kind) -> None:
    import datasets

    def unreachable(*arguments, **settings):
        raise kind("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="--data FOLDER") as caught:
        records.read("hub", HUB, FIELDS)
    assert "\n" not in str(caught.value)

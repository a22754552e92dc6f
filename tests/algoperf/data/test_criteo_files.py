"""Criteo's click logs: read in blocks from every form of file, damaged rows named by line."""

import gzip
import re

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from algoperf.data import prefetch, row_changes
from algoperf.data.batches import TrainingQueue, once
from algoperf.data.formats import criteo, criteo_columns
from algoperf.data.formats.criteo_columns import (
    CATEGORIES,
    COUNTS,
    NO_CATEGORY,
    DamagedError,
    bad_lines,
    eight_digits,
    parse,
)
from algoperf.data.order import Blocks
from algoperf.data.rows import BlockRows, RowsView, first
from algoperf.errors import UnreadableRowError, UserError
from algoperf.workload import Data, Field

FIELDS = {
    "inputs": Field((COUNTS,), np.dtype(np.int32)),
    "categories": Field((CATEGORIES,), np.dtype(np.uint64)),
    "targets": Field((), np.dtype(np.float32)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(criteo, "BLOCK_ROWS", 10)
    monkeypatch.setattr(criteo, "WINDOW_ROWS", 40)
    monkeypatch.setattr(criteo, "PIECE_BYTES", 777)


def lines(count, seed=0):
    """Made-up rows, each as a list of 40 cells; the first count is the row's number."""
    rng = np.random.default_rng(seed)
    made_up = []
    for row in range(count):
        counts = ["" if rng.random() < 0.2 else str(rng.integers(-3, 10**6)) for _ in range(13)]
        counts[0] = str(row)
        names = ["" if rng.random() < 0.1 else f"{rng.integers(2**32):08x}" for _ in range(26)]
        made_up.append([str(rng.integers(2)), *counts, *names])
    return made_up


def text(rows, end="\n"):
    return "".join("\t".join(row) + end for row in rows).encode()


def expected(rows):
    """The numbers of some cells, by Python's own parsing."""
    return {
        "inputs": np.array([[int(c) if c else -1 for c in row[1:14]] for row in rows], np.int32),
        "categories": np.array(
            [[int(c, 16) if c else 2**64 - 1 for c in row[14:]] for row in rows], np.uint64
        ),
        "targets": np.array([int(row[0]) for row in rows], np.float32),
    }


def convert(parsed):
    return {
        "inputs": parsed["counts"],
        "categories": parsed["categories"].T,
        "targets": parsed["labels"].astype(np.float32),
    }


def write(path, rows):
    content = text(rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    elif path.suffix == ".zst":
        with pyarrow.output_stream(str(path), compression="zstd") as file:
            file.write(content)
    elif path.suffix == ".parquet":
        numbers = expected(rows)
        missing = numbers["inputs"] == -1
        columns = [pyarrow.array(numbers["targets"].astype(np.int64))]
        columns += [
            pyarrow.array(numbers["inputs"][:, c], mask=missing[:, c]) for c in range(COUNTS)
        ]
        columns += [pyarrow.array([row[14 + c] or None for row in rows]) for c in range(CATEGORIES)]
        table = pyarrow.table(dict(zip(map(str, range(40)), columns, strict=True)))
        parquet.write_table(table, path, row_group_size=7)
    else:
        path.write_bytes(content)
    return path


def assert_rows(batch, rows):
    for name, values in expected(rows).items():
        np.testing.assert_array_equal(batch[name], values, err_msg=name)


def load(folder, **settings):
    return criteo.splits(folder, FIELDS, convert, **settings)


# Lines


def test_columns_are_those_of_the_text():
    rows = lines(37)
    rows[3][1:14] = [""] * 13
    rows[4][14:] = [""] * 26
    rows[5][2], rows[5][3] = str(2**31 - 1), str(-(2**31))
    rows[6][14], rows[6][15] = "FFFFFFFF", "0000000A"
    for end in ("\n", "\r\n"):
        assert_rows(convert(parse(text(rows, end))), rows)
    assert_rows(convert(parse(text(rows)[:-1])), rows)
    assert len(parse(b"")["labels"]) == 0


def test_categories_may_be_of_any_length():
    """Up to 64 bits; no float is on the way, which would round from 53 bits on."""
    rows = lines(5)
    rows[0][14], rows[1][14], rows[2][20] = "fedcba9876543210", "1", "20000000000001"
    assert_rows(convert(parse(text(rows))), rows)
    assert parse(text(rows))["categories"][0, 0] == 0xFEDCBA9876543210


def test_eight_digits_at_once():
    numbers = np.random.default_rng(1).integers(0, 2**32, 1000, np.uint64)
    for form in ("%08x", "%08X"):
        words = np.frombuffer("".join(form % int(each) for each in numbers).encode(), "<u8")
        np.testing.assert_array_equal(eight_digits(words), numbers)


DAMAGE = {
    "2 columns, expected 40": lambda row: row[:2],
    "41 columns, expected 40": lambda row: [*row, "1"],
    "the label '2', expected 0 or 1": lambda row: ["2", *row[1:]],
    "the label '', expected 0 or 1": lambda row: ["", *row[1:]],
    "column I3 is 'x7', expected a whole number": lambda row: [*row[:3], "x7", *row[4:]],
    "column I2 is '1.5', expected a whole": lambda row: [*row[:2], "1.5", *row[3:]],
    "column I1 is 3000000000, which has more than 32": lambda row: [row[0], "3000000000", *row[2:]],
    "column C1: the category 'zz00zz00' is no hex": lambda row: [*row[:14], "zz00zz00", *row[15:]],
    "column C26: the category '12345678123456781' is": lambda row: [*row[:39], "12345678123456781"],
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_line_is_named_with_the_reason(fault):
    rows = lines(9)
    rows[4] = DAMAGE[fault](rows[4])
    with pytest.raises(DamagedError) as caught:
        parse(text(rows))
    ((number, reason),) = caught.value.lines
    assert number == 5
    assert fault in reason
    assert bad_lines(text(lines(9))) == []


def test_carriage_returns_within_a_line_are_its_fault():
    """Arrow ends a line at each; of an end, \\r\\n, only one is a part."""
    rows = lines(9)
    whole = text(rows).split(b"\n")
    for at, line, fault in (
        (1, whole[1] + b"\r\r", "column C26: the category"),
        (3, whole[3] + b"\r" + whole[2], "79 columns, expected 40"),
        (5, whole[5].replace(b"\t", b"\t\r", 1), "column I1 is"),
    ):
        content = b"\n".join([*whole[:at], line, *whole[at + 1 :]])
        with pytest.raises(DamagedError) as caught:
            parse(content)
        ((number, reason),) = caught.value.lines
        assert number == at + 1
        assert fault in reason


def test_lines_that_arrow_alone_refuses_are_found(monkeypatch):
    """Whatever the check of single cells does not know."""
    monkeypatch.setattr(criteo_columns, "_fault", lambda line: None)
    rows = lines(33)
    for bad in (3, 4, 32):
        rows[bad][5] = "?"
    with pytest.raises(DamagedError) as caught:
        parse(text(rows))
    assert [number for number, _ in caught.value.lines] == [4, 5, 33]
    assert "'?'" in caught.value.lines[0][1]


def test_numbers_with_spaces_are_read_beside_damaged_lines():
    """As Arrow reads them: a line is no more damaged for another that is."""
    rows = lines(4)
    rows[1][0], rows[1][2], rows[3][4] = " 1", " 7 ", "x"
    assert parse(text(rows[:3]))["counts"][1, 1] == 7
    assert [number for number, _ in bad_lines(text(rows))] == [4]


# Files


@pytest.mark.parametrize("name", ["day_0", "day_0.gz", "day_0.zst", "day_0.csv", "day_0.parquet"])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 57])
def test_every_form_of_file_has_the_same_rows(tmp_path, name, count):
    rows = lines(count)
    source = criteo.index(write(tmp_path / name, rows))
    assert sum(source.sizes) == count
    every = criteo.rows([source], FIELDS, convert)
    assert len(every) == count
    assert_rows(every.take(np.arange(count)), rows)
    backwards = np.arange(count)[::-1]
    assert_rows(every.take(backwards), rows[::-1])
    for block, size in enumerate(source.sizes):
        assert len(criteo.Reader(source)(block)["labels"]) == size


def test_a_last_line_may_have_no_end(tmp_path):
    for count in (10, 15, 20):
        path = tmp_path / f"day_{count}"
        path.write_bytes(text(lines(count))[:-1])
        source = criteo.index(path)
        assert sum(source.sizes) == count
        assert_rows(criteo.rows([source], FIELDS, convert).take(np.arange(count)), lines(count))


def test_a_damaged_row_is_named_by_file_and_line_or_left_out(tmp_path):
    rows = lines(35)
    for bad in (13, 17, 34):
        rows[bad][5] = "?"
    write(tmp_path / "day_0", rows)
    write(tmp_path / "day_1", lines(8, seed=1))
    train = load(tmp_path)[0]["train"]
    train.take(np.arange(10))
    with pytest.raises(UnreadableRowError, match=r"day_0, line 14: column I5 is '\?'"):
        train.take(np.array([11]))
    kept, notes = load(tmp_path, skip_bad_rows=True)
    assert notes == {"bad_rows": {"train": {"damaged": 3}}}
    whole = [row for number, row in enumerate(rows) if number not in (13, 17, 34)]
    assert len(kept["train"]) == 32
    assert_rows(kept["train"].take(np.arange(32)), whole)


def test_a_carriage_return_too_many_is_left_out_with_its_row(tmp_path):
    rows = lines(15)
    whole = text(rows).split(b"\n")
    whole[11] += b"\r\r"
    (tmp_path / "day_0").write_bytes(b"\n".join(whole))
    source = criteo.index(tmp_path / "day_0")
    with pytest.raises(UnreadableRowError, match=r"day_0, line 12: column C26"):
        criteo.Reader(source)(1)
    source = criteo.index(tmp_path / "day_0", skip_bad_rows=True)
    assert source.bad == {1: (2,)}
    kept = criteo.rows([source], FIELDS, convert)
    assert_rows(kept.take(np.arange(14)), [*rows[:11], *rows[12:]])


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = write(tmp_path / "day_0.gz", lines(300))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"day_0.gz: cannot be read .*download it again"):
        criteo.index(path)


@pytest.mark.parametrize("name", ["day_0", "day_0.gz", "day_0.zst"])
@pytest.mark.parametrize("left", [0, 5, 33])
def test_a_file_that_became_shorter_is_named_when_its_rows_are_read(tmp_path, name, left):
    path = write(tmp_path / name, lines(40))
    reader = criteo.Reader(criteo.index(path))
    write(path, lines(left))
    for block in (3, 3, 2) if left == 33 else (3, 0):
        if block * 10 + 10 > left:
            with pytest.raises(UnreadableRowError, match=rf"{name}: damaged .*shorter than when"):
                reader(block)
        else:
            assert_rows(convert(reader(block)), lines(40)[10 * block : 10 * block + 10])


def test_parquet_of_other_columns_is_refused(tmp_path):
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "day_0.parquet")
    with pytest.raises(UserError, match=r"day_0.parquet: 1 columns, expected 40"):
        criteo.index(tmp_path / "day_0.parquet")


def parquet_of(path, columns, group=7):
    """A file of made-up rows, of which these columns are others."""
    rows = lines(20)
    table = parquet.read_table(write(path, rows))
    for column, values in columns.items():
        table = table.set_column(column, str(column), [values])
    parquet.write_table(table, path, row_group_size=group)
    return rows, path


INTEGERS = {
    pyarrow.uint64(): [2**60 + 1, 2**64 - 2, 0],
    pyarrow.int64(): [2**60 + 1, -2, 5],
    pyarrow.uint32(): [2**32 - 1, 2**32 - 2, 0],
    pyarrow.int32(): [-1, -2, 2**31 - 1],
    pyarrow.int16(): [-1, -2, 7],
}


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
@pytest.mark.parametrize("has_empty", [True, False])
def test_whole_numbers_are_the_categories_that_their_digits_are(tmp_path, kind, has_empty):
    """To the last bit, also beside empty cells; those with a sign as their bits are written."""
    values = (INTEGERS[kind] * 7)[:20]
    texts = [f"{value % 2**kind.bit_width:x}" for value in values]
    if has_empty:
        values[3], texts[3] = None, ""
    _, path = parquet_of(tmp_path / "day_0.parquet", {20: pyarrow.array(values, kind)})
    rows = lines(20)
    for row, cell in zip(rows, texts, strict=True):
        row[20] = cell
    source = criteo.index(path)
    assert_rows(criteo.rows([source], FIELDS, convert).take(np.arange(20)), rows)


OTHER_COLUMNS = {
    "column C1 ('14') is double, expected text or whole": {14: pyarrow.array([1.0, None] * 10)},
    "column C2 ('15') is bool, expected text or whole": {15: pyarrow.array([True, None] * 10)},
    "the label ('0') is list<element: int64>, expected whole": {0: pyarrow.array([[1]] * 20)},
    "column I13 ('13') is list<element: int64>, expected whole": {13: pyarrow.array([[1]] * 20)},
}


@pytest.mark.parametrize("message", OTHER_COLUMNS)
def test_parquet_s_columns_of_other_types_are_refused_by_name(tmp_path, message):
    _, path = parquet_of(tmp_path / "day_0.parquet", OTHER_COLUMNS[message])
    with pytest.raises(UserError, match=re.escape(f"{path}: {message}")):
        criteo.index(path)


OTHER_CELLS = {
    "the label '2', expected 0 or 1": (0, pyarrow.array([0, 1] * 4 + [2, 1] + [0] * 10)),
    "the label '', expected 0 or 1": (0, pyarrow.array([0, 1] * 4 + [None, 1] + [0] * 10)),
    "the label '0.5', expected 0 or 1": (0, pyarrow.array([0.0, 1] * 4 + [0.5, 1] + [0] * 10)),
    "column I1 is '1.5', expected a whole": (1, pyarrow.array([3.0] * 8 + [1.5] + [None] * 11)),
    "column I2 is 3000000000, which has more": (2, pyarrow.array([3] * 8 + [3 * 10**9] + [4] * 11)),
    "column C1: the category 'zz' is no": (14, pyarrow.array(["ab"] * 8 + ["zz"] + [None] * 11)),
}


@pytest.mark.parametrize("fault", OTHER_CELLS)
def test_a_damaged_row_of_parquet_is_named_or_left_out(tmp_path, fault):
    column, values = OTHER_CELLS[fault]
    rows, path = parquet_of(tmp_path / "day_0.parquet", {column: values})
    for row, value in zip(rows, values.to_pylist(), strict=True):
        row[column] = value if isinstance(value, str) else "" if value is None else str(int(value))
    with pytest.raises(UnreadableRowError, match=re.escape(f"{path}, row 9: {fault}")):
        criteo.Reader(criteo.index(path))(1)
    source = criteo.index(path, skip_bad_rows=True)
    assert source.sizes == (7, 6, 6)
    kept = criteo.rows([source], FIELDS, convert).take(np.arange(19))
    assert_rows(kept, [*rows[:8], *rows[9:]])


def test_a_row_group_may_have_no_row_that_is_whole(tmp_path):
    labels = pyarrow.array([2] * 7 + [0, 1, 3] * 4 + [1])
    rows, path = parquet_of(tmp_path / "day_0.parquet", {0: labels})
    source = criteo.index(path, skip_bad_rows=True)
    assert source.sizes == (0, 5, 4)
    kept = [[str(label), *row[1:]] for row, label in zip(rows, labels.to_pylist(), strict=True)]
    kept = [row for row in kept if row[0] in "01"]
    assert_rows(criteo.rows([source], FIELDS, convert).take(np.arange(9)), kept)
    assert len(criteo.Reader(source)(0)["labels"]) == 0


def test_parquet_that_was_written_anew_is_named(tmp_path):
    _, path = parquet_of(tmp_path / "day_0.parquet", {})
    reader = criteo.Reader(criteo.index(path))
    parquet_of(path, {}, group=11)
    with pytest.raises(UnreadableRowError, match=r"day_0.parquet: other rows than when"):
        reader(0)
    with pytest.raises(UnreadableRowError, match=r"day_0.parquet, row group 3: "):
        reader(2)


def test_parquet_s_texts_may_be_of_any_form(tmp_path):
    """Large, as a dictionary, or all empty."""
    texts = ["0a1b", None] * 10
    columns = {
        14: pyarrow.array(texts, pyarrow.large_string()),
        15: pyarrow.array(texts).dictionary_encode(),
        16: pyarrow.nulls(20),
        17: pyarrow.array([each and each.encode() for each in texts]),
    }
    rows, path = parquet_of(tmp_path / "day_0.parquet", columns)
    for row, cell in zip(rows, texts, strict=True):
        row[14:18] = [cell or "", cell or "", "", cell or ""]
    source = criteo.index(path)
    assert_rows(criteo.rows([source], FIELDS, convert).take(np.arange(20)), rows)


def test_parquet_s_damaged_rows_are_counted(tmp_path):
    labels = pyarrow.array([0, 1, 2, 1] * 5)
    parquet_of(tmp_path / "day_0.parquet", {0: labels})
    write(tmp_path / "day_1", lines(8))
    splits, notes = load(tmp_path, skip_bad_rows=True)
    assert notes == {"bad_rows": {"train": {"damaged": 5}}}
    assert len(splits["train"]) == 15


# Folders


@pytest.mark.parametrize(
    "names",
    [
        ("day_0", "day_0.gz", "day_1"), ("day_0", "day_1.csv.zst", "day_1.parquet"),
        ("train.txt", "train.txt.gz"), ("train.tsv", "valid", "valid.txt"),
        ("day_0_00", "day_0_01", "day_0_01.gz", "day_1"),
    ],
)  # fmt: skip
def test_files_that_differ_only_in_their_ending_are_refused(tmp_path, names):
    """As gunzip -k leaves them: their rows would be there twice, also in validation and test."""
    for name in names:
        write(tmp_path / name, lines(3))
    one, other = names[-3:-1] if names[-1] == "day_1" else names[-2:]
    with pytest.raises(UserError, match=f"{one} and {other} differ only in their ending.*keep one"):
        load(tmp_path)


def test_of_the_last_day_the_first_half_is_the_test_split(tmp_path):
    days = {
        name: lines(count, seed)
        for seed, (name, count) in enumerate(
            {"day_0": 20, "day_10_00": 6, "day_2.gz": 31, "day_23_00": 15, "day_23_01": 12}.items()
        )
    }
    for name, rows in days.items():
        write(tmp_path / name, rows)
    splits, _ = load(tmp_path)
    held_out = days["day_23_00"] + days["day_23_01"]
    expected_rows = {
        "train": days["day_0"] + days["day_2.gz"] + days["day_10_00"],
        "test": held_out[:13],
        "validation": held_out[13:],
    }
    for split, rows in expected_rows.items():
        assert len(splits[split]) == len(rows)
        assert_rows(splits[split].take(np.arange(len(rows))), rows)


def test_of_a_day_as_large_as_criteo_s_algoperf_s_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(criteo, "TEST_ROWS", 19)
    for name in ("day_0", "day_1"):
        write(tmp_path / name, lines(36))
    splits, _ = load(tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 36, "test": 19, "validation": 17,
    }  # fmt: skip


@pytest.mark.parametrize("has_valid", [True, False])
def test_kaggle_s_layout(tmp_path, has_valid):
    rows, more = lines(70), lines(21, seed=1)
    write(tmp_path / "train.txt", rows)
    (tmp_path / "test.txt").write_text("no labels")
    if has_valid:
        write(tmp_path / "valid.txt.gz", more)
    splits, _ = load(tmp_path)
    train, held_out = (rows, more) if has_valid else (rows[:60], rows[60:])
    half = len(held_out) // 2
    for split, each in (
        ("train", train), ("test", held_out[:half]), ("validation", held_out[half:]),
    ):  # fmt: skip
        assert_rows(splits[split].take(np.arange(len(splits[split]))), each)


def test_a_folder_without_logs(tmp_path):
    write(tmp_path / "day_3", lines(3))
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no click logs; expected day_0 to day_23"):
            load(folder)


def test_the_fingerprint_is_of_names_sizes_and_rows(tmp_path):
    for name in ("day_0", "day_1"):
        write(tmp_path / name, lines(36))
    first = {split: rows.fingerprint for split, rows in load(tmp_path)[0].items()}
    assert len(set(first.values())) == 3
    assert {split: rows.fingerprint for split, rows in load(tmp_path)[0].items()} == first
    write(tmp_path / "day_0", lines(37))
    assert load(tmp_path)[0]["train"].fingerprint != first["train"]


# Order


@pytest.mark.parametrize("name", ["day_0", "day_0.gz"])
def test_training_sees_every_row_once_an_epoch_in_a_seeded_order(tmp_path, name):
    write(tmp_path / name, lines(173))
    write(tmp_path / "day_1.zst", lines(60, seed=1))
    write(tmp_path / "day_2", lines(9))
    train = load(tmp_path)[0]["train"]

    def drawn(seed, batches, start=None, size=12):
        queue = TrainingQueue(train, size, seed)
        if start is not None:
            queue.go_to({**queue.position(), **start})
        found = [next(queue) for _ in range(batches)]
        queue.close()
        return {key: np.concatenate([each[key] for each in found]) for key in found[0]}

    whole = train.take(np.arange(233))
    once_through = drawn(5, 20)["categories"][:233]
    rows = [tuple(row) for row in once_through.tolist()]
    assert sorted(rows) == sorted(map(tuple, whole["categories"].tolist()))
    assert not np.array_equal(once_through, whole["categories"])
    other = drawn(6, 20)["categories"][:233]
    assert not np.array_equal(other, once_through)
    second = drawn(5, 40)
    assert not np.array_equal(second["categories"][233:466], once_through)
    resumed = drawn(5, 3, {"epoch": 1, "offset": 40})
    for key, values in resumed.items():  # row 273 of 480
        np.testing.assert_array_equal(values, second[key][273 : 273 + 36])


def test_two_ranks_have_parts_that_are_together_the_whole_batch(tmp_path):
    write(tmp_path / "day_0", lines(90))
    write(tmp_path / "day_1", lines(9))
    train = load(tmp_path)[0]["train"]
    queues = [TrainingQueue(train, 10, 3, shard=shard) for shard in ((0, 1), (0, 2), (1, 2))]
    for _ in range(9):
        whole, one, other = (next(queue)["inputs"][:, 0] for queue in queues)
        np.testing.assert_array_equal(np.concatenate([one, other]), whole)
    for queue in queues:
        queue.close()


def blocks_read(monkeypatch):
    """The numbers of the blocks that readers are asked for from here on."""
    numbers = []
    block = criteo.Reader.__call__

    def counted(reader, number):
        numbers.append(number)
        return block(reader, number)

    monkeypatch.setattr(criteo.Reader, "__call__", counted)
    return numbers


def test_a_window_of_blocks_is_held_at_a_time(tmp_path, monkeypatch):
    """And blocks are read once an epoch, but for those where the window changes."""
    write(tmp_path / "day_0", lines(400))
    write(tmp_path / "day_1", lines(9))
    train = load(tmp_path)[0]["train"]
    read = blocks_read(monkeypatch)
    queue = TrainingQueue(train, 8, seed=0, depth=2)
    for _ in range(49):
        next(queue)
    queue.close()
    assert len(set(read)) == 40
    assert len(read) <= 44
    assert train._held._most_rows == 40 + 10


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that were opened to be unpacked."""
    names = []
    open_stream = criteo._open

    def counted(path):
        names.append(path.name)
        return open_stream(path)

    monkeypatch.setattr(criteo, "_open", counted)
    return names


def test_blocks_of_a_compressed_file_in_another_order_are_unpacked_once(tmp_path, opened):
    """As threads ask for them that are a window apart; what is kept of the file is bounded."""
    rows = lines(300)
    source = criteo.index(write(tmp_path / "day_0.gz", rows))
    opened.clear()
    reader = criteo.Reader(source)
    order = [4, 0, 5, 1, 6, 2, 7, 3, 12, 8, 11, 10, 9, 29]
    for block in order:
        assert_rows(convert(reader(block)), rows[10 * block : 10 * block + 10])
        assert sum(len(each.passed) for each in reader._unpackings) <= 8
    assert opened == ["day_0.gz"]
    assert_rows(convert(reader(20)), rows[200:210])  # two windows behind are let go of
    assert opened == ["day_0.gz"] * 2
    for block in (25, 0, 26, 1, 27, 2):  # at two places, as around the end of an epoch
        assert_rows(convert(reader(block)), rows[10 * block : 10 * block + 10])
    assert opened == ["day_0.gz"] * 3


def test_training_by_four_threads_opens_a_compressed_file_once_an_epoch(
    tmp_path, opened, monkeypatch
):
    """Batches of half a window, and an evaluation of rows of the same files beside it."""
    monkeypatch.setattr(prefetch, "thread_count", lambda: 4)
    for seed, name in enumerate(("day_0.gz", "day_1.zst")):
        write(tmp_path / name, lines(400, seed))
    write(tmp_path / "day_2", lines(20))
    train = load(tmp_path)[0]["train"]
    queue = TrainingQueue(train, 20, seed=0)
    sample = first(train, 30)
    opened.clear()
    for _ in range(10):
        for _ in range(4):
            next(queue)
        assert sum(len(batch["targets"]) for batch in once(sample, 10)) == 30
    queue.close()
    # An epoch, a part of the next that is taken ahead, and the sample, which is held: 5. A thread
    # that waits for long may be left behind.
    assert len(opened) <= 10


def test_a_batch_across_two_epochs_unpacks_at_both_places(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(prefetch, "thread_count", lambda: 1)
    write(tmp_path / "day_0.gz", lines(395))
    write(tmp_path / "day_1", lines(20))
    train = load(tmp_path)[0]["train"]
    opened.clear()
    queue = TrainingQueue(train, 20, seed=0, depth=1)
    for _ in range(50):
        next(queue)
    queue.close()
    assert opened == ["day_0.gz"] * 3  # 1000 of 395 rows: two epochs and a half


def test_blocks_that_a_thread_still_needs_are_held():
    """However many blocks others read meanwhile; rows scattered over many blocks hold none."""
    read = []

    def reader(block):
        read.append(block)
        return {"a": np.full(10, block)}

    blocks = Blocks(np.full(100, 10), np.arange(100), 20)
    rows = BlockRows(blocks, {"a": Field((), np.dtype(int))}, lambda: reader, "")
    with rows._held.needed(np.array([3, 4]), 20):
        for block in range(50):
            rows.take(np.array([10 * block]))
        rows.take(np.array([35, 45]))
    assert read == list(range(50))
    rows.take(np.arange(0, 1000, 10))
    assert len(rows._held._blocks) == 3


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_changes_of_training_rows_read_in_blocks_too(tmp_path, monkeypatch, fraction, share):
    """As often as the rows alone are read, and the rows that stay are those that were drawn."""
    monkeypatch.setattr(prefetch, "thread_count", lambda: 1)
    write(tmp_path / "day_0", lines(400))
    write(tmp_path / "day_1.gz", lines(200, seed=1))
    write(tmp_path / "day_2", lines(9))
    data = Data(load(tmp_path)[0])
    whole = data.splits["train"].take(np.arange(600))
    number = {tuple(row): at for at, row in enumerate(whole["categories"].tolist())}
    train = row_changes.change(data, {"train_fraction": fraction, "label_noise": share})
    rows = train.splits["train"]
    count = round(600 * fraction)
    assert len(rows) == count
    read = blocks_read(monkeypatch)
    queue = TrainingQueue(rows, 4, seed=0, depth=1)
    batches = [next(queue) for _ in range(count // 4)]
    queue.close()
    assert len(read) <= 66  # 60 blocks, and those of the next epoch that are taken ahead
    drawn = np.concatenate([batch["categories"] for batch in batches])
    at = np.array([number[tuple(row)] for row in drawn.tolist()])
    kept = np.sort(np.random.default_rng([0, 600]).permutation(600)[:count])
    np.testing.assert_array_equal(np.sort(at), kept[np.isin(kept, at)])
    assert len(set(at.tolist())) == count // 4 * 4
    targets = np.concatenate([batch["targets"] for batch in batches])
    assert (targets != whole["targets"][at]).sum() <= round(share * count)
    if share and fraction == 1:
        assert (targets != whole["targets"][at]).sum() > 40  # about half of 180
        everything = rows.take(np.arange(600))["targets"]
        for start in range(0, 600, 10):  # a ring within each block
            one, other = (each[start : start + 10] for each in (everything, whole["targets"]))
            assert one.sum() == other.sum()


def test_rows_of_blocks_in_another_order_have_no_blocks(tmp_path):
    write(tmp_path / "day_0", lines(40))
    write(tmp_path / "day_1", lines(9))
    train = load(tmp_path)[0]["train"]
    assert RowsView(train, np.array([3, 1, 20])).blocks is None
    assert RowsView(train, np.array([], int)).blocks is None
    some = RowsView(train, np.array([3, 5, 20, 21, 22, 39])).blocks
    assert some.sizes.tolist() == [2, 3, 1]
    assert some.runs.tolist() == [0, 1, 2]
    assert some.window_rows == 6


def test_evaluation_reads_in_order(tmp_path):
    write(tmp_path / "day_0", lines(9))
    write(tmp_path / "day_1", lines(55))
    rows = load(tmp_path)[0]["validation"]
    batches = list(once(rows, 8))
    numbers = np.concatenate([batch["inputs"][:, 0] for batch in batches])
    np.testing.assert_array_equal(numbers[:28], np.arange(27, 55))
    assert sum(batch["weights"].sum() for batch in batches) == 28


def test_an_empty_category_is_no_number_of_32_bits():
    assert int(NO_CATEGORY) == 2**64 - 1

"""AG News rows from each source: built in, the original CSV files, the hub's parquet layout; and
the splits.
"""

import csv
import gzip
import hashlib
import socket
from pathlib import Path

import numpy as np
import pytest

from algoperf import workload
from algoperf.data import tokenizers
from algoperf.data.formats import records
from algoperf.errors import UserError
from algoperf.workload import catalogue
from workloads.ag_news import data as ag_news

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "ag_news"
AWKWARD = [
    ("3", 'Oil, "black gold", rises', "Prices rose\nfor a second day; see #39;Markets#39;"),
    ("1", "Talks \\resume", ""),
    ("4", "Naïve café", "一 two"),
    ("2", " Team wins ", "2-1, after extra time"),
]
EXPECTED = [f"{title} {description}" for _, title, description in AWKWARD]
ROWS = AWKWARD * 10
LABELS = [int(label) - 1 for label, _, _ in ROWS]


def write_csv(folder: Path, name: str, rows, *, zipped: bool = False) -> None:
    opened = gzip.open if zipped else open
    with opened(
        folder / (f"{name}.csv.gz" if zipped else f"{name}.csv"), "wt", encoding="utf-8", newline=""
    ) as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


@pytest.mark.parametrize("zipped", [False, True])
def test_the_original_csv_layout(tmp_path: Path, zipped: bool) -> None:
    write_csv(tmp_path, "train", ROWS, zipped=zipped)
    write_csv(tmp_path, "test", AWKWARD, zipped=not zipped)
    rows = ag_news.read(str(tmp_path))
    assert rows["test"] == (EXPECTED, [2, 0, 3, 1])
    assert sorted(rows["train"][0] + rows["validation"][0]) == sorted(EXPECTED * 10)
    assert len(rows["validation"][0]) == 4
    for texts, labels in rows.values():
        assert labels == [{0: 2, 1: 0, 2: 3, 3: 1}[EXPECTED.index(text)] for text in texts]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch) -> list[tuple]:
    """Keep `datasets` inside the test's folder, and note every attempt to reach a host."""
    import datasets

    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(cache / "modules"))
    attempts: list[tuple] = []

    def refuse(*arguments, **settings):
        attempts.append(arguments)
        raise OSError("no network in tests")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


def write_parquet(folder: Path, columns=("text", "label")) -> Path:
    import pyarrow
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    for split, repeats in (("train", 10), ("test", 1)):
        values = (EXPECTED * repeats, [2, 0, 3, 1] * repeats)
        table = pyarrow.table(dict(zip(columns, values, strict=True)))
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_hub_s_layout_in_a_folder_gives_the_rows_of_the_csv_layout(
    tmp_path: Path, hub_cache
) -> None:
    in_parquet = ag_news.read(str(write_parquet(tmp_path / "parquet")))
    write_csv(tmp_path, "train", ROWS)
    write_csv(tmp_path, "test", AWKWARD)
    assert in_parquet == ag_news.read(str(tmp_path))
    assert hub_cache == []


def test_a_missing_column_is_named(tmp_path: Path, hub_cache) -> None:
    with pytest.raises(UserError, match=r"'train' has no column 'label'"):
        ag_news.read(str(write_parquet(tmp_path / "parquet", ("text", "topic"))))


@pytest.mark.parametrize("kind", ["connection", "offline", "not found"])
def test_a_hub_out_of_reach_is_one_line_that_says_what_to_do(monkeypatch, kind: str) -> None:
    import datasets
    from huggingface_hub import errors

    raised = {
        "connection": ConnectionError("Couldn't reach the hub\nmore lines"),
        "offline": errors.OfflineModeIsEnabled("offline mode is enabled"),
        "not found": datasets.exceptions.DatasetNotFoundError("gone"),
    }[kind]
    asked = []

    def unreachable(path, config, revision):
        assert config is None
        asked.append((path, revision))
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="--data FOLDER") as caught:
        ag_news.read("hub")
    assert "\n" not in str(caught.value)
    assert asked == [ag_news.HUB]
    assert len(ag_news.HUB[1]) == 40  # a revision, not a branch that moves


def hold_out(texts: list[str], labels: list[int], seed: int) -> dict[str, tuple[list, list]]:
    """As `ag_news.read` does where the source has no validation split."""
    parts, _ = records.hold_out({"train": {"text": texts, "label": labels}, "test": {}}, seed)
    return {split: (parts[split]["text"], parts[split]["label"]) for split in parts if parts[split]}


def test_the_validation_split_is_seeded_exact_and_disjoint() -> None:
    texts, labels = [f"text {row}" for row in range(1005)], [row % 4 for row in range(1005)]
    parts = hold_out(texts, labels, seed=0)
    assert {split: len(rows[0]) for split, rows in parts.items()} == {
        "validation": 100,
        "train": 905,
    }
    assert set(parts["train"][0]) | set(parts["validation"][0]) == set(texts)
    for part_texts, part_labels in parts.values():
        assert part_labels == [int(text.split()[1]) % 4 for text in part_texts]
    assert parts == hold_out(texts, labels, seed=0)
    assert parts["validation"] != hold_out(texts, labels, seed=1)["validation"]
    golden = hashlib.sha256("".join(parts["validation"][0]).encode()).hexdigest()[:16]
    assert golden == "674866ce3bd8367c"


def test_the_validation_split_has_at_most_6000_rows() -> None:
    texts = ["news"] * 120_000
    parts = hold_out(texts, [0] * len(texts), seed=0)
    assert {split: len(rows[0]) for split, rows in parts.items()} == {
        "validation": 6000,
        "train": 114_000,
    }


def test_too_few_rows_for_a_validation_split(tmp_path: Path) -> None:
    write_csv(tmp_path, "train", AWKWARD)
    write_csv(tmp_path, "test", AWKWARD)
    with pytest.raises(UserError, match="at least 10"):
        ag_news.read(str(tmp_path))


def test_cut_rows_are_counted_and_rows_padded_on_the_right(tmp_path: Path) -> None:
    long = ("1", "word " * 30, "again " * 30)
    write_csv(tmp_path, "train", ROWS)
    write_csv(tmp_path, "test", [*AWKWARD, long, long])
    loaded = ag_news.load(str(tmp_path), max_length=20, vocab_size=400, tokenizer="trained")
    cut = loaded.notes["rows_cut"]
    assert cut["train"] + cut["validation"] == 10  # the first of the awkward rows, ten times
    assert cut["test"] == 1 + 2
    assert loaded.notes["max_length"] == 20
    for arrays in loaded.splits.values():
        inputs, padded = arrays["inputs"], arrays["inputs"] == loaded.model["pad_id"]
        assert inputs.dtype == np.int32
        assert inputs.shape == (len(arrays["targets"]), 20)
        assert (padded[:, :-1] <= padded[:, 1:]).all()  # once padding, always padding
        assert not padded[:, 0].any()
        assert inputs.max() < loaded.model["vocab_size"]
    assert not (loaded.splits["test"]["inputs"][-2:] == loaded.model["pad_id"]).any()


def test_the_built_in_rows(load_mini) -> None:
    loaded = load_mini("ag_news")
    sizes = {split: len(arrays["targets"]) for split, arrays in loaded.splits.items()}
    assert {f"{split}_rows": size for split, size in sizes.items()} == ag_news.BUILTIN_ROWS
    assert sizes["validation"] >= 1500  # one standard error of the accuracy is under a point
    assert loaded.notes["rows_cut"] == dict.fromkeys(workload.SPLITS, 0)
    lengths = set()
    for arrays in loaded.splits.values():
        counts = np.bincount(arrays["targets"], minlength=4)
        assert len(counts) == 4
        assert counts.min() > 0.2 * counts.sum()
        assert arrays["inputs"].min() == 0
        assert arrays["inputs"].max() < 2048
        lengths.add(arrays["inputs"].shape[1])
    scale = catalogue.find("ag_news").scales["mini"]
    assert len(lengths) == 1
    assert max(lengths) <= scale.model["positions"]
    train, validation = (loaded.splits[split]["inputs"] for split in ("train", "validation"))
    shared = {row.tobytes() for row in train} & {row.tobytes() for row in validation}
    assert len(shared) < 0.01 * len(validation)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sample is not beside the repository")
def test_the_real_sample() -> None:
    rows = ag_news.read(str(REAL))
    assert {split: len(texts) for split, (texts, _) in rows.items()} == {
        "train": 8_933,
        "validation": 992,
        "test": 7_600,
    }
    assert all(set(labels) == {0, 1, 2, 3} for _, labels in rows.values())
    assert rows["test"][0][0].startswith(
        "Fears for T N pension after talks Unions representing workers"
    )
    assert rows["test"][1][0] == 2


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path, "train", [(1 + row % 4, f"title {row}", "text") for row in range(40)])
    write_csv(tmp_path, "test", [(1, "title", "text")])
    tokenizers.train_byte_pair(["title text"], 300).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="the model knows those below 10"):
        ag_news.load(str(tmp_path), max_length=8, vocab_size=10, tokenizer="gpt2")

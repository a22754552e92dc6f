"""Summarization rows as arrays: BART's layout of tokens, what is cut, what is decoded, and the real
samples.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from algoperf import workload
from algoperf.data import tokenizers
from algoperf.errors import UserError
from algoperf.workload import catalogue
from workloads.cnn_dailymail.data import CORPUS as CNN_DAILYMAIL
from workloads.parts import summarization
from workloads.samsum.data import CORPUS as SAMSUM
from workloads.xsum.data import CORPUS as XSUM

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CORPORA = {"xsum": XSUM, "cnn_dailymail": CNN_DAILYMAIL, "samsum": SAMSUM}
SETTINGS = {"max_source": 14, "max_target": 10, "vocab_size": 400, "tokenizer": "trained"}
DOCUMENTS = [f"item {row} the cat sat on the mat" + " again" * (row % 7) for row in range(40)]
SUMMARIES = [f"cat {row}" + " sat" * (row % 12) for row in range(40)]


def write_rows(folder: Path, documents=DOCUMENTS, summaries=SUMMARIES) -> str:
    for split, start in (("train", 0), ("validation", 20), ("test", 30)):
        rows = list(zip(documents, summaries, strict=True))[start:]
        lines = [json.dumps({"document": source, "summary": target}) for source, target in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


def test_rows_are_laid_out_as_bart_s_and_cut_rows_counted(tmp_path: Path) -> None:
    data = summarization.load(XSUM, write_rows(tmp_path), **SETTINGS)
    trained = tokenizers.train_byte_pair(DOCUMENTS + SUMMARIES, 400, tokenizers.BART_SPECIAL)
    assert data.model == {"vocab_size": 400}
    for split, start in (("train", 0), ("validation", 20), ("test", 30)):
        arrays = data.splits[split]
        for key, side, texts, longest in (
            ("inputs", "source", DOCUMENTS[start:], 14),
            ("targets", "target", SUMMARIES[start:], 10),
        ):
            full = [trained.encode(text).ids for text in texts]
            expected = [[0, *ids[: longest - 2], 2] for ids in full]
            assert arrays[key].dtype == np.int32
            assert arrays[key].shape == (len(texts), longest)
            for row, ids in zip(arrays[key].tolist(), expected, strict=True):
                assert row == ids + [1] * (longest - len(ids))
            cut = sum(len(ids) + 2 > longest for ids in full)
            assert 0 < cut < len(texts)
            assert data.notes["rows_cut"][split][side] == cut
            assert data.notes["tokens"][split][side]["max"] == max(map(len, full)) + 2
        assert arrays["weights"].dtype == np.float32
        assert arrays["weights"].tolist() == [
            [float(token != 1) for token in row] for row in arrays["targets"].tolist()
        ]


def test_columns_that_no_split_needs_are_left_out(tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_source": 400, "max_target": 20}
    data = summarization.load(XSUM, write_rows(tmp_path), **settings)
    longest = max(data.notes["tokens"][split]["source"]["max"] for split in workload.SPLITS)
    widths = {arrays["inputs"].shape[1] for arrays in data.splits.values()}
    assert widths == {8 * -(-longest // 8)}
    assert {arrays["targets"].shape[1] for arrays in data.splits.values()} <= {16, 20}
    assert data.notes["rows_cut"]["train"] == {"source": 0, "target": 0}


AWKWARD = ["Ünseen 東京 🙂", "a  b\n\tc", " led by a space", "ends ", "says <pad> and </s><s>"]


def test_decoding_gives_back_what_was_encoded(tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_source": 90, "max_target": 90}
    source = write_rows(tmp_path, AWKWARD * 8, AWKWARD[::-1] * 8)
    data = summarization.load(XSUM, source, **settings)
    assert data.text is not None
    for split, start in (("train", 0), ("test", 30)):
        arrays = data.splits[split]
        assert data.text.sources[split] == (AWKWARD * 8)[start:]
        assert data.text.references[split] == (AWKWARD[::-1] * 8)[start:]
        decoded = data.text.decode(arrays["targets"].tolist())
        assert decoded == [text.removeprefix(" ") for text in data.text.references[split]]
        assert data.text.decode(arrays["inputs"]) == [
            text.removeprefix(" ") for text in data.text.sources[split]
        ]
        for key in ("inputs", "targets"):  # a special token only where a row begins, ends, is over
            for row in arrays[key].tolist():
                end = row.index(2)
                assert (row[0], set(row[end + 1 :]) <= {1}) == (0, True)
                assert min(row[1:end]) > 3


def test_decoding_leaves_out_special_and_unknown_tokens(tmp_path: Path) -> None:
    data = summarization.load(XSUM, write_rows(tmp_path), **{**SETTINGS, "vocab_size": 2000})
    assert data.text is not None
    row = data.splits["train"]["targets"][0].tolist()
    assert data.text.decode([[2, *row, 3, 1999, 1], [], [2, 2, 1]]) == ["cat 0", "", ""]


def test_the_seed_and_skipped_rows_reach_the_reader(tmp_path: Path) -> None:
    source = write_rows(tmp_path)
    (tmp_path / "validation.jsonl").unlink()
    first, second = (
        summarization.load(XSUM, source, **SETTINGS, seed=seed).splits["validation"]["inputs"]
        for seed in (0, 1)
    )
    assert first.tolist() != second.tolist()
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('\n{"document": "a", "summary": " "}')
    with pytest.raises(UserError, match=r"train\.jsonl:41: 'summary' is empty"):
        summarization.load(XSUM, source, **SETTINGS)
    data = summarization.load(XSUM, source, **SETTINGS, skip_bad_rows=True)
    assert data.notes["bad_rows"] == {"train": {"'summary' is empty": 1}}
    assert data.notes["held_out"] == {"validation": 4}


def test_lengths_are_described() -> None:
    assert summarization.describe(np.arange(1, 102)) == {
        "mean": 51.0,
        "median": 51.0,
        "p95": 96.0,
        "max": 101.0,
    }


def bart_files(folder: Path, special: tuple[str, ...] = tokenizers.BART_SPECIAL) -> None:
    trained = tokenizers.train_byte_pair(DOCUMENTS, 300, special)
    trained.save(str(folder / "tokenizer.json"))


def test_bart_s_tokenizer_comes_from_the_folder_of_the_rows(tmp_path: Path) -> None:
    bart_files(tmp_path)
    settings = {**SETTINGS, "tokenizer": "bart"}
    data = summarization.load(XSUM, write_rows(tmp_path), **settings)
    read = tokenizers.read_bart(tmp_path)
    assert data.splits["train"]["targets"][0].tolist()[:3] == [0, *read.encode("cat 0").ids[:2]]
    with pytest.raises(UserError, match="the model knows those below 50"):
        summarization.load(XSUM, str(tmp_path), **{**settings, "vocab_size": 50})


def test_bart_s_tokenizer_as_a_pair_of_files(tmp_path: Path) -> None:
    tokens = [*tokenizers.BART_SPECIAL, "c", "a", "t", "Ġ", "ca", "cat", "Ġcat", "<mask>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t\nĠ cat\n", encoding="utf-8")
    read = tokenizers.read_bart(tmp_path)
    assert read.encode("cat cat ca").ids == [9, 10, 7, 8]
    assert summarization.decoder(read)([[2, 0, 9, 10, 11, 2, 1]]) == ["cat cat"]


def test_another_tokenizer_is_not_taken_for_bart_s(tmp_path: Path) -> None:
    bart_files(tmp_path, (tokenizers.PAD,))
    with pytest.raises(UserError, match="not BART's: <s> is token None, expected 0"):
        tokenizers.read_bart(tmp_path)


def test_the_hubs_are_pinned() -> None:
    for corpus in CORPORA.values():
        assert len(bytes.fromhex(corpus.hub.revision)) == 20


@pytest.mark.parametrize("name", CORPORA)
def test_the_built_in_rows(load_mini, name: str) -> None:
    data = load_mini(name)
    scale = catalogue.find(name).scales["mini"]
    assert {split: len(arrays["targets"]) for split, arrays in data.splits.items()} == {
        "train": 16_000,
        "validation": 1_000,
        "test": 1_000,
    }
    source, target = scale.buckets[0]  # so that one shape is compiled
    for split, arrays in data.splits.items():
        assert data.notes["tokens"][split]["source"]["max"] <= source
        assert data.notes["tokens"][split]["target"]["max"] <= target
        assert (
            max(int(arrays[key].max()) for key in ("inputs", "targets")) < scale.data["vocab_size"]
        )
        assert data.text is not None
        assert data.text.decode(arrays["targets"]) == data.text.references[split]
    assert scale.model["positions"] >= scale.data["max_source"]
    assert scale.generation is not None
    assert scale.generation.max_new_tokens >= target


@pytest.mark.parametrize("name", CORPORA)
def test_the_full_scale_is_bart_base(name: str) -> None:
    scale = catalogue.find(name).scales["full"]
    assert scale.model["positions"] == 1024 >= scale.data["max_source"]
    assert scale.data["vocab_size"] == 50265
    assert scale.default_source == "hub"


def test_initial_values_are_bart_s_at_bart_s_width() -> None:
    definition = catalogue.find("xsum")
    for scale, kernel in (("full", 0.02), ("mini", 0.0489898)):  # 0.02 sqrt(768 / 128)
        settings = definition.scales[scale].model
        std = definition.initial_std("encoder/block_0/up/kernel", (1, 1), settings)
        assert std == pytest.approx(kernel, abs=1e-7)
        assert definition.initial_std("token/embedding", (1, 1), settings) == 0.02


REAL_FILES = {
    "xsum": ("train.jsonl.gz", "validation.jsonl.gz", "test.jsonl.gz"),
    "cnn_dailymail": ("train.jsonl.gz", "validation.jsonl.gz", "test.jsonl.gz"),
    "samsum": ("train.json.gz", "val.json.gz", "test.json.gz"),
}
REAL_ROWS = {"xsum": [625, 100, 130], "cnn_dailymail": [167, 50, 162], "samsum": [830, 692, 699]}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside the repository")
@pytest.mark.parametrize("name", CORPORA)
def test_the_real_samples(name: str) -> None:
    """Against the files read by nothing but gzip and json, and lengths as words."""
    folder, corpus = SHARED / name, CORPORA[name]
    scale = catalogue.find(name).scales["mini"].on("folder")
    data = summarization.load(corpus, str(folder), **scale.data)
    assert data.text is not None
    for split, file, rows in zip(workload.SPLITS, REAL_FILES[name], REAL_ROWS[name], strict=True):
        content = gzip.decompress((folder / file).read_bytes()).decode()
        lines = content.rstrip("\n").split("\n") if ".jsonl" in file else []
        expected = list(map(json.loads, lines)) if lines else json.loads(content)
        assert len(expected) == len(data.splits[split]["targets"]) == rows
        for field, texts in zip(
            corpus.fields, (data.text.sources[split], data.text.references[split]), strict=True
        ):
            given = [row[field] for row in expected]
            assert [text.split() for text in texts] == [text.split() for text in given]
            assert not any("\r" in text for text in texts)
            assert sum(text.count("\n") for text in texts) == sum(
                text.count("\n") for text in given
            )
        assert data.splits[split]["inputs"].shape == (rows, scale.data["max_source"])
        words = [len(text.split()) for text in data.text.references[split]]
        assert data.notes["tokens"][split]["target"]["mean"] > np.mean(words) + 2
        cut, longest = data.notes["rows_cut"][split]["target"], scale.data["max_target"]
        assert sum(count + 2 > longest for count in words) <= cut <= rows
    ignored = ["test_tokenised_summeval.jsonl.gz"] if name == "cnn_dailymail" else []
    assert data.notes["files_ignored"] == ignored
    assert data.notes["bad_rows"] == data.notes["held_out"] == {}
    crlf = sum("\r\n" in row[corpus.fields[0]] for row in expected)
    assert crlf == (616 if name == "samsum" else 0)


@pytest.mark.parametrize("name", CORPORA)
def test_real_rows_have_room_at_mini(name: str) -> None:
    """Ten times what the built-in sources need is common; these keep 128 and 64 tokens."""
    mini = catalogue.find(name).scales["mini"]
    assert mini.on("builtin") is mini
    for kind in ("folder", "hub"):
        real = mini.on(kind)
        assert real.generation is not None
        assert (real.data["max_source"], real.data["max_target"]) == real.buckets[-1] == (128, 64)
        assert (real.model["positions"], real.generation.max_new_tokens) == (128, 64)
    full = catalogue.find(name).scales["full"]
    assert full.on("hub") is full

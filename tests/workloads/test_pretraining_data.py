"""Rows to pretrain on: text files, packing and masks, by hand and on real text."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from algoperf.data import tokenizers
from algoperf.errors import UserError
from algoperf.workload import axes, catalogue, registry
from workloads.ag_news import corpus
from workloads.ag_news import data as ag_news
from workloads.lm import data as lm
from workloads.metrics import pseudo_perplexity
from workloads.metrics.perplexity import Perplexity, perplexity
from workloads.mlm import data as mlm
from workloads.parts import plain_text

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "language_modelling"
LINES = [f"line {number} of some text" for number in range(400)]


def write(folder: Path, name: str, lines: list[str]) -> None:
    content = "\n".join(lines).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def test_files_are_of_the_split_that_their_name_says(tmp_path: Path) -> None:
    write(tmp_path, "wiki2_train.txt.gz", LINES[:40])
    write(tmp_path, "wiki2.valid.txt", ["", *LINES[40:42], ""])
    write(tmp_path, "TEST-1.txt", LINES[42:44])
    write(tmp_path, "TEST-2.txt", LINES[44:45])
    write(tmp_path, "latest.txt", ["of no split"])
    (tmp_path / "notes.md").write_text("not text to train on")
    texts, notes = plain_text.read(str(tmp_path))
    assert texts["train"] == ["\n".join(LINES[:32]), "\n".join(LINES[32:40])]
    assert texts["validation"] == ["\n".join(["", *LINES[40:42]])]
    assert texts["test"] == ["\n".join(LINES[42:44]), LINES[44]]
    assert notes == {"files_ignored": ["latest.txt"], "held_out": {}}


def test_files_of_no_split_are_trained_on_and_a_tenth_held_out(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", LINES[:200])
    write(tmp_path, "b.txt.gz", LINES[200:])
    texts, notes = plain_text.read(str(tmp_path), seed=1)
    blocks = [LINES[start : start + 32] for start in range(0, 200, 32)]
    blocks[-1] = LINES[192:200]
    blocks += [LINES[start : start + 32] for start in range(200, 400, 32)]
    assert sorted(text for found in texts.values() for text in found) == sorted(
        "\n".join(block) for block in blocks
    )
    assert {split: len(found) for split, found in texts.items()} == {
        "train": 12,
        "validation": 1,
        "test": 1,
    }
    assert notes["held_out"] == {"validation": 1, "test": 1}
    assert plain_text.read(str(tmp_path), seed=1)[0] == texts
    assert plain_text.read(str(tmp_path), seed=2)[0] != texts


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no training text; expected \*\.txt or \*\.txt\.gz"):
        plain_text.read(str(tmp_path))
    write(tmp_path, "train-test.txt", LINES)
    with pytest.raises(UserError, match="says several splits: test, train"):
        plain_text.read(str(tmp_path))
    (tmp_path / "train-test.txt").rename(tmp_path / "test.txt")
    with pytest.raises(UserError, match="no training text"):
        plain_text.read(str(tmp_path))
    (tmp_path / "train.txt").write_bytes(b"one\ntwo\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"train\.txt:3: unreadable"):
        plain_text.read(str(tmp_path))
    write(tmp_path, "train.txt", ["", " "])
    with pytest.raises(UserError, match="the train split has no text"):
        plain_text.read(str(tmp_path))
    write(tmp_path, "train.txt", LINES)
    write(tmp_path, "valid.txt", ["too short"])
    with pytest.raises(UserError, match="the validation split is shorter than one row of 64 token"):
        lm.load(str(tmp_path), 64, 300, "trained")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\n" * 1 + b"b\n" * 400)
    assert plain_text.read(str(tmp_path))[0]["train"][0].startswith("a\nb\n")


def test_packing_by_hand(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path, f"{split}.txt", LINES[:33])
    data = lm.load(str(tmp_path), 16, 300, "trained")
    made = tokenizers.train_byte_pair(["\n".join(LINES[:32]), LINES[32]], 300)
    first, second = (made.encode(text).ids for text in ("\n".join(LINES[:32]), LINES[32]))
    stream = [*first, 0, *second, 0]
    assert 0 not in first + second
    rows = (len(stream) - 1) // 16
    train = data.splits["train"]
    assert train["inputs"].shape == train["targets"].shape == (rows, 16)
    assert train["inputs"].dtype == train["targets"].dtype == np.int32
    assert train["inputs"].ravel().tolist() == stream[: rows * 16]
    assert train["targets"].ravel().tolist() == stream[1 : rows * 16 + 1]
    assert data.notes["packed_tokens"]["train"] == len(stream)
    assert data.model == {"vocab_size": 300, "pad_id": 0}
    assert data.tokenizer == made.to_str()


def test_the_built_in_rows_are_ag_news_text_in_its_tokens(load_mini) -> None:
    """So that a model of lm's mini scale fits ag_news' mini scale."""
    data, news = load_mini("lm"), load_mini("ag_news")
    assert data.tokenizer == news.tokenizer
    assert data.model == news.model
    lm_mini, news_mini = (catalogue.find(name).scales["mini"] for name in ("lm", "ag_news"))
    assert {**lm_mini.model, "classes": 4} == news_mini.model
    stream = data.splits["train"]["inputs"].ravel()
    ends = np.flatnonzero(stream == 0)
    for row, (start, end) in enumerate(zip([-1, *ends], ends[:50], strict=False)):
        tokens = news.splits["train"]["inputs"][row]
        np.testing.assert_array_equal(stream[start + 1 : end], tokens[tokens != 0])
    texts = plain_text.read("builtin")[0]
    whole = corpus.generate(0, **ag_news.BUILTIN_ROWS)
    assert texts["train"] == whole["train"][0]
    assert texts["validation"] == whole["validation"][0][:400]


def test_masks_by_hand() -> None:
    """Fixed shares of many tokens, within five standard errors, and special tokens never."""
    rng = np.random.default_rng(1)
    rows_NT = rng.integers(0, 100, (2000, 50)).astype(np.int32)
    plain_ids = np.arange(5, 100, dtype=np.int32)
    inputs_NT, weights_NT = mlm.mask(rows_NT, 0.3, plain_ids, 4, np.random.default_rng(2))
    assert inputs_NT.dtype == np.int32
    assert weights_NT.dtype == np.float32
    chosen_NT = weights_NT == 1
    assert set(np.unique(weights_NT)) == {0, 1}
    assert not chosen_NT[rows_NT < 5].any()
    np.testing.assert_array_equal(inputs_NT[~chosen_NT], rows_NT[~chosen_NT])
    candidates = (rows_NT >= 5).sum()

    def is_near(count: int, total: int, share: float) -> bool:
        return abs(count - share * total) < 5 * (total * share * (1 - share)) ** 0.5

    chosen = chosen_NT.sum()
    assert is_near(chosen, candidates, 0.3)
    new, old = inputs_NT[chosen_NT], rows_NT[chosen_NT]
    assert is_near((new == 4).sum(), chosen, 0.8)
    assert is_near((new == old).sum(), chosen, 0.1 + 0.1 / 95)  # kept, or drawn by chance
    others = new[(new != 4) & (new != old)]
    assert is_near(len(others), chosen, 0.1 * 94 / 95)
    assert set(others) == set(range(5, 100))


def test_masked_rows(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path, f"{split}.txt", LINES)
    data = mlm.load(str(tmp_path), 16, 300, "trained", copies=3, chosen_share=0.15)
    train, validation = data.splits["train"], data.splits["validation"]
    rows = len(train["targets"]) // 3
    assert data.notes["copies"] == 3
    assert len(validation["targets"]) == rows
    np.testing.assert_array_equal(train["targets"][:rows], train["targets"][rows : 2 * rows])
    np.testing.assert_array_equal(train["targets"][:rows], validation["targets"])
    masks = [train["weights"][start : start + rows] for start in (0, rows, 2 * rows)]
    for other in (masks[1], masks[2], validation["weights"]):
        assert (masks[0] != other).any()
    assert (train["targets"][:, 0] == tokenizers.BEGIN_ID).all()
    assert (train["targets"][:, 1:] != tokenizers.BEGIN_ID).all()
    assert (train["weights"].sum(1) <= 12).all()
    ends = (train["targets"][:rows] == tokenizers.END_ID).sum()
    assert ends in (12, 13)  # texts; the last may be cut off with the rest
    again = mlm.load(str(tmp_path), 16, 300, "trained", copies=3, chosen_share=0.15)
    assert again.fingerprint == data.fingerprint
    other = mlm.load(str(tmp_path), 16, 300, "trained", copies=3, chosen_share=0.15, seed=1)
    assert other.fingerprint != data.fingerprint


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    made = tokenizers.train_byte_pair(LINES, 300, tokenizers.BART_SPECIAL)
    made.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "train.txt", LINES)
    with pytest.raises(UserError, match="has no <mask> token"):
        mlm.load(str(tmp_path), 16, 300, str(tmp_path), copies=1, chosen_share=0.15)


def test_perplexity_by_hand() -> None:
    assert perplexity(np.log(8.0)) == pytest.approx(8)
    assert pseudo_perplexity.METRICS["pseudo_perplexity"] is Perplexity
    assert perplexity(0.0) == 1
    assert perplexity(1e4) == np.inf
    assert np.isnan(perplexity(np.nan))


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared sample of real text is not here")
def test_real_text_is_read(tmp_path: Path) -> None:
    for split in ("valid", "test"):
        name = f"wikitext2_{split}.txt.gz"
        (tmp_path / name).symlink_to(REAL / name)
    (tmp_path / "train.txt.gz").symlink_to(REAL / "tinyshakespeare.txt.gz")
    texts, notes = plain_text.read(str(tmp_path))
    assert notes == {"files_ignored": [], "held_out": {}}
    for split, words in (("validation", 179_667), ("test", 208_818), ("train", 182_487)):
        assert sum(len(text.split()) for text in texts[split]) == words  # as `wc -w` counts


@pytest.mark.parametrize("name", registry.names())
def test_classes_are_made_rare_only_where_rows_have_one(name) -> None:
    offered = axes.offered(catalogue.find(name).scales["mini"])
    classified = ("digits", "ag_news", "imagenet_resnet", "imagenet_vit")
    assert ("class_imbalance" in offered) == (name in classified)

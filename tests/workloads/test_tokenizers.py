"""Text to tokens: trained the same everywhere, read from GPT-2's own files, cut and padded on the
right.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from algoperf.data import tokenizers
from algoperf.errors import UserError

TEXTS = ["the cat sat", "the dog sat on the cat", "", "naïve café — 東京", "a  b\n\tc"] * 20
DIGEST_PROGRAM = """
import hashlib
from algoperf.data import tokenizers
from workloads.ag_news import corpus
texts = corpus.generate(0, 800, 10, 10)["train"][0]
trained = tokenizers.train_byte_pair(texts, 600)
tokens_NT, cut = tokenizers.encode(trained, texts, 16, 0)
print(hashlib.sha256(trained.to_str().encode() + tokens_NT.tobytes()).hexdigest(), cut)
"""


def test_two_processes_train_the_same_tokenizer() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST_PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""


def test_any_text_survives_a_round_trip() -> None:
    trained = tokenizers.train_byte_pair(TEXTS, 400)
    unseen = "Ünseen wörds: 🙂 42%"
    assert trained.decode(trained.encode(unseen).ids) == f" {unseen}"
    assert trained.token_to_id(tokenizers.PAD) == 0
    assert trained.get_vocab_size() <= 400
    assert 0 not in [token for text in TEXTS for token in trained.encode(text).ids]


def test_rows_are_padded_on_the_right_and_cut_rows_counted() -> None:
    trained = tokenizers.train_byte_pair(TEXTS, 300)
    texts = ["a", "", "cat " * 50, "a b c d e f g h i j"]
    full = [trained.encode(text).ids for text in texts]
    length = len(full[3])
    tokens_NT, cut = tokenizers.encode(trained, texts, length, 0)
    assert tokens_NT.dtype == np.int32
    assert cut == 1  # the third; the fourth fits exactly
    for row, ids in zip(tokens_NT, full, strict=True):
        kept = ids[:length]
        assert row.tolist() == kept + [0] * (length - len(kept))


VOCABULARY = {"c": 0, "a": 1, "t": 2, "Ġ": 3, "ca": 4, "cat": 5, "Ġcat": 6}
MERGES = [("c", "a"), ("ca", "t"), ("Ġ", "cat")]


def write_pair(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY), encoding="utf-8")
    lines = "\n".join(" ".join(pair) for pair in MERGES)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")


def write_single(folder: Path) -> None:
    made = Tokenizer(models.BPE(VOCABULARY, MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("write", [write_pair, write_single])
def test_gpt2_s_tokenizer_comes_from_a_folder(tmp_path: Path, write) -> None:
    write(tmp_path)
    read = tokenizers.read_gpt2(tmp_path)
    assert read.encode("cat cat ca").ids == [5, 6, 3, 4]


@pytest.mark.parametrize("folder_given", [True, False])
def test_without_files_or_network_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch, folder_given
) -> None:
    def unreachable(*arguments, **settings):
        raise Exception("no route to host\nat all")

    monkeypatch.setattr(Tokenizer, "from_pretrained", unreachable)
    with pytest.raises(UserError, match=r"tokenizer\.json") as caught:
        tokenizers.read_gpt2(tmp_path if folder_given else None)
    assert "\n" not in str(caught.value)


def special(kind: str) -> Tokenizer:
    """A byte-pair tokenizer whose first tokens are those of a kind."""
    tokens = (tokenizers.PAD,) if kind == "decoder" else (*tokenizers.BART_SPECIAL, "<mask>")
    return tokenizers.train_byte_pair(TEXTS, 400, tokens)


SAYS_SPECIAL = "x <pad> y<mask></s><s> <unk>z<|endoftext|>"


@pytest.mark.parametrize("unmarked", [False, True], ids=["special", "not marked special"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("origin", ["trained", "saved", "published"])
def test_a_text_that_names_a_special_token_has_none(tmp_path, kind, origin, unmarked) -> None:
    document = json.loads(special(kind).to_str())
    if origin == "published" and kind == "decoder":  # GPT-2's end of a text
        document["model"]["vocab"]["<|endoftext|>"] = 399
        document["added_tokens"].append({**document["added_tokens"][0], "id": 399})
        document["added_tokens"][-1]["content"] = "<|endoftext|>"
    for token in document["added_tokens"]:
        token["special"] = not unmarked
    document["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    name = {"trained": "trained", "saved": str(tmp_path)}.get(
        origin, "gpt2" if kind == "decoder" else "bart"
    )
    if kind == "decoder":
        found, _ = tokenizers.of_decoder(name, str(tmp_path), TEXTS, 400)
    else:
        names = (*tokenizers.BART_SPECIAL, "<mask>")
        found = tokenizers.of_encoder(name, str(tmp_path), TEXTS, 400, names)
    (ids,) = tokenizers.ids_of(found, [SAYS_SPECIAL])
    added = set(found.get_added_tokens_decoder())
    assert added
    assert not added & set(ids)
    assert found.decode(ids).strip() == SAYS_SPECIAL
    plain = special(kind)  # A text that names none has the tokens that it always had.
    assert next(tokenizers.ids_of(found, [TEXTS[1]])) == plain.encode(TEXTS[1]).ids

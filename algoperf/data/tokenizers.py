"""Text to tokens, with the `tokenizers` library."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from algoperf.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, MASK = "<pad>", "<mask>"
BART_SPECIAL = ("<s>", PAD, "</s>", "<unk>")
BEGIN_ID, PAD_ID, END_ID, UNKNOWN_ID = range(len(BART_SPECIAL))
START_ID = END_ID  # with which BART's decoder is started
RESERVED = frozenset({*BART_SPECIAL, MASK, "<|endoftext|>"})  # of which a text has none


def train_byte_pair(
    texts: Sequence[str], vocab_size: int, special_tokens: Sequence[str] = (PAD,)
) -> "Tokenizer":
    """A byte-level byte-pair tokenizer (Sennrich et al. 2016) trained on `texts`; its first tokens
    are the special ones, by default padding alone.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_in_chunks(texts), trainer, length=len(texts))
    return tokenizer


def _in_chunks(texts: Sequence[str], size: int = 1000) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def of_decoder(
    kind: str, source: str, texts: Sequence[str], vocab_size: int
) -> tuple["Tokenizer", int]:
    """Return (the tokenizer of GPT-2's workloads, its token for padding and the end of a text).

    `kind` is 'trained' (on `texts`), 'gpt2' (from the folder `source`, else from the hub) or the
    folder of one that was trained.
    """
    if kind == "trained":
        return _of_texts(train_byte_pair(texts, vocab_size)), 0
    if kind != "gpt2":
        return _of_texts(read_trained(kind, (PAD,))), 0
    read = read_gpt2(None if source in ("builtin", "hub") else Path(source))
    return _of_texts(read), GPT2_END_ID


def of_encoder(
    kind: str, source: str, texts: Sequence[str], vocab_size: int, special_tokens: Sequence[str]
) -> "Tokenizer":
    """The tokenizer of BART's and RoBERTa's workloads; the first tokens are BART's special ones.

    `kind` is 'trained' (on `texts`, with the `special_tokens`), 'bart' (from the folder `source`,
    else from the hub) or the folder of one that was trained.
    """
    if kind == "trained":
        tokenizer = train_byte_pair(texts, vocab_size, special_tokens)
    elif kind != "bart":
        tokenizer = read_trained(kind, BART_SPECIAL)
    else:
        tokenizer = read_bart(None if source in ("builtin", "hub") else Path(source))
    return _of_texts(tokenizer)


def _of_texts(tokenizer: "Tokenizer") -> "Tokenizer":
    """The tokenizer, so that it gives all tokens of a text and no others: a text that says '<pad>'
    has no padding inside.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    added = tokenizer.get_added_tokens_decoder()
    unmarked = [
        token.content
        for token in added.values()
        if token.content in RESERVED and not token.special  # as some files have them
    ]
    tokenizer.add_special_tokens(unmarked)
    tokenizer.encode_special_tokens = True
    return tokenizer


def read_trained(folder: str, special_tokens: Sequence[str]) -> "Tokenizer":
    """The tokenizer of saved weights (`tokenizer.json`); UserError where its first tokens are not
    the special ones.
    """
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    try:
        read = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"{path}: not a tokenizer ({error})") from error
    _check_special(str(path), read, special_tokens)
    return read


def _check_special(
    where: str, tokenizer: "Tokenizer", special_tokens: Sequence[str], title: str = "the workload"
) -> None:
    for expected, token in enumerate(special_tokens):
        actual = tokenizer.token_to_id(token)
        if actual != expected:
            raise UserError(
                f"{where}: the tokenizer is not {title}'s: {token} is token {actual}, expected "
                f"{expected}"
            )


def to_json(kind: str, tokenizer: "Tokenizer") -> str | None:
    """The tokenizer's JSON for `Data.tokenizer`; None where `kind` names a published one."""
    return None if kind in PUBLISHED else str(tokenizer.to_str())


def read_gpt2(folder: Path | None) -> "Tokenizer":
    """GPT-2's tokenizer from a folder (`tokenizer.json`, or `vocab.json` and `merges.txt`), else
    from the hub.
    """
    return _read(folder, "GPT-2", "openai-community/gpt2", GPT2_REVISION)


def read_bart(folder: Path | None) -> "Tokenizer":
    """BART's tokenizer, from where `read_gpt2` would have its own; UserError where it is none."""
    tokenizer = _read(folder, "BART", "facebook/bart-base", BART_REVISION)
    _check_special(str(folder), tokenizer, BART_SPECIAL, "BART")
    return tokenizer


def _read(folder: Path | None, title: str, path: str, revision: str) -> "Tokenizer":
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    if folder is not None and (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if folder is not None and (folder / "merges.txt").is_file():
        files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
        read: Tokenizer = ByteLevelBPETokenizer(*files)._tokenizer
        return read
    try:
        return Tokenizer.from_pretrained(path, revision=revision)
    except Exception as error:  # the library raises a bare Exception when the hub is out of reach
        raise UserError(
            f"{title}'s tokenizer is not at hand and the hub cannot be reached; put "
            "its tokenizer.json into "
            f"the folder given as --data ({type(error).__name__})"
        ) from error


PUBLISHED = frozenset({"gpt2", "bart"})
GPT2_END_ID = 50256  # <|endoftext|>
GPT2_REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
BART_REVISION = "aadd2ab0ae0c8268c7c9693540e9904811f36177"


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str], max_length: int, pad_id: int
) -> tuple[np.ndarray, int]:
    """Return (tokens_NT int32, number of rows cut): the first `max_length` tokens, padded on the
    right.
    """
    tokens_NT = np.full((len(texts), max_length), pad_id, np.int32)
    cut = 0
    for row, ids in enumerate(ids_of(tokenizer, texts)):
        kept = ids[:max_length]
        cut += len(ids) > max_length
        tokens_NT[row, : len(kept)] = kept
    return tokens_NT, cut


def ids_of(tokenizer: "Tokenizer", texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield each text's tokens, without special ones."""
    for chunk in _in_chunks(texts):
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            yield encoding.ids

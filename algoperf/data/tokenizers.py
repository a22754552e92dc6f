"""Text to tokens, with the `tokenizers` library."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from algoperf.spec import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD = "<pad>"


def train_byte_pair(texts: Sequence[str], vocab_size: int) -> "Tokenizer":
    """A byte-level byte-pair tokenizer (Sennrich et al. 2016) trained on `texts`; token 0 is
    padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_in_chunks(texts), trainer, length=len(texts))
    return tokenizer


def _in_chunks(texts: Sequence[str], size: int = 1000) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def read_gpt2(folder: Path | None) -> "Tokenizer":
    """GPT-2's tokenizer from a folder (`tokenizer.json`, or `vocab.json` and `merges.txt`), else
    from the hub.
    """
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    if folder is not None and (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if folder is not None and (folder / "merges.txt").is_file():
        files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
        read: Tokenizer = ByteLevelBPETokenizer(*files)._tokenizer
        return read
    try:
        return Tokenizer.from_pretrained("openai-community/gpt2", revision=GPT2_REVISION)
    except Exception as error:  # the library raises a bare Exception when the hub is out of reach
        raise UserError(
            "GPT-2's tokenizer is not at hand and the hub cannot be reached; put "
            "its tokenizer.json into "
            f"the folder given as --data ({type(error).__name__})"
        ) from error


GPT2_REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str], max_length: int, pad_id: int
) -> tuple[np.ndarray, int]:
    """Return (tokens_NT int32, number of rows cut): the first `max_length` tokens, padded on the
    right.
    """
    tokens_NT = np.full((len(texts), max_length), pad_id, np.int32)
    cut = 0
    for row, encoding in enumerate(
        tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ):
        ids = encoding.ids[:max_length]
        cut += len(encoding.ids) > max_length
        tokens_NT[row, : len(ids)] = ids
    return tokens_NT, cut

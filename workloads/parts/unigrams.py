"""A vocabulary of unigrams, by the package sentencepiece."""

import importlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from algoperf.errors import UserError

TRAINED_CHARACTERS = 10_000_000  # as AlgoPerf's


class Special(NamedTuple):
    """The tokens that no text has: padding, what is unknown, the end, and the beginning if any."""

    pad_id: int
    unknown_id: int
    end_id: int
    begin_id: int | None = None


class Unigrams:
    """A unigram vocabulary (Kudo 2018) that SentencePiece trains on some texts.

    Args:
        texts: The texts, of which the first count.
        size: The most tokens; of few texts there are fewer.
        special: The special tokens.
        characters: How many characters of the texts it is trained on.

    Raises:
        UserError: It cannot be trained on the texts.
    """

    def __init__(
        self,
        texts: Sequence[str],
        size: int,
        special: Special,
        characters: int = TRAINED_CHARACTERS,
    ) -> None:
        sentencepiece: Any = importlib.import_module("sentencepiece")  # it has no types
        self._unknown_id = special.unknown_id
        ends = np.cumsum([len(text) for text in texts])
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts[: int(np.searchsorted(ends, characters)) + 1]),
                model_writer=model,
                vocab_size=size,
                hard_vocab_limit=False,
                model_type="unigram",
                character_coverage=1.0,
                pad_id=special.pad_id,
                unk_id=special.unknown_id,
                eos_id=special.end_id,
                bos_id=-1 if special.begin_id is None else special.begin_id,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(f"no vocabulary of {size} unigrams can be trained: {error}") from error
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text and the end token."""
        tokens: list[int] = self._processor.encode(text, add_eos=True)
        return tokens

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of lists of tokens, without special ones."""
        known = self._processor.get_piece_size()
        read = [
            [int(token) if token < known else self._unknown_id for token in row] for row in tokens
        ]
        texts: list[str] = self._processor.decode(read)
        return texts

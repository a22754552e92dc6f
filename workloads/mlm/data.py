"""Text packed into rows of tokens, some of them masked, as BERT has it (Devlin et al. 2019, section
3.1).

Legend: N rows, T tokens.
"""

from typing import TYPE_CHECKING

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.tokenizers import BART_SPECIAL, BEGIN_ID, END_ID, MASK, PAD_ID
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data
from workloads.parts import plain_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the others stay as they are


def load(
    source: str,
    max_length: int,
    vocab_size: int,
    tokenizer: str,
    copies: int,
    chosen_share: float,
    seed: int = 0,
) -> Data:
    """Return 'inputs' and 'targets', int32 (rows, max_length), and 'weights', 1 where the input is
    to be predicted.

    A row is <s> and the next tokens of the split, which has </s> after each text; the targets are
    the row itself, the inputs the row with `chosen_share` of its tokens masked. Training rows come
    in `copies` that are masked differently, one whole copy after another; the other splits once.
    All masks are fixed by the seed. `tokenizer` is 'trained' (on the training texts, BART's special
    tokens and <mask> first), 'bart' or a trained one's folder. Notes hold the splits' 'texts' and
    'packed_tokens', the 'copies', and those of `plain_text.read`.
    """
    texts, notes = plain_text.read(source, seed)
    special = (*BART_SPECIAL, MASK)
    text_tokenizer = tokenizers.of_encoder(tokenizer, source, texts["train"], vocab_size, special)
    plain_ids, mask_id = _ids(tokenizer, text_tokenizer)
    splits, notes["texts"], notes["packed_tokens"] = {}, {}, {}
    for index, split in enumerate(SPLITS):
        stream = plain_text.packed(text_tokenizer, texts[split], END_ID)
        plain_text.check_vocabulary(source, int(stream.max()), vocab_size)
        rows_NT = _rows(stream, max_length)
        plain_text.check_rows(source, {split: len(rows_NT)}, max_length)
        masked = [
            mask(
                rows_NT,
                chosen_share,
                plain_ids,
                mask_id,
                np.random.default_rng([seed, index, copy]),
            )
            for copy in range(copies if split == "train" else 1)
        ]
        inputs, weights = (np.concatenate(parts) for parts in zip(*masked, strict=True))
        targets = np.tile(rows_NT, (len(masked), 1))
        splits[split] = {"inputs": inputs, "targets": targets, "weights": weights}
        notes["texts"][split], notes["packed_tokens"][split] = len(texts[split]), len(stream)
    model = {"vocab_size": vocab_size, "pad_id": PAD_ID}
    json = tokenizers.to_json(tokenizer, text_tokenizer)
    return Data(splits, model=model, notes={**notes, "copies": copies}, tokenizer=json)


def _ids(kind: str, tokenizer: "Tokenizer") -> tuple[np.ndarray, int]:
    """The tokens that are not special, and the one that masks."""
    mask_id = tokenizer.token_to_id(MASK)
    if mask_id is None:
        raise UserError(f"{kind}: the tokenizer has no {MASK} token; take a folder saved of mlm")
    ids = np.arange(len(BART_SPECIAL), tokenizer.get_vocab_size(), dtype=np.int32)
    return ids[ids != mask_id], mask_id


def _rows(stream: np.ndarray, length: int) -> np.ndarray:
    """Cut into rows_NT, each begun with <s>; what is too short for a last row is left out."""
    count = len(stream) // (length - 1)
    rows_NT = stream[: count * (length - 1)].reshape(count, length - 1)
    return np.pad(rows_NT, ((0, 0), (1, 0)), constant_values=BEGIN_ID)


def mask(
    rows_NT: np.ndarray,
    chosen_share: float,
    plain_ids: np.ndarray,
    mask_id: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (inputs_NT int32, weights_NT float32, 1 where a token was chosen).

    Of `plain_ids`, and of nothing else, each token is chosen with probability `chosen_share`; a
    chosen one becomes the mask with probability 0.8, one of the plain ids with 0.1, and stays with
    0.1.
    """
    chosen_NT = (rng.random(rows_NT.shape) < chosen_share) & np.isin(rows_NT, plain_ids)
    fate_NT = rng.random(rows_NT.shape)
    random_NT = rng.choice(plain_ids, rows_NT.shape)
    instead_NT = np.where(fate_NT < MASKED_SHARE + RANDOM_SHARE, random_NT, rows_NT)
    instead_NT = np.where(fate_NT < MASKED_SHARE, mask_id, instead_NT)
    inputs_NT = np.where(chosen_NT, instead_NT, rows_NT).astype(np.int32)
    return inputs_NT, chosen_NT.astype(np.float32)

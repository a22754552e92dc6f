"""The rows of the masked-language-modelling workload: packed text with some tokens masked.

The masking is that of BERT (Devlin et al. 2019, section 3.1).

Legend: N rows, T tokens.
"""

from typing import TYPE_CHECKING

import numpy as np

from algoperf.data import tokenizers
from algoperf.data.tokenizers import BART_SPECIAL, BEGIN_ID, END_ID, MASK, PAD_ID
from algoperf.data.validation_seed import seed_words
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data
from workloads.parts import plain_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# These are shares of the chosen tokens; the other chosen tokens stay as they are.
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1


def load(
    source: str,
    max_length: int,
    vocab_size: int,
    tokenizer: str,
    copies: int,
    chosen_share: float,
    seed: int = 0,
    validation_seed: int | None = None,
) -> Data:
    """Return packed text with some tokens masked, as arrays of tokens.

    A row is <s> and the next tokens of the split, which has </s> after each text. All masks are
    fixed by the seed.

    Args:
        source: Where the texts come from: 'builtin', 'hub' or a folder (see `plain_text.read`).
        max_length: The number of tokens of a row, with <s>.
        vocab_size: The number of tokens that the model knows.
        tokenizer: 'trained' (on the training texts, with BART's special tokens and <mask> first),
            'bart', or the folder of a trained one.
        copies: The number of times that the training rows are repeated, one whole copy after
            another, each masked differently. The other splits come once.
        chosen_share: The probability that a token is chosen for prediction (see `mask`).
        seed: The seed of built-in texts, of held-out splits and of masks.
        validation_seed: As of `plain_text.read`; it seeds the masks of these texts, too.

    Returns:
        For each split, 'inputs' (masked rows) and 'targets' (whole rows), int32 (N rows,
        max_length), and 'weights', float32, 1 where the token is to be predicted. The notes hold
        the number of 'texts' and of 'packed_tokens' of each split, the 'copies', and the notes of
        `plain_text.read`.

    Raises:
        UserError: The texts cannot be read, a split is shorter than one row, or the tokenizer has
            no <mask> token or has tokens that the model does not know.
    """
    texts, notes = plain_text.read(source, seed, validation_seed)
    special = (*BART_SPECIAL, MASK)
    text_tokenizer = tokenizers.of_encoder(tokenizer, source, texts["train"], vocab_size, special)
    plain_ids, mask_id = _ids(tokenizer, text_tokenizer)
    splits, notes["texts"], notes["packed_tokens"] = {}, {}, {}
    for index, split in enumerate(SPLITS):
        stream = plain_text.packed(text_tokenizer, texts[split], END_ID)
        plain_text.check_vocabulary(source, int(stream.max()), vocab_size)
        rows_NT = _rows(stream, max_length)
        plain_text.check_rows(source, {split: len(rows_NT)}, max_length)
        secret = seed_words(split, validation_seed)
        masked = [
            mask(
                rows_NT,
                chosen_share,
                plain_ids,
                mask_id,
                np.random.default_rng([seed, index, copy, *secret]),
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
    """Return the ids of the tokens that are not special, and the id of <mask>."""
    mask_id = tokenizer.token_to_id(MASK)
    if mask_id is None:
        raise UserError(f"{kind}: the tokenizer has no {MASK} token; take a folder saved of mlm")
    ids = np.arange(len(BART_SPECIAL), tokenizer.get_vocab_size(), dtype=np.int32)
    return ids[ids != mask_id], mask_id


def _rows(stream: np.ndarray, length: int) -> np.ndarray:
    """Cut a stream of tokens into rows that begin with <s>; a rest too short is left out."""
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
    """Mask some tokens of each row.

    Each plain token is chosen with probability `chosen_share`. A chosen token becomes the mask with
    probability 0.8, becomes a random plain token with 0.1, and stays as it is with 0.1.

    Args:
        rows_NT: Token ids (N rows, T tokens).
        chosen_share: The probability that a plain token is chosen.
        plain_ids: The ids of the tokens that may be chosen, which are not special.
        mask_id: The id of the mask.
        rng: The source of random numbers.

    Returns:
        The inputs, int32 (N, T), and the weights, float32 (N, T), 1 where a token was chosen.
    """
    chosen_NT = (rng.random(rows_NT.shape) < chosen_share) & np.isin(rows_NT, plain_ids)
    fate_NT = rng.random(rows_NT.shape)
    random_NT = rng.choice(plain_ids, rows_NT.shape)
    instead_NT = np.where(fate_NT < MASKED_SHARE + RANDOM_SHARE, random_NT, rows_NT)
    instead_NT = np.where(fate_NT < MASKED_SHARE, mask_id, instead_NT)
    inputs_NT = np.where(chosen_NT, instead_NT, rows_NT).astype(np.int32)
    return inputs_NT, chosen_NT.astype(np.float32)

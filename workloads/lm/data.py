"""The rows of the language-modelling workload: text packed into rows of tokens.

The target of each position is the next token.
"""

from algoperf.data import tokenizers
from algoperf.workload import Data
from workloads.parts import plain_text


def load(
    source: str,
    max_length: int,
    vocab_size: int,
    tokenizer: str,
    seed: int = 0,
    validation_seed: int | None = None,
) -> Data:
    """Return packed text as arrays of tokens.

    The texts of a split follow one another, with an end-of-text token after each, and are cut into
    rows. Tokens that are too few for a last row are left out.

    Args:
        source: Where the texts come from: 'builtin', 'hub' or a folder (see `plain_text.read`).
        max_length: The number of tokens of a row.
        vocab_size: The number of tokens that the model knows.
        tokenizer: 'trained' (on the training texts, as ag_news' mini scale trains its own; its
            padding token ends a text), 'gpt2', or the folder of a trained one.
        seed: The seed of built-in texts and of held-out splits.
        validation_seed: As of `plain_text.read`.

    Returns:
        For each split, 'inputs' and 'targets', int32 (rows, max_length); the targets are one token
        further on. The notes hold the number of 'texts' and of 'packed_tokens' of each split, and
        the notes of `plain_text.read`.

    Raises:
        UserError: The texts cannot be read, a split is shorter than one row, or the tokenizer has
            tokens that the model does not know.
    """
    texts, notes = plain_text.read(source, seed, validation_seed)
    text_tokenizer, end_id = tokenizers.of_decoder(tokenizer, source, texts["train"], vocab_size)
    splits, notes["texts"], notes["packed_tokens"] = {}, {}, {}
    for split, documents in texts.items():
        stream = plain_text.packed(text_tokenizer, documents, end_id)
        plain_text.check_vocabulary(source, int(stream.max()), vocab_size)
        rows = (len(stream) - 1) // max_length
        size = rows * max_length
        splits[split] = {
            "inputs": stream[:size].reshape(rows, max_length),
            "targets": stream[1 : size + 1].reshape(rows, max_length),
        }
        notes["texts"][split], notes["packed_tokens"][split] = len(documents), len(stream)
    counts = {split: len(arrays["inputs"]) for split, arrays in splits.items()}
    plain_text.check_rows(source, counts, max_length)
    model = {"vocab_size": vocab_size, "pad_id": end_id}
    json = tokenizers.to_json(tokenizer, text_tokenizer)
    return Data(splits, model=model, notes=notes, tokenizer=json)

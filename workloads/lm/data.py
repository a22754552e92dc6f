"""Text packed into rows of tokens, each position's target the next token."""

from algoperf.data import tokenizers
from algoperf.workload import Data
from workloads.parts import plain_text


def load(source: str, max_length: int, vocab_size: int, tokenizer: str, seed: int = 0) -> Data:
    """Return 'inputs' and 'targets', int32 (rows, max_length): a split's tokens one after another,
    an end-of-text token after each text, cut into rows; the targets are one token further on.

    `tokenizer` is 'trained' (as ag_news' mini scale trains its own, on the training texts; its
    padding token ends a text), 'gpt2' or a trained one's folder. What is too short for a last row
    is left out. Notes hold the splits' 'texts' and 'packed_tokens', and those of `plain_text.read`.
    """
    texts, notes = plain_text.read(source, seed)
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

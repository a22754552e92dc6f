"""The rows of the finewebedu_lm workload: a made language, or the texts of a folder."""

from pathlib import Path

from algoperf.workload import SPLITS, Data
from workloads.finewebedu_lm import generator
from workloads.parts import document_stream, plain_text


def load(
    source: str,
    max_length: int,
    vocab_size: int,
    tokenizer: str = "trained",
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return rows of tokens, of which each position's target is the token after it.

    Args:
        source: 'builtin', or a folder of parquet files (see `document_stream.load`) or of text
            files (see `plain_text.read`).
        max_length: The number of tokens of a row.
        vocab_size: The number of tokens that the model knows.
        tokenizer: As of `plain_text.windows`; the built-in language needs none.
        seed: The seed of the built-in language and of held-out splits.
        skip_bad_rows: Whether documents of parquet files that are no text are left out and counted.
        validation_seed: As of `generator.generate`.

    Returns:
        For each split, 'inputs' and 'targets', int32 (rows, max_length).

    Raises:
        UserError: The folder cannot be used.
    """
    if source == "builtin":
        return _builtin(max_length, vocab_size, seed, validation_seed)
    folder = Path(source)
    if any(folder.rglob(f"*{document_stream.ENDING}")):
        return document_stream.load(folder, max_length, vocab_size, tokenizer, skip_bad_rows)
    return plain_text.windows(source, max_length, vocab_size, tokenizer, seed)


def _builtin(max_length: int, vocab_size: int, seed: int, validation_seed: int | None) -> Data:
    splits = {}
    for split in SPLITS:
        tokens_NT = generator.generate(split, max_length + 1, seed, validation_seed).tokens_NT
        splits[split] = {"inputs": tokens_NT[:, :-1], "targets": tokens_NT[:, 1:]}
    return Data(splits, model={"vocab_size": vocab_size, "pad_id": generator.END})

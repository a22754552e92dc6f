"""The rows of XSum: generated, from the hub, or from a folder with the same fields."""

from typing import Any

from algoperf.data.formats.records import Hub
from algoperf.workload import Data
from workloads.parts import summarization
from workloads.xsum import generator

CORPUS = summarization.Corpus(
    hub=Hub("EdinburghNLP/xsum", "7d4d486c2f8ef850b1a11aead99b894ff3dd7da9"),
    fields=("document", "summary"),
    generate=generator.generate,
    make_row=generator.make_row,
)


def load(source: str, validation_seed: int | None = None, **settings: Any) -> Data:
    """Return the rows of XSum as tokens (see `summarization.load`)."""
    return summarization.load(CORPUS, source, validation_seed=validation_seed, **settings)

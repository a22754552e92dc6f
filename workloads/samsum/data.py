"""The rows of SAMSum: generated, from the hub, or from a folder with the same fields."""

from typing import Any

from algoperf.data.formats.records import Hub
from algoperf.workload import Data
from workloads.parts import summarization
from workloads.samsum import generator

CORPUS = summarization.Corpus(
    hub=Hub("knkarthick/samsum", "6b929ff10edec703164e3ddb2e94aae058c9ab5f"),
    fields=("dialogue", "summary"),
    generate=generator.generate,
    make_row=generator.make_row,
)


def load(source: str, validation_seed: int | None = None, **settings: Any) -> Data:
    """Return the rows of SAMSum as tokens (see `summarization.load`)."""
    return summarization.load(CORPUS, source, validation_seed=validation_seed, **settings)

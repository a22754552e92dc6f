"""The rows of CNN/DailyMail: generated, from the hub, or from a folder with the same fields."""

from typing import Any

from algoperf.data.formats.records import Hub
from algoperf.workload import Data
from workloads.cnn_dailymail import generator
from workloads.parts import summarization

CORPUS = summarization.Corpus(
    hub=Hub("abisee/cnn_dailymail", "96df5e686bee6baa90b8bee7c28b81fa3fa6223d", "3.0.0"),
    fields=("article", "highlights"),
    generate=generator.generate,
    make_row=generator.make_row,
)


def load(source: str, validation_seed: int | None = None, **settings: Any) -> Data:
    """Return the rows of CNN/DailyMail as tokens (see `summarization.load`)."""
    return summarization.load(CORPUS, source, validation_seed=validation_seed, **settings)

"""What a model writes: generation over the rows of a split, judged by the metrics of texts."""

import itertools
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from algoperf import spec
from algoperf.backends import Backend
from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.workload import Arrays, Rows, Text
from algoperf.workload.metric import Batch, Decode, TextAccumulator, TextBatch, read
from algoperf.workload.rows import as_rows

SUBSET_SEED = 0
MOST_TRANSCRIPTS = 100
MOST_IN_MEMORY_BYTES = 2**20  # of generated texts; more of them are in a temporary file


class Written:
    """What was generated for some rows of a split: each row's text, length and values.

    The texts come in the order of their lengths and are read in the order of the rows, so they
    wait in a temporary file; in memory are a few numbers a row.

    Args:
        split: The name of the split.
        rows: Which of its rows, (N,).
        text: The split's sources and references.
        metrics: The metrics, just started, by name.
    """

    def __init__(
        self, split: str, rows: np.ndarray, text: Text, metrics: Mapping[str, TextAccumulator]
    ) -> None:
        self._split = split
        self._rows = rows
        self._text = text
        self._accumulators = metrics
        self.tokens_N = np.zeros(len(rows), np.int64)
        self._begin_N, self._end_N = np.zeros((2, len(rows)), np.int64)  # in the file
        self._file = tempfile.SpooledTemporaryFile(MOST_IN_MEMORY_BYTES)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def add(self, positions: np.ndarray, tokens: Sequence[Sequence[int]]) -> None:
        """Take the tokens generated for the rows at these positions, (B,)."""
        predictions = self._text.decode(tokens)
        references = [self.reference(position) for position in positions]
        for metric in self._accumulators.values():
            metric.add(TextBatch(positions, predictions, references))
        self.tokens_N[positions] = [len(row) for row in tokens]
        self._file.seek(0, 2)
        for position, prediction in zip(positions, predictions, strict=True):
            self._begin_N[position] = self._file.tell()
            self._file.write(prediction.encode("utf-8", "surrogatepass"))
            self._end_N[position] = self._file.tell()

    def source(self, position: int) -> str:
        """The source of a row."""
        return self._text.sources[self._split][int(self._rows[position])]

    def reference(self, position: int) -> str:
        """What should have been written for a row."""
        return self._text.references[self._split][int(self._rows[position])]

    def prediction(self, position: int) -> str:
        """What the model wrote for a row."""
        self._file.seek(self._begin_N[position])
        length = int(self._end_N[position] - self._begin_N[position])
        return self._file.read(length).decode("utf-8", "surrogatepass")

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The value of each row, (N,), by each metric that has one."""
        values = {name: metric.values_N for name, metric in self._accumulators.items()}
        return {name: values_N for name, values_N in values.items() if values_N is not None}

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric, and the mean length in tokens."""
        values = {name: metric.finish() for name, metric in self._accumulators.items()}
        return values | {"generated_tokens": float(np.mean(self.tokens_N))}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON object a row: split, source, reference, prediction and its scores."""
        scores = self.scores
        for position in range(len(self._rows)):
            yield {
                "split": self._split,
                "source": self.source(position),
                "reference": self.reference(position),
                "prediction": self.prediction(position),
                **{name: float(values_N[position]) for name, values_N in scores.items()},
            }


class Transcripts:
    """What a model wrote for the first utterances of a split, as a watcher of an evaluation.

    Args:
        split: The name of the split.
        decode: Turns lists of tokens into texts.
    """

    def __init__(self, split: str, decode: Decode) -> None:
        self._split, self._decode = split, decode
        self._pairs: list[tuple[str, str]] = []

    def add(self, batch: Batch) -> None:
        """Take the next rows of the split, as long as there are fewer than `MOST_TRANSCRIPTS`."""
        if len(self._pairs) < MOST_TRANSCRIPTS:
            pairs = zip(*read(batch, self._decode), strict=True)
            self._pairs = [*self._pairs, *pairs][:MOST_TRANSCRIPTS]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON object a row: split, reference and prediction."""
        for reference, prediction in self._pairs:
            yield {"split": self._split, "reference": reference, "prediction": prediction}


def subset(rows: int, most: int) -> np.ndarray:
    """At most so many of the rows: always the same ones, in order."""
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(rows)[:most])


def judge(
    generated: Iterable[tuple[np.ndarray, Sequence[Sequence[int]]]],
    split: str,
    rows: np.ndarray,
    text: Text,
    metrics: Mapping[str, Callable[[int], TextAccumulator]],
) -> Written:
    """Judge what was generated, as it comes.

    Args:
        generated: The positions of a batch's rows in `rows`, and their tokens, as `tokens` has
            them.
        split: The split,
        rows: and which of its rows.
        text: The split's sources and references.
        metrics: What starts each metric, by name.
    """
    started = {name: start(len(rows)) for name, start in metrics.items()}
    written = Written(split, rows, text, started)
    for positions, tokens_of_rows in generated:
        written.add(positions, tokens_of_rows)
    return written


def tokens(
    backend: Backend,
    workload: spec.Workload,
    params: Any,
    model_state: Any,
    *,
    rows: np.ndarray,
    arrays: Rows | Arrays,
    buckets: batches.Buckets | None,
    batch_size: int,
    settings: GenerationSettings,
    turn: tuple[int, int] = batches.ALONE,
) -> Iterator[tuple[np.ndarray, list[list[int]]]]:
    """Generate for these rows of a split; yield for each batch the positions of its rows in `rows`,
    (B,), and the tokens of each. `turn` is that of `batches.once`.
    """
    for positions in itertools.islice(_batches(rows, buckets, batch_size), turn[0], None, turn[1]):
        chosen = rows[positions]
        batch = as_rows(arrays).take(chosen)
        sources_BS = batch["inputs"] if buckets is None else buckets.cut(batch, chosen)["inputs"]
        missing = batch_size - len(chosen)
        filled_BS = np.concatenate([sources_BS, np.repeat(sources_BS[:1], missing, axis=0)])
        generated = backend.generate(workload, params, model_state, filled_BS, settings)
        yield positions, generated[: len(chosen)]


def _batches(
    rows: np.ndarray, buckets: batches.Buckets | None, batch_size: int
) -> Iterator[np.ndarray]:
    """Yield the positions, in `rows`, of each batch."""
    groups = [np.arange(len(rows))]
    if buckets is not None:
        bucket_N = buckets.of_row[rows]
        groups = [np.flatnonzero(bucket_N == bucket) for bucket in np.unique(buckets.of_row)]
    for group in groups:
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]

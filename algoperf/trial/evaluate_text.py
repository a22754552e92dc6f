"""What a model writes: generation over the rows of a split, judged by ROUGE."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from algoperf import spec
from algoperf.backends import Backend
from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.workload import Arrays, Rows, Text
from algoperf.workload.rows import as_rows
from workloads.metrics import rouge

SUBSET_SEED = 0


@dataclasses.dataclass(frozen=True)
class Written:
    """What was generated for some rows of a split: texts, and each metric of each row."""

    split: str
    sources: Sequence[str]
    references: Sequence[str]
    predictions: Sequence[str]
    tokens: Sequence[int]
    scores: dict[str, np.ndarray]

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of every metric over the rows, and of the length in tokens."""
        means = {name: float(values.mean()) for name, values in self.scores.items()}
        return means | {"generated_tokens": float(np.mean(self.tokens))}

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object a row: split, source, reference, prediction and its scores."""
        return [
            {
                "split": self.split,
                "source": self.sources[row],
                "reference": self.references[row],
                "prediction": self.predictions[row],
                **{name: float(values[row]) for name, values in self.scores.items()},
            }
            for row in range(len(self.predictions))
        ]


def subset(rows: int, most: int) -> np.ndarray:
    """At most so many of the rows: always the same ones, in order."""
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(rows)[:most])


def write(
    backend: Backend,
    workload: spec.Workload,
    params: Any,
    model_state: Any,
    *,
    split: str,
    rows: np.ndarray,
    arrays: Rows | Arrays,
    buckets: batches.Buckets | None,
    batch_size: int,
    text: Text,
    settings: GenerationSettings,
) -> Written:
    """Generate for these rows of a split, in batches of rows of one bucket, and judge it."""
    generated: dict[int, list[int]] = {}
    for chosen in _batches(rows, buckets, batch_size):
        batch = as_rows(arrays).take(chosen)
        sources_BS = batch["inputs"] if buckets is None else buckets.cut(batch, chosen)["inputs"]
        missing = batch_size - len(chosen)
        filled_BS = np.concatenate([sources_BS, np.repeat(sources_BS[:1], missing, axis=0)])
        written = backend.generate(workload, params, model_state, filled_BS, settings)
        generated |= dict(zip(chosen.tolist(), written, strict=False))
    tokens = [generated[row] for row in rows.tolist()]
    predictions = text.decode(tokens)
    references = [text.references[split][row] for row in rows.tolist()]
    return Written(
        split,
        [text.sources[split][row] for row in rows.tolist()],
        references,
        predictions,
        [len(row) for row in tokens],
        rouge.score(predictions, references),
    )


def _batches(
    rows: np.ndarray, buckets: batches.Buckets | None, batch_size: int
) -> Sequence[np.ndarray]:
    groups = [rows]
    if buckets is not None:
        groups = [rows[buckets.of_row[rows] == bucket] for bucket in np.unique(buckets.of_row)]
    return [
        group[start : start + batch_size]
        for group in groups
        for start in range(0, len(group), batch_size)
    ]

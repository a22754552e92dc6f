"""What a metric is: an accumulator that is started for a split, given each of its batches, and
asked for its value at the end, so that no evaluation holds more than a batch.

A metric is named in a workload's facts. Those that workloads share are modules of
`workloads.metrics`; each names its own in `METRICS`, or in `TEXT_METRICS` where they judge texts
that a model wrote. A workload brings others as `WorkloadDefinition.own_metrics`.

Legend: B rows of a batch, N rows of a split; `...` further axes of a row, such as its tokens.
"""

import dataclasses
import functools
import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SHARED = "workloads.metrics"
Decode = Callable[[Sequence[Sequence[int]]], list[str]]  # lists of tokens -> texts
BLANK = 0  # the class of CTC that no text has
BLOCK = 128  # NumPy adds up so many numbers in one loop, and halves what is longer
_ADD_TWO = -1  # among the sizes of subtrees: the last two sums are added here


@dataclasses.dataclass(frozen=True)
class Batch:
    """The rows of one batch, without those that only fill it up.

    Attributes:
        losses: The loss of each row, or of each of its tokens, (B, ...).
        predictions: The predicted classes, (B, ...), where the loss is a softmax's; else logits.
        targets: As the split has them, (B, ...).
        weights: How much each loss counts, float64, in the losses' shape; 0 is not at all.
        others: What else the split's rows have, by name, (B, ...): all but inputs, targets and
            weights.
        counts: How many things each loss is the sum of, where its mean is over these, (B,).
    """

    losses: NDArray[Any]
    predictions: NDArray[Any]
    targets: NDArray[Any]
    weights: NDArray[np.float64]
    others: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    counts: NDArray[Any] | None = None


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """Generated texts and their references.

    Attributes:
        positions: Where these rows stand among the N that are judged, (B,); batches come in the
            order of their lengths.
        predictions: What the model wrote.
        references: What it should have written.
    """

    positions: NDArray[np.int64]
    predictions: Sequence[str]
    references: Sequence[str]


def collapsed(tokens_T: NDArray[np.integer]) -> list[int]:
    """Return what the classes of an utterance's frames mean: repeats merged, then blanks dropped
    (Graves et al. 2006).
    """
    changes_T = np.diff(tokens_T, prepend=BLANK) != 0
    kept: list[int] = tokens_T[changes_T & (tokens_T != BLANK)].tolist()
    return kept


def read(batch: Batch, decode: Decode) -> tuple[list[str], list[str]]:
    """Return the texts of a batch's labels, and those of its greedily decoded frames.

    Args:
        batch: Of predictions the class of each frame, (B, T), and of targets labels that are padded
            with the blank, (B, L). Rows without weight are left out.
        decode: Turns lists of tokens into texts.
    """
    rows = np.flatnonzero(batch.weights)
    labels = [row[row != BLANK].tolist() for row in batch.targets[rows]]
    return decode(labels), decode([collapsed(row) for row in batch.predictions[rows]])


class Accumulator(Protocol):
    """One metric of one pass over a split; it was started with the number of the split's rows."""

    def add(self, batch: Batch) -> None:
        """Count the next rows of the split, in its order."""
        ...

    def finish(self) -> float:
        """Return the metric of all rows added."""
        ...


class TextAccumulator(Protocol):
    """One metric of generated texts; it was started with the number of rows that are judged.

    `values_N` has the value of each row, for the file of predictions; it is None where the metric
    is one of the whole split alone.
    """

    values_N: NDArray[np.float64] | None

    def add(self, batch: TextBatch) -> None:
        """Count some rows."""
        ...

    def finish(self) -> float:
        """Return the metric of all rows added."""
        ...


Start = Callable[..., Any]  # the number of rows -> `Accumulator` or `TextAccumulator`
READS_TOKENS = "reads_tokens"  # of a start that takes (the number of rows, a `Decode`)


def decoding(starts: Mapping[str, Start], decode: Decode | None) -> dict[str, Start]:
    """Return what starts metrics by the number of rows alone.

    Args:
        starts: What starts each, by name; those that are marked by `READS_TOKENS` read tokens.
        decode: How they are read.
    """
    return {
        name: functools.partial(start, decode=decode)
        if getattr(start, READS_TOKENS, False)
        else start
        for name, start in starts.items()
    }


def remarks(starts: Iterable[Start], references: Sequence[str]) -> list[str]:
    """Return what metrics of texts have to say of the references before they judge; each once.

    A metric that may have something to say is started by an object with a method `remark`.
    """
    asked = dict.fromkeys(start.remark for start in starts if hasattr(start, "remark"))
    return [text for text in (remark(references) for remark in asked) if text]


def signatures(starts: Mapping[str, Start]) -> dict[str, str]:
    """Return what names the exact form of metrics that have several, by name, for a run's record.

    Such a metric is started by an object with a method `signature`.
    """
    return {
        name: start.signature() for name, start in starts.items() if hasattr(start, "signature")
    }


def shared(of_texts: bool) -> dict[str, Start]:
    """Return the metrics of `workloads.metrics` by name.

    Args:
        of_texts: Whether those of generated texts are meant, or those of predictions.
    """
    package = importlib.import_module(SHARED)
    metrics: dict[str, Start] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{SHARED}.{entry.name}")
        metrics |= getattr(module, "TEXT_METRICS" if of_texts else "METRICS", {})
    return metrics


class StreamedSum:
    """The sum of `count` numbers that come in pieces: the very bits that `np.sum` has of all.

    NumPy adds pairwise: it halves an array, at a multiple of 8, until at most `BLOCK` numbers are
    left, and adds those in one loop. Which halves there are depends on the count alone, so that
    each is summed as soon as it is complete. Held are less than a block of numbers, and a sum for
    each level of the halving.
    """

    def __init__(self, count: int) -> None:
        self._sizes = [count]  # of the subtrees not yet summed, the next one last
        self._sums: list[np.float64] = []
        self._rest = np.zeros(0)

    def add(self, values: NDArray[Any]) -> None:
        """Count an array's numbers, in C's order whatever its shape."""
        flat = np.asarray(values, np.float64).reshape(-1)
        rest = np.concatenate([self._rest, flat]) if self._rest.size else flat
        start = 0
        while self._sizes:
            size = self._sizes.pop()
            if size == _ADD_TWO:
                right, left = self._sums.pop(), self._sums.pop()
                self._sums.append(left + right)
            elif size <= len(rest) - start:
                self._sums.append(np.add.reduce(rest[start : start + size]))
                start += size
            elif size <= BLOCK:
                self._sizes.append(size)
                break
            else:
                half = size // 2
                half -= half % 8
                self._sizes += [_ADD_TWO, size - half, half]
        self._rest = rest[start:].copy()  # of its own, so that the batch may go
        if not self._sizes and self._rest.size:
            raise ValueError(f"{self._rest.size} more numbers than the sum was started for")

    def finish(self) -> np.float64:
        """Return the sum.

        Raises:
            ValueError: Fewer numbers were added than the sum was started for.
        """
        if self._sizes != [] and self._sizes != [0]:
            raise ValueError("fewer numbers than the sum was started for")
        return self._sums[0] if self._sums else np.float64(0)


class WeightedMean:
    """The weighted mean of numbers that come in batches, the same for every size of batch.

    Args:
        rows: How many rows will come in all.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._sums: tuple[StreamedSum, StreamedSum] | None = None  # of values, of weights

    def add(
        self,
        values: NDArray[Any],
        weights: NDArray[np.float64],
        counts: NDArray[Any] | None = None,
    ) -> None:
        """Count the next rows; all arrays have the shape (B, ...).

        Args:
            values: The values, or sums of values.
            weights: The weight of each.
            counts: How many values each is the sum of; None for 1.
        """
        if self._sums is None:
            count = self._rows * math.prod(values.shape[1:])
            self._sums = StreamedSum(count), StreamedSum(count)
        self._sums[0].add(values.astype(np.float64) * weights)
        self._sums[1].add(weights if counts is None else weights * counts)

    def finish(self) -> float:
        """Return the mean; NaN where all weights are 0."""
        assert self._sums is not None, "no row was added"
        weighted, weight = (each.finish() for each in self._sums)
        return float(weighted / weight)


class MeanLoss:
    """The mean loss of the rows, or tokens, that count."""

    def __init__(self, rows: int) -> None:
        self._mean = WeightedMean(rows)

    def add(self, batch: Batch) -> None:
        """Count the next rows of the split."""
        self._mean.add(batch.losses, batch.weights, batch.counts)

    def finish(self) -> float:
        """Return the mean."""
        return self._mean.finish()

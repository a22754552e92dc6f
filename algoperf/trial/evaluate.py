"""One pass over one split: metric values, with every row counted once, a batch at a time."""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from algoperf import losses, spec
from algoperf.backends import Backend
from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.data.rows import first, some
from algoperf.data.tokenizers import PAD_ID
from algoperf.trial import evaluate_text
from algoperf.workload import SPLITS, Arrays, Data, Rows, Scale, WorkloadDefinition
from algoperf.workload.metric import Accumulator, Batch, MeanLoss, TextAccumulator, decoding
from algoperf.workload.rows import IS_ROW

PROBED = 1 / 8  # How many rows a probe looks at, of those that an evaluation does.
# A batch without its 'inputs', its losses and its predictions.
Output = tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]


def evaluate(
    backend: Backend,
    workload: spec.Workload,
    definition: WorkloadDefinition,
    arrays: Rows | Arrays,
    batch_size: int,
    params: Any,
    model_state: Any,
    starts: Mapping[str, Callable[[int], Accumulator]] | None = None,
    watcher: evaluate_text.Transcripts | None = None,
) -> dict[str, float]:
    """Return 'loss' (the mean over rows, or tokens), the workload's metrics, and 'num_examples'.

    Losses and predictions are fetched row by row and summed in float64, so the result depends on
    neither the batch size nor the padding of the last batch. No more than two batches are held.
    `starts` starts the metrics; None: those of the definition. A `watcher` is shown every batch.
    """
    rows = batches.row_count(arrays)
    padded = batches.once(arrays, min(batch_size, rows))
    outputs = _predictions(backend, workload, padded, params, model_state)
    starts = definition.accumulators if starts is None else starts
    return accumulate(outputs, rows, starts, definition.loss_type, watcher)


def _predictions(
    backend: Backend,
    workload: spec.Workload,
    padded: Iterable[Mapping[str, np.ndarray]],
    params: Any,
    model_state: Any,
) -> Iterator[Output]:
    """Yield each batch with its losses and predictions.

    While the device works on a batch, the one after it is gathered and placed, and the one before
    it is counted by the caller.
    """
    running: tuple[Mapping[str, np.ndarray], Any] | None = None
    for batch in padded:
        placed = backend.place(batch)
        done = None if running is None else (running[0], *backend.fetch(running[1]))
        counted = {key: array for key, array in batch.items() if key != "inputs"}
        running = counted, backend.predict(workload, params, model_state, placed)
        if done is not None:
            yield done
    if running is not None:
        yield running[0], *backend.fetch(running[1])


def accumulate(
    outputs: Iterable[Output],
    rows: int,
    starts: Mapping[str, Callable[[int], Accumulator]],
    loss_type: losses.LossType,
    watcher: evaluate_text.Transcripts | None = None,
) -> dict[str, float]:
    """Count the outputs of a split, batch by batch.

    Args:
        outputs: For each batch, in the order of the rows, (its 'targets', 'weights' and what else
            it has but 'inputs', losses, predictions); beyond the split's rows the last one is
            padding.
        rows: How many rows the split has.
        starts: What starts each metric, by name.
        loss_type: The loss, which says what its mean is over.
        watcher: What is shown every batch besides.

    Returns:
        'loss', the metrics and 'num_examples'.
    """
    mean_loss = MeanLoss(rows)
    metrics = {name: start(rows) for name, start in starts.items()}
    missing = rows
    for padded, losses_of_rows, predictions in outputs:
        is_row_B = padded.get(IS_ROW)  # of a packed batch, which may end with padding anywhere
        real = missing if is_row_B is None else int(is_row_B.sum())
        values = losses_of_rows[:real]
        weights = padded["weights"][:real].astype(np.float64)
        if weights.shape != values.shape:  # a row's weight is that of each of its tokens
            added = [1] * (values.ndim - weights.ndim)
            weights = np.broadcast_to(weights.reshape(*weights.shape, *added), values.shape)
        others = {
            key: array[:real]
            for key, array in padded.items()
            if key not in ("targets", "weights", IS_ROW)
        }
        targets = padded["targets"][:real]
        counts = losses.example_counts(loss_type, targets)
        batch = Batch(values, predictions[:real], targets, weights, others, counts)
        missing -= len(values)
        mean_loss.add(batch)
        for metric in metrics.values():
            metric.add(batch)
        if watcher is not None:
            watcher.add(batch)
    finished = {name: metric.finish() for name, metric in metrics.items()}
    return {"loss": mean_loss.finish(), **finished, "num_examples": float(rows)}


def mean_token_loss(
    backend: Backend,
    workload: spec.Workload,
    arrays: Rows | Arrays,
    batch_size: int,
    buckets: batches.Buckets | None,
    params: Any,
    model_state: Any,
) -> dict[str, float]:
    """Return 'loss', the mean over the tokens that count, and 'num_examples'."""
    total = count = 0.0
    for batch in batches.once(arrays, batch_size, buckets):
        placed = backend.place(batch)
        losses_BT, _ = backend.fetch(backend.predict(workload, params, model_state, placed))
        total += float((losses_BT.astype(np.float64) * batch["weights"]).sum())
        count += float(batch["weights"].sum(dtype=np.float64))
    return {"loss": total / count, "num_examples": float(batches.row_count(arrays))}


class Evaluator:
    """Evaluates any split of a run's data; training is looked at on its first few rows only.

    Where the workload generates text, the loss is the mean over tokens, and ROUGE is measured on
    validation and test: on a fixed subset of rows, greedily unless the scale says otherwise, or
    with `whole` on all rows by beam search. `written` is what was generated last.
    """

    def __init__(
        self,
        backend: Backend,
        workload: spec.Workload,
        definition: WorkloadDefinition,
        data: Data,
        scale: Scale,
    ) -> None:
        self._backend = backend
        self._workload = workload
        self._definition = definition
        self._scale = scale
        self._text = data.text
        self._decode = data.decode
        self._starts = decoding(definition.accumulators, data.decode)
        self._splits = dict(data.splits)
        self._splits["train"] = first(data.splits["train"], scale.eval_train_rows)
        self._buckets: dict[str, batches.Buckets | None] = {
            split: batches.make_buckets(arrays, scale.buckets, PAD_ID)
            for split, arrays in self._splits.items()
        }
        self._batch_size = scale.eval_batch_size
        self.inference_s_per_example: float | None = None  # of the last pass over validation
        self.written: evaluate_text.Written | evaluate_text.Transcripts | None = None

    def restart(self) -> None:
        """Forget what an earlier trial measured."""
        self.inference_s_per_example, self.written = None, None

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluation needs, so that no evaluation is timed with its compilation."""
        seen = set()
        for split in SPLITS:
            size, buckets = self._size(split), self._buckets[split]
            for batch in batches.once(self._splits[split], size, buckets):
                shapes = tuple(array.shape for array in batch.values())
                if shapes not in seen:
                    seen.add(shapes)
                    placed = self._backend.place(batch)
                    self._backend.fetch(
                        self._backend.predict(self._workload, params, model_state, placed)
                    )
                if buckets is None:
                    break  # every batch has the same shapes
            if self._definition.generates_text and split == "validation":
                self._write(split, params, model_state, whole=False)
                self.written = None

    def _size(self, split: str) -> int:
        return min(self._batch_size, batches.row_count(self._splits[split]))

    def __call__(
        self, split: str, params: Any, model_state: Any, *, whole: bool = False
    ) -> dict[str, float]:
        """Return the metrics of a split (see `evaluate`)."""
        started_at_s = time.perf_counter()
        if self._definition.generates_text:
            values = mean_token_loss(
                self._backend,
                self._workload,
                self._splits[split],
                self._size(split),
                self._buckets[split],
                params,
                model_state,
            )
            if split != "train":
                values |= self._write(split, params, model_state, whole=whole)
        else:
            transcripts = None
            if self._decode is not None and split != "train":
                transcripts = evaluate_text.Transcripts(split, self._decode)
            values = evaluate(
                self._backend,
                self._workload,
                self._definition,
                self._splits[split],
                self._size(split),
                params,
                model_state,
                self._starts,
                transcripts,
            )
            self.written = transcripts
        if split == "validation":
            elapsed_s = time.perf_counter() - started_at_s
            self.inference_s_per_example = elapsed_s / values["num_examples"]
        return values

    def probe(self, params: Any, model_state: Any) -> float:
        """Return the target metric of a few of the validation rows, always the same ones.

        They are `PROBED` of those whose losses an evaluation looks at and of those for which it
        generates text; in whole batches of evaluation, so that nothing is compiled for them.
        """
        metric, size = self._definition.target_metric, self._size("validation")
        if self._definition.generates_text:
            start = {metric: self._starts[metric]}
            written = self._generate("validation", self._few_indices, start, params, model_state)
            return written.metrics[metric]
        values = evaluate(
            self._backend,
            self._workload,
            self._definition,
            self._few,
            size,
            params,
            model_state,
            self._starts,
        )
        return values[metric]

    @functools.cached_property
    def _few(self) -> Rows:
        return some(self._splits["validation"], self._few_indices)

    @functools.cached_property
    def _few_indices(self) -> np.ndarray:
        count, size = batches.row_count(self._splits["validation"]), self._size("validation")
        generation = self._scale.generation
        judged = count if generation is None else min(count, generation.eval_rows)
        looked_at = count if generation is None else count + judged
        whole_batches = math.ceil(looked_at * PROBED / size)
        return evaluate_text.subset(count, min(judged, whole_batches * size))

    def _write(self, split: str, params: Any, model_state: Any, *, whole: bool) -> dict[str, float]:
        generation = self._scale.generation
        assert generation is not None
        count = batches.row_count(self._splits[split])
        rows = evaluate_text.subset(count, count if whole else generation.eval_rows)
        written = self._generate(split, rows, self._starts, params, model_state, whole=whole)
        self.written = written
        return written.metrics

    def _generate(
        self,
        split: str,
        rows: np.ndarray,
        metrics: Mapping[str, Callable[[int], TextAccumulator]],
        params: Any,
        model_state: Any,
        *,
        whole: bool = False,
    ) -> evaluate_text.Written:
        generation = self._scale.generation
        assert generation is not None
        assert self._text is not None
        return evaluate_text.write(
            self._backend,
            self._workload,
            params,
            model_state,
            split=split,
            rows=rows,
            arrays=self._splits[split],
            buckets=self._buckets[split],
            batch_size=self._size(split),
            text=self._text,
            metrics=metrics,
            settings=GenerationSettings(
                generation.max_new_tokens,
                generation.beams if whole else generation.training_beams,
                generation.length_penalty,
                length_offset=generation.length_offset,
            ),
        )

"""One pass over one split: metric values, with every row counted once, a batch at a time."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from algoperf import losses, spec
from algoperf.backends import Backend
from algoperf.data import batches
from algoperf.trial import evaluate_text, outputs
from algoperf.workload import Data, Scale, WorkloadDefinition
from algoperf.workload.metric import Accumulator, Batch, MeanLoss, TextAccumulator, decoding
from algoperf.workload.rows import IS_ROW


def accumulate(
    computed: Iterable[outputs.Output],
    rows: int,
    starts: Mapping[str, Callable[[int], Accumulator]],
    loss_type: losses.LossType,
    watcher: evaluate_text.Transcripts | None = None,
) -> dict[str, float]:
    """Count the outputs of a split, batch by batch.

    Args:
        computed: For each batch, in the order of the rows, (its 'targets', 'weights' and what else
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
    for padded, losses_of_rows, predictions in computed:
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


def mean_token_loss(computed: Iterable[outputs.Output], rows: int) -> dict[str, float]:
    """Return 'loss', the mean over the tokens that count, and 'num_examples'.

    Args:
        computed: As for `accumulate`, with a loss of each token.
        rows: How many rows the split has.
    """
    total = count = 0.0
    for batch, losses_BT, _ in computed:
        total += float((losses_BT.astype(np.float64) * batch["weights"]).sum())
        count += float(batch["weights"].sum(dtype=np.float64))
    return {"loss": total / count, "num_examples": float(rows)}


class Evaluator:
    """Evaluates any split of a run's data; training is looked at on its first few rows only.

    Where the workload generates text, the loss is the mean over tokens, and ROUGE is measured on
    validation and test: on a fixed subset of rows, greedily unless the scale says otherwise, or
    with `whole` on all rows by beam search. `written` is what was generated last.

    With `helpers` the first device shares the batches with others; what all of them compute is
    counted here, in the order of the rows.
    """

    def __init__(
        self,
        backend: Backend,
        workload: spec.Workload,
        definition: WorkloadDefinition,
        data: Data,
        scale: Scale,
        helpers: outputs.Helpers | None = None,
    ) -> None:
        self._definition = definition
        self._text = data.text
        self._decode = data.decode
        self._starts = decoding(definition.accumulators, data.decode)
        self._helpers = helpers
        turn = batches.ALONE if helpers is None else (0, 1 + helpers.count)
        self._own = outputs.Outputs(backend, workload, definition, data, scale, turn)
        self.inference_s_per_example: float | None = None  # of the last pass over validation
        self.written: evaluate_text.Written | evaluate_text.Transcripts | None = None

    def restart(self) -> None:
        """Forget what an earlier trial measured."""
        self.inference_s_per_example, self.written = None, None

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluation needs, so that no evaluation is timed with its compilation."""
        if self._helpers is not None:
            self._helpers.warm_up(params, model_state)
        self._own.warm_up(params, model_state)

    @property
    def helper_count(self) -> int:
        """How many devices evaluate beside the first one."""
        return 0 if self._helpers is None else self._helpers.count

    def work_alone(self) -> None:
        """Compute every batch on the first device from now on."""
        self._helpers = None
        self._own.take_all()

    def __call__(
        self, split: str, params: Any, model_state: Any, *, whole: bool = False
    ) -> dict[str, float]:
        """Return the metrics of a split (see `accumulate`)."""
        started_at_s = time.perf_counter()
        question = outputs.Question(split)
        computed = self._computed(question, params, model_state)
        rows = self._own.count(question)
        if self._definition.generates_text:
            values = mean_token_loss(computed, rows)
            if split != "train":
                question = outputs.Question(split, writes=True, is_whole=whole)
                self.written = self._write(question, self._starts, params, model_state)
                values |= self.written.metrics
        else:
            transcripts = None
            if self._decode is not None and split != "train":
                transcripts = evaluate_text.Transcripts(split, self._decode)
            loss_type = self._definition.loss_type
            values = accumulate(computed, rows, self._starts, loss_type, transcripts)
            self.written = transcripts
        if split == "validation":
            elapsed_s = time.perf_counter() - started_at_s
            self.inference_s_per_example = elapsed_s / values["num_examples"]
        return values

    def probe(self, params: Any, model_state: Any) -> float:
        """Return the target metric of a few of the validation rows, always the same ones.

        They are `outputs.PROBED` of those whose losses an evaluation looks at and of those for
        which it generates text; in whole batches of evaluation, so that nothing is compiled for
        them.
        """
        metric = self._definition.target_metric
        writes = self._definition.generates_text
        question = outputs.Question("validation", writes=writes, is_probe=True)
        if writes:
            start = {metric: self._starts[metric]}
            return self._write(question, start, params, model_state).metrics[metric]
        computed = self._computed(question, params, model_state)
        loss_type = self._definition.loss_type
        return accumulate(computed, self._own.count(question), self._starts, loss_type)[metric]

    def _computed(self, question: outputs.Question, params: Any, model_state: Any) -> Iterator[Any]:
        """Yield what the devices answer, batch by batch."""
        own = self._own.answer
        if self._helpers is None:
            return own(question, params, model_state)
        others = self._helpers.ask(question, params, model_state)
        return outputs.in_turn([own(question, params, model_state), *others])

    def _write(
        self,
        question: outputs.Question,
        metrics: Mapping[str, Callable[[int], TextAccumulator]],
        params: Any,
        model_state: Any,
    ) -> evaluate_text.Written:
        assert self._text is not None
        generated = self._computed(question, params, model_state)
        rows = self._own.rows(question)
        return evaluate_text.judge(generated, question.split, rows, self._text, metrics)

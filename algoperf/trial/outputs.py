"""What a model makes of the rows of a split, a batch at a time: losses and predictions, or texts.

`evaluate` counts them in the order of the rows, whoever has computed them. Where several devices
evaluate, each computes every so-many-th batch, as a whole and as one device alone would.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from algoperf import spec
from algoperf.backends import Backend
from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.data.rows import first, some
from algoperf.data.tokenizers import PAD_ID
from algoperf.trial import evaluate_text
from algoperf.workload import SPLITS, Data, Rows, Scale, WorkloadDefinition

PROBED = 1 / 8  # How many rows a probe looks at, of those that an evaluation does.
# A batch without its 'inputs', its losses and its predictions.
Output = tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]
END = "end"  # In the place of another batch's.


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of the devices that evaluate.

    Attributes:
        split: The split.
        writes: Whether for texts; else for losses and predictions.
        is_probe: Whether for the few rows of a probe alone.
        is_whole: Whether texts are for all rows, by beam search.
    """

    split: str
    writes: bool = False
    is_probe: bool = False
    is_whole: bool = False


class Helpers(Protocol):
    """The devices that evaluate beside the first one.

    Attributes:
        count: How many they are.
    """

    @property
    def count(self) -> int: ...  # noqa: D102

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Let them compile what an evaluation needs, as soon as they can."""
        ...

    def ask(self, question: Question, params: Any, model_state: Any) -> Sequence[Iterator[Any]]:
        """Return what each of them makes of its batches, computed from now on."""
        ...


class Outputs:
    """What one device makes of its batches of any split; of training its first few rows only.

    Args:
        backend: Computes on the device.
        workload: The model.
        definition: Its facts.
        data: The rows.
        scale: The scale.
        turn: (number of the device, how many there are).
    """

    def __init__(
        self,
        backend: Backend,
        workload: spec.Workload,
        definition: WorkloadDefinition,
        data: Data,
        scale: Scale,
        turn: tuple[int, int] = batches.ALONE,
    ) -> None:
        self._backend = backend
        self._workload = workload
        self._scale = scale
        self._turn = turn
        self._generates_text = definition.generates_text
        self._splits = dict(data.splits)
        self._splits["train"] = first(data.splits["train"], scale.eval_train_rows)
        self._buckets: dict[str, batches.Buckets | None] = {
            split: batches.make_buckets(arrays, scale.buckets, PAD_ID)
            for split, arrays in self._splits.items()
        }

    def answer(self, question: Question, params: Any, model_state: Any) -> Iterator[Any]:
        """Yield this device's part of what is asked: for losses an `Output` for each batch, for
        texts the positions of its rows, among those of `rows`, and their tokens.
        """
        split = question.split
        if question.writes:
            rows_N = self.rows(question)
            return self._tokens(question, rows_N, params, model_state, self._turn)
        rows = self._few if question.is_probe else self._splits[split]
        padded = batches.once(
            rows,
            min(self._size(split), batches.row_count(rows)),
            self._buckets[split] if self._generates_text else None,
            turn=self._turn,
        )
        return predictions(self._backend, self._workload, padded, params, model_state)

    def take_all(self) -> None:
        """Compute every batch from now on, whatever the device's turn was."""
        self._turn = batches.ALONE

    def count(self, question: Question) -> int:
        """Return how many rows a question is for."""
        if question.writes or question.is_probe:
            return len(self.rows(question))
        return batches.row_count(self._splits[question.split])

    def rows(self, question: Question) -> np.ndarray:
        """Return the rows of a split that texts, or a probe, are of."""
        if question.is_probe:
            return self._few_indices
        assert self._scale.generation is not None
        count = batches.row_count(self._splits[question.split])
        most = count if question.is_whole else self._scale.generation.eval_rows
        return evaluate_text.subset(count, most)

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluation needs, so that no evaluation is timed with its compilation: one
        batch of each shape is computed.
        """
        seen = set()
        for split in SPLITS:
            size, buckets = self._size(split), self._buckets[split]
            for batch in batches.once(self._splits[split], size, buckets):
                shapes = tuple(array.shape for array in batch.values())
                if shapes not in seen:
                    seen.add(shapes)
                    one = predictions(self._backend, self._workload, [batch], params, model_state)
                    list(one)
                if buckets is None:
                    break  # every batch has the same shapes
        if self._generates_text:
            question = Question("validation", writes=True)
            rows, buckets = self.rows(question), self._buckets["validation"]
            bucket_N = np.zeros(len(rows), int) if buckets is None else buckets.of_row[rows]
            _, firsts = np.unique(bucket_N, return_index=True)
            list(self._tokens(question, rows[firsts], params, model_state, batches.ALONE))

    def _tokens(
        self,
        question: Question,
        rows: np.ndarray,
        params: Any,
        model_state: Any,
        turn: tuple[int, int],
    ) -> Iterator[Any]:
        return evaluate_text.tokens(
            self._backend,
            self._workload,
            params,
            model_state,
            rows=rows,
            arrays=self._splits[question.split],
            buckets=self._buckets[question.split],
            batch_size=self._size(question.split),
            settings=self._settings(question),
            turn=turn,
        )

    def _settings(self, question: Question) -> GenerationSettings:
        generation = self._scale.generation
        assert generation is not None
        return GenerationSettings(
            generation.max_new_tokens,
            generation.beams if question.is_whole else generation.training_beams,
            generation.length_penalty,
            length_offset=generation.length_offset,
        )

    def _size(self, split: str) -> int:
        return min(self._scale.eval_batch_size, batches.row_count(self._splits[split]))

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


def predictions(
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


def in_turn(streams: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """Yield what each of several devices has next, one after another: the batches in their order.

    Batch i is that of device i modulo their number, so that all have ended when one has.
    """
    for stream in itertools.cycle(streams):
        output = next(stream, END)
        if output is END:
            break
        yield output
    for stream in streams:
        assert next(stream, END) is END, "a device has a batch whose turn has passed"

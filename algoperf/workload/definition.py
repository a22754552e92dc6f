"""A workload's facts as data: nothing here loads rows, weights or a framework."""

import dataclasses
import functools
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import spec
from algoperf.errors import UserError, choose
from algoperf.workload import metric
from algoperf.workload.rows import (
    FINGERPRINT_DIGITS,
    ArrayRows,
    Arrays,
    Augmentation,
    Rows,
    as_rows,
)

SPLITS = ("train", "validation", "test")
# `Scale.eval_share` of the library's mini scales: at most a fifth, with room for an evaluation that
# takes longer than the one before it.
EVAL_SHARE = 0.19


@dataclasses.dataclass(frozen=True)
class Target:
    """What a run has to reach on the validation split, for one scale on one source of data.

    Attributes:
        validation: The metric's value to reach.
        provenance: How the number was found.
        test: The value on the test split that AlgoPerf's older rule asks for.
        ceiling: The best value possible, where that is known since the data is generated.
        baselines: Trivial methods' values of the same metric on the same split.
    """

    validation: float
    provenance: str
    test: float | None = None
    ceiling: float | None = None
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Generation:
    """How text is generated in evaluation: greedily while training, by beam search at the end.

    Attributes:
        max_new_tokens: The most tokens of a generated row.
        eval_rows: The rows of a split, a fixed seeded subset, that are generated while training.
        beams: The beams of the search over the whole split at the end of a run.
        length_penalty: The power of the length that a beam's score is divided by.
        length_offset: What is added to the length, as
            `algoperf.backends.generation.GenerationSettings.divisor` says.
        training_beams: The beams of the search while training; 1 is greedy.
    """

    max_new_tokens: int
    eval_rows: int
    beams: int = 4
    length_penalty: float = 1.0
    length_offset: float = 0.0
    training_beams: int = 1


@dataclasses.dataclass(frozen=True)
class Scale:
    """One size of a workload: model and data settings, and what a run of it may cost.

    Attributes:
        model: Arguments of the model's `build`.
        data: Arguments of the data's `load`, beside the source.
        default_source: The source of data where none is chosen.
        batch_size: Rows of a training batch, where the submission does not say.
        eval_batch_size: Rows of a batch in evaluation.
        eval_train_rows: How many training rows each evaluation looks at.
        step_hint: The number of steps that a well-tuned baseline needs.
        budget_s: The budget in seconds of submission time.
        eval_every_s: Seconds of submission time from one evaluation to the next.
        dropout_rate: The model's default rate.
        buckets: The (source, target) lengths that batches are cut to, ascending; () leaves all rows
            at their full length.
        generation: How text is generated; None where none is.
        targets: What to reach, by source of data: 'builtin', 'hub', 'folder'.
        real: The same size for rows from the hub or a folder, where those are longer than the
            built-in ones.
        eval_share: The share of the submission time that evaluations may take together; they come
            as often as that allows. None: one each `eval_every_s`.
        initial_scale: What weights' first values are multiplied by; variants set it, and the rest.
        row_changes: Those of `algoperf.data.row_changes`.
        output_layer: The model's, where it is not the workload's.
        techniques: The techniques that make sense for the model.
        trainable: What trains: one of them, with its settings (`algoperf.workload.trainable`).
        published_batch_size: The batch size of the published workload of this name, at a scale that
            is smaller: what a submission asks for is scaled down by it.
        precision: Of the forward and backward pass, where a run does not say.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    default_source: str
    batch_size: int
    eval_batch_size: int
    eval_train_rows: int
    step_hint: int
    budget_s: float
    eval_every_s: float
    dropout_rate: float = 0.0
    buckets: tuple[tuple[int, int], ...] = ()
    generation: Generation | None = None
    targets: Mapping[str, Target] = dataclasses.field(
        default_factory=dict
    )  # by source of data: 'builtin', 'hub', 'folder'
    real: "Scale | None" = None
    eval_share: float | None = None
    initial_scale: float = 1.0
    row_changes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    output_layer: str | None = None
    techniques: tuple[str, ...] = ()
    trainable: str | None = None
    published_batch_size: int | None = None
    precision: str = "float32"

    def on(self, source_kind: str) -> "Scale":
        """The scale for rows of that kind: 'builtin', 'hub' or 'folder'."""
        return self.real if self.real is not None and source_kind != "builtin" else self


@dataclasses.dataclass(frozen=True)
class Text:
    """What a generated row of tokens is read and judged by.

    Attributes:
        decode: Turns lists of token ids into texts.
        sources: The rows' source texts by split, in the order of the arrays.
        references: The rows' reference texts, likewise.
        separator: What stands between the texts of a training row that holds several; None where
            every row has one.
    """

    decode: Callable[[Sequence[Sequence[int]]], list[str]]
    sources: Mapping[str, Sequence[str]]
    references: Mapping[str, Sequence[str]]
    separator: str | None = None


@dataclasses.dataclass(frozen=True, init=False)
class Data:
    """The rows of a run, and what goes with them.

    Args:
        splits: Rows by split ('train', 'validation', 'test'): of any kind, or a mapping of arrays
            of equal length, among them 'inputs' and 'targets'; `splits` then holds `ArrayRows`.
        model: Model settings that only the data knows.
        notes: What goes into the run's meta data.
        text: Is there where the workload generates text.
        tokenizer: The JSON of the tokenizer, as the `tokenizers` library writes it, where it is no
            published one.
        decode: Turns lists of tokens into texts, for metrics that read predicted tokens.
        augmentation: What changes the training rows at random, anew in each epoch; None where
            they are trained on as they are.

    Raises:
        UserError: The arrays of a split differ in their numbers of rows.
    """

    splits: Mapping[str, Rows]
    model: Mapping[str, Any]
    notes: Mapping[str, Any]
    text: Text | None
    tokenizer: str | None
    augmentation: Augmentation | None
    decode: metric.Decode | None

    def __init__(
        self,
        splits: Mapping[str, Arrays] | Mapping[str, Rows] | Mapping[str, Rows | Arrays],
        model: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
        text: Text | None = None,
        tokenizer: str | None = None,
        augmentation: Augmentation | None = None,
        decode: metric.Decode | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "splits": {split: as_rows(rows) for split, rows in splits.items()},
            "model": {} if model is None else model,
            "notes": {} if notes is None else notes,
            "text": text,
            "tokenizer": tokenizer,
            "augmentation": augmentation,
            "decode": decode,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the instance is frozen

    def with_splits(self, splits: Mapping[str, Rows]) -> "Data":
        """Return the same data with these rows, by split."""
        return dataclasses.replace(self, splits=splits)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, the first 16 hexadecimal digits: over names, types, shapes and bytes of arrays,
        and over the rows' own fingerprints where they are not in memory.
        """
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            rows = self.splits[split]
            if isinstance(rows, ArrayRows):
                for part in rows.described(f"{split}/"):
                    digest.update(part)
            else:
                digest.update(f"{split}:{rows.fingerprint}".encode())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named change of a workload.

    Attributes:
        changes: Values by axis (`algoperf variants axes`).
        targets: Its targets by scale and source of data.
    """

    changes: Mapping[str, Any]
    targets: Mapping[str, Mapping[str, Target]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outside:
    """Where the source of a workload outside the tree is (see `algoperf.workload.outside`).

    `reference` is what `catalogue.find` finds the workload by: an absolute path, with `:variant`
    for one of its variants, or the name of an installed workload. `source_hash` is over the Python
    files of `folder`.
    """

    reference: str
    folder: Path
    source_hash: str


@dataclasses.dataclass(frozen=True, eq=False)
class WorkloadDefinition:
    """The facts of one workload; everything that differs between workloads is a field here.

    Attributes:
        name: The workload's name, that of its folder.
        package: The import path of its folder, which holds `data.py` with `load(source,
            **scale.data)`, and `model_jax.py` and `model_torch.py` with `build(**model)`.
        summary: What is learnt from which data by which model, in a line.
        loss_type: The training loss.
        target_metric: One of `metrics`, or 'loss'.
        higher_is_better: Whether more of that metric is better.
        metrics: Names of accumulators of `workloads.metrics` or of `own_metrics`.
        scales: Its sizes by name; 'mini' is the default everywhere.
        sources: Where its rows may come from: of 'builtin', 'hub', 'folder'.
        output_layer: The name of the module that is the model's output layer.
        initial_std: Called with (name, shape, model): the standard deviation of a weight's normal
            initial value, for a parameter path and its shape in JAX's layout. Biases start at 0.
        initial_mean: Called like `initial_std`: the mean of these values, 0 by default.
        initial_norm_scale: Called with (name, model): what a norm's scale starts at.
        inputs: What of a batch the model is called with, by name; one is given as it is, several
            as a tuple. Where it generates text that is (inputs, targets), whatever is named here.
        own_metrics: Metrics of its own, by name: functions of the number of rows that return an
            accumulator (`algoperf.workload.metric`).
        generates_text: Whether it feeds the model (inputs, targets) and judges what it generates;
            its metrics are then those of texts, such as ROUGE.
        pretrained: The formats of saved weights (`algoperf.workload.pretrained.FORMATS`) that its
            models start from; they are saved in the first.
        variants: Named changes, which are found as workloads, `<name>_<variant>`.
        base: The name of the workload that this one, a variant, changes; else None.
        changes: What it changes of it, by axis.
        outside: Set, by what loads it, where the workload is none of the tree.
    """

    name: str
    package: str
    summary: str
    loss_type: spec.LossType
    target_metric: str
    higher_is_better: bool
    metrics: tuple[str, ...]
    scales: Mapping[str, Scale]
    sources: tuple[str, ...]
    output_layer: str
    initial_std: Callable[[str, tuple[int, ...], Mapping[str, Any]], float]
    initial_mean: Callable[[str, tuple[int, ...], Mapping[str, Any]], float] = (
        lambda name, shape, model: 0.0
    )
    initial_norm_scale: Callable[[str, Mapping[str, Any]], float] = lambda name, model: 1.0
    inputs: tuple[str, ...] = ("inputs",)
    own_metrics: Mapping[str, metric.Start] = dataclasses.field(default_factory=dict)
    generates_text: bool = False
    pretrained: tuple[str, ...] = ()
    variants: Mapping[str, Variant] = dataclasses.field(default_factory=dict)
    base: str | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outside: Outside | None = None

    @property
    def reference(self) -> str:
        """What `catalogue.find` finds it by, from any folder and in any process."""
        return self.name if self.outside is None else self.outside.reference

    @property
    def model_inputs(self) -> tuple[str, ...]:
        """What of a batch the model is called with."""
        return ("inputs", "targets") if self.generates_text else self.inputs

    @property
    def measured(self) -> tuple[str, ...]:
        """What an evaluation gives for a split, beside 'num_examples'."""
        length = ("generated_tokens",) if self.generates_text else ()
        return ("loss", *self.metrics, *length)

    @functools.cached_property
    def accumulators(self) -> Mapping[str, metric.Start]:
        """What starts each of the metrics, in their order; looked up once (see `check_metrics`)."""
        known = {**metric.shared(self.generates_text), **self.own_metrics}
        for name in self.metrics:
            choose(f"metric of workload {self.name}", name, list(known))
        choose(
            f"target metric of workload {self.name}", self.target_metric, ["loss", *self.metrics]
        )
        return {name: known[name] for name in self.metrics}

    def counting(self, tokenizer: str) -> "WorkloadDefinition":
        """Return the workload with its metrics of words counted by another tokenizer.

        A metric is renamed to `<name>_<tokenizer>` where there is one. There is no target: those of
        the workload are values of its own metrics.

        Raises:
            UserError: The workload has no metric that has such a name too.
        """
        known = metric.shared(self.generates_text)
        renamed = {
            name: f"{name}_{tokenizer}" for name in self.metrics if f"{name}_{tokenizer}" in known
        }
        if not renamed:
            raise UserError(f"--rouge-tokenizer: {self.name} has no metric of words")
        scales = {
            name: dataclasses.replace(
                scale,
                targets={},
                real=None if scale.real is None else dataclasses.replace(scale.real, targets={}),
            )
            for name, scale in self.scales.items()
        }
        return dataclasses.replace(
            self,
            metrics=tuple(renamed.get(name, name) for name in self.metrics),
            target_metric=renamed.get(self.target_metric, self.target_metric),
            scales=scales,
        )

    def remarks(self, data: "Data") -> list[str]:
        """Return what the loader has to say of the rows, as 'remarks' of its notes, and the metrics
        of the texts that a run will be judged by.
        """
        own = list(data.notes.get("remarks", ()))
        if data.text is None:
            return own
        references = [text for split in SPLITS[1:] for text in data.text.references[split]]
        return own + metric.remarks(self.accumulators.values(), references)

    def check_metrics(self) -> None:
        """Check what the facts name as metrics.

        Raises:
            UserError: There is no metric of a name, or the target's metric is none of them.
        """
        assert len(self.accumulators) == len(set(self.metrics))

    def import_measures(self) -> None:
        """Import what measures a run of it, so that it is there before a submission is."""
        self.check_metrics()
        importlib.import_module(f"{self.package}.data")

    def build_model(self, framework: str, settings: Mapping[str, Any]) -> Any:
        """Return the flax or PyTorch module; `framework` is the suffix of its file,
        jax or torch.
        """
        return importlib.import_module(f"{self.package}.model_{framework}").build(**settings)

    def facts(self, scale: Scale, source: str, data: Data) -> dict[str, Any]:
        """What `spec.Workload` is made of, for one scale on one source of data."""
        target = scale.targets.get(source)
        return {
            "name": self.name,
            "loss_type": self.loss_type,
            "step_hint": scale.step_hint,
            "budget_s": scale.budget_s,
            "eval_every_s": scale.eval_every_s,
            "num_train_examples": len(data.splits["train"]),
            "target_metric_name": self.target_metric,
            "validation_target": target.validation if target else None,
            "test_target": target.test if target else None,
            "output_layer": scale.output_layer or self.output_layer,
            "dropout_rate": scale.dropout_rate,
            "feeds_targets": self.generates_text,
            "model_inputs": self.model_inputs,
        }

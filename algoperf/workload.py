"""A workload's facts as data, and where the workloads are found.

A workload is a folder `workloads/<name>` whose `__init__` defines `WORKLOAD`, a
`WorkloadDefinition`. The models and the data beside it are imported when a run needs them, never at
discovery.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import workloads
from algoperf import spec

SPLITS = ("train", "validation", "test")
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Target:
    """What a run has to reach on the validation split, for one scale on one source of data.

    `test` is the metric's value on the test split that AlgoPerf's older rule asks for. `baselines`
    are trivial methods' values of the same metric on the same split, `ceiling` the best value
    possible (known where the data is generated). `provenance` says how the number was found.
    """

    validation: float
    provenance: str
    test: float | None = None
    ceiling: float | None = None
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Generation:
    """How text is generated in evaluation.

    While training, `eval_rows` rows of a split (a fixed seeded subset) greedily; at the end of a
    run, the whole split by beam search with `beams`. `max_new_tokens` bounds a row's length.
    """

    max_new_tokens: int
    eval_rows: int
    beams: int = 4
    length_penalty: float = 1.0


@dataclasses.dataclass(frozen=True)
class Scale:
    """One size of a workload: model and data settings, and what a run of it may cost.

    `budget_s` and `eval_every_s` are seconds of submission time; `step_hint` is the number of steps
    that a well-tuned baseline needs; `eval_train_rows` is how many training rows each evaluation
    looks at. `buckets` are the (source, target) lengths that batches of text are cut to, ascending;
    () leaves all rows at their full length. `generation` says how text is generated. `real` is the
    same size for rows from the hub or a folder, where those are longer than the built-in ones.

    What variants change: weights' first values are multiplied by `initial_scale`; `row_changes` are
    those of `algoperf.variants.rows`; `output_layer` is the model's, where it is not the
    workload's.
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
    initial_scale: float = 1.0
    row_changes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    output_layer: str | None = None

    def on(self, source_kind: str) -> "Scale":
        """The scale for rows of that kind: 'builtin', 'hub' or 'folder'."""
        return self.real if self.real is not None and source_kind != "builtin" else self


@dataclasses.dataclass(frozen=True)
class Text:
    """What a generated row of tokens is read and judged by.

    `decode` turns lists of token ids into texts; `sources` and `references` are the rows' texts by
    split, in the order of the arrays.
    """

    decode: Callable[[Sequence[Sequence[int]]], list[str]]
    sources: Mapping[str, Sequence[str]]
    references: Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Data:
    """The rows of a run: for each split arrays of equal length, among them 'inputs' and 'targets'.

    `model` holds model settings that only the data knows. `notes` go into the run's meta data.
    `text` is there where the workload generates text. `tokenizer` is the JSON of the tokenizer, as
    the `tokenizers` library writes it, where it is no published one.
    """

    splits: Mapping[str, Arrays]
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text: Text | None = None
    tokenizer: str | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, types, shapes and bytes of every array, the first 16 hex digits."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for key, array in sorted(self.splits[split].items()):
                digest.update(f"{split}/{key}:{array.dtype.str}:{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named change of a workload: values by axis (`algoperf.variants.axes`), and its targets by
    scale and source of data.
    """

    changes: Mapping[str, Any]
    targets: Mapping[str, Mapping[str, Target]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class WorkloadDefinition:
    """The facts of one workload; everything that differs between workloads is a field here.

    `package` is the import path of its folder, which holds `data.py` with `load(source,
    **scale.data)`, and `model_jax.py` and `model_torch.py` with `build(**model)`.
    `initial_std(name, shape, model)` is the standard deviation of a weight's normal initial value,
    for a parameter path and its shape in JAX's layout; biases start at 0 and norm scales at 1.
    `metrics` names functions of `workloads.metrics`; `target_metric` is one of them. `sources` are
    of 'builtin', 'hub', 'folder'. A workload that generates text feeds the model (inputs, targets)
    and judges what it generates; its metrics are those of `workloads.rouge`. `pretrained` are
    the formats of saved weights (`algoperf.pretrained.FORMATS`) that its models start from; they
    are saved in the first.
    `variants` are found as workloads, `<name>_<variant>`; such a definition has its `base`'s name
    and its `changes`.
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
    generates_text: bool = False
    pretrained: tuple[str, ...] = ()
    variants: Mapping[str, Variant] = dataclasses.field(default_factory=dict)
    base: str | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def measured(self) -> tuple[str, ...]:
        """What an evaluation gives for a split, beside 'num_examples'."""
        length = ("generated_tokens",) if self.generates_text else ()
        return ("loss", *self.metrics, *length)

    def import_measures(self) -> None:
        """Import what measures a run of it, so that it is there before a submission is."""
        measures = "workloads.rouge" if self.generates_text else "workloads.metrics"
        for name in (measures, f"{self.package}.data"):
            importlib.import_module(name)

    def load_data(self, scale: Scale, source: str) -> Data:
        """Return the rows from 'builtin', 'hub' or a folder's path, changed as the scale says."""
        data: Data = importlib.import_module(f"{self.package}.data").load(source, **scale.data)
        if scale.row_changes:
            from algoperf.variants import rows

            data = rows.change(data, scale.row_changes)
        return data

    def starting_from(self, source: str, scale: Scale) -> Scale:
        """Return the scale for a start from saved weights, of a folder or the hub: where it trains
        a tokenizer of its own it takes theirs.

        Raises UserError where the workload starts from none, or there is no such tokenizer.
        """
        if not self.pretrained:
            raise spec.UserError(f"{self.name} has no pretrained weights to start from")
        if scale.data.get("tokenizer") != "trained":
            return scale
        from algoperf import pretrained

        folder, size = pretrained.vocabulary(source)
        data = {**scale.data, "tokenizer": folder, "vocab_size": size}
        return dataclasses.replace(scale, data=data)

    def load_pretrained(self, source: str, settings: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """Return saved weights by parameter name, from a folder or the hub; UserError where they do
        not fit the model.
        """
        from algoperf import pretrained

        return pretrained.load(self.pretrained, source, settings)

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
            "num_train_examples": len(data.splits["train"]["targets"]),
            "target_metric_name": self.target_metric,
            "validation_target": target.validation if target else None,
            "test_target": target.test if target else None,
            "output_layer": scale.output_layer or self.output_layer,
            "dropout_rate": scale.dropout_rate,
            "feeds_targets": self.generates_text,
        }


def names() -> list[str]:
    """The workloads that this installation has."""
    return sorted(
        module.name for module in pkgutil.iter_modules(workloads.__path__) if module.ispkg
    )


def variant_names() -> list[str]:
    """The named variants of all workloads, as they are found."""
    return [f"{name}_{variant}" for name in names() for variant in sorted(_import(name).variants)]


def find(name: str, suite: str | None = None) -> WorkloadDefinition:
    """Return the workload or variant of that name; `suite` is a file that has variants besides.

    Raises UserError, with near matches, where there is none.
    """
    from algoperf.variants import axes
    from algoperf.variants import suite as suites

    drawn = {} if suite is None else dict(suites.read(suite).variants)
    bases = names()
    if name in bases:
        return _import(name)
    for base in bases:
        variant = _import(base).variants.get(name.removeprefix(f"{base}_"))
        if variant is not None and name.startswith(f"{base}_"):
            drawn[name] = base, variant
    if name not in drawn:
        others = [*variant_names(), *drawn]
        nearest = difflib.get_close_matches(name, [*bases, *others], n=1)
        # The many variants are told of where one of them is meant, and nowhere else.
        choose("workload", name, [*bases, *others] if {*nearest} & {*others} else bases)
    base, variant = drawn[name]
    return axes.vary(_import(base), name, variant.changes, variant.targets)


def _import(name: str) -> WorkloadDefinition:
    definition = importlib.import_module(f"workloads.{name}").WORKLOAD
    assert isinstance(definition, WorkloadDefinition), f"workloads.{name}.WORKLOAD"
    return definition


def choose(what: str, given: str, allowed: list[str] | tuple[str, ...]) -> str:
    """Return `given` if it is allowed; else raise UserError that names the near matches and all
    choices.
    """
    if given in allowed:
        return given
    near = difflib.get_close_matches(given, allowed, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise spec.UserError(f"unknown {what} {given!r}{hint} (one of: {', '.join(allowed)})")

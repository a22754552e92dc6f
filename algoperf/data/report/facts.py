"""Facts of the rows that a run would train on: how many, how long, how alike, how balanced.

Everything here is counted on `Rows`, which any workload's data gives (`read`): texts and what they
are to become, texts and labels, or arrays and labels. Words are what spaces separate. Tokens are
what the model gets of a row: after cutting, special tokens included, padding not. A loader that
leaves bad rows out counts them itself, by split and reason, in its notes ('bad_rows').
"""

import dataclasses
import functools
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf import workload
from algoperf.data import loading, prefetch
from algoperf.data.report import duplicates
from algoperf.data.validation_seed import PARAMETER, ValidationSeed
from algoperf.workload import SPLITS, ArrayRows, Data, Scale, WorkloadDefinition
from algoperf.workload.rows import in_memory

Ints = NDArray[np.int64]
LENGTH_PERCENTILE = 95
PURPOSE = "describing or exporting the texts of the data"
LOOKED_AT_BYTES = 2**28  # of a split that is not in memory: its first rows, up to this much
# What a decoder writes where it could not read, and control characters that no text layout uses.
_DAMAGE = re.compile("[\ufffd\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one split.

    `sources` are texts, or arrays where the rows are none. `targets` are the texts to be written,
    `labels` the classes. `..._tokens` are counts, one a row. By field ('source', 'target') and only
    where the loader says: how many rows are `cut`, and what the lengths are before that
    (`tokens_uncut`: mean, median, p95). `separator` stands between the texts of a row that holds
    several. `count` is the number of all rows, where that is more than were looked at.
    """

    sources: Sequence[str] | np.ndarray
    targets: Sequence[str] | None = None
    labels: Ints | None = None
    source_tokens: Ints | None = None
    target_tokens: Ints | None = None
    cut: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    tokens_uncut: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    count: int | None = None
    separator: str | None = None

    @functools.cached_property
    def texts(self) -> dict[str, Sequence[str]]:
        """The texts of 'source' and 'target', where there are any; those of a row that holds
        several one by one.
        """
        columns: dict[str, Sequence[str]] = {}
        if not isinstance(self.sources, np.ndarray):
            columns["source"] = self.sources
        if self.targets is not None:
            columns["target"] = self.targets
        if self.separator is None:
            return columns
        return {
            field: [text for row in rows for text in row.split(self.separator)]
            for field, rows in columns.items()
        }

    @property
    def tokens(self) -> dict[str, Ints | None]:
        """Tokens a row of 'source' and 'target'."""
        return {"source": self.source_tokens, "target": self.target_tokens}


def read(
    definition: WorkloadDefinition,
    scale: Scale,
    source: str,
    secret: ValidationSeed | None = None,
) -> tuple[Data, dict[str, Rows]]:
    """Load a workload's data, and give its rows by split, with their texts where it has any.

    The validation and test rows are those that the `secret` draws, if there is one.
    """
    seed = None if secret is None else secret.rows_seed
    data = loading.load_data(definition, scale, source, seed)
    return data, rows_of(data, _texts(definition, scale, source, data, seed))


def _texts(
    definition: WorkloadDefinition,
    scale: Scale,
    source: str,
    data: Data,
    validation_seed: int | None,
) -> Mapping[str, Sequence[str]]:
    """The texts of the inputs by split: the data's own, or what the workload's `read` gives."""
    if data.text is not None:
        return data.text.sources
    reader = getattr(importlib.import_module(f"{definition.package}.data"), "read", None)
    if reader is None:
        return {}
    texts = {}
    more = {} if validation_seed is None else {PARAMETER: validation_seed}
    for split, (lines, labels) in reader(source, scale.data.get("seed", 0), **more).items():
        arrays = in_memory(data.splits[split], PURPOSE)
        assert np.array_equal(labels, arrays["targets"]), f"{split}: other rows"
        texts[split] = lines
    return texts


def rows_of(data: Data, texts: Mapping[str, Sequence[str]]) -> dict[str, Rows]:
    """The rows of loaded data by split; `texts` are those of the inputs, if they have any."""
    rows = {}
    looked_at = {split: _looked_at(data.splits[split]) for split in SPLITS}
    pad_id = _pad_id(data, looked_at.values())
    for split, arrays in looked_at.items():
        inputs, targets = arrays["inputs"], arrays["targets"]
        noted = {name: data.notes.get(name, {}).get(split) for name in ("rows_cut", "tokens")}
        cut = noted["rows_cut"] if isinstance(noted["rows_cut"], Mapping) else {}
        uncut = noted["tokens"] if isinstance(noted["tokens"], Mapping) else {}
        rows[split] = Rows(
            sources=texts.get(split, inputs),
            targets=None if data.text is None else data.text.references[split],
            labels=targets.astype(np.int64) if _is_whole(targets, 1) else None,
            source_tokens=None
            if pad_id is None or not _is_whole(inputs, 2)
            else (inputs != pad_id).sum(1),
            target_tokens=None if data.text is None else (arrays["weights"] > 0).sum(1),
            cut=cut or {"source": noted["rows_cut"]},
            tokens_uncut=uncut,
            count=len(data.splits[split]),
            separator=None if data.text is None else data.text.separator,
        )
    return rows


def _looked_at(rows: workload.Rows) -> ArrayRows:
    """All rows where they are in memory, else as many as it may hold."""
    if isinstance(rows, ArrayRows):
        return rows
    most = max(1, LOOKED_AT_BYTES // prefetch.row_bytes(rows.fields))
    return ArrayRows(rows.take(np.arange(min(len(rows), most))))


def _is_whole(array: np.ndarray, axes: int) -> bool:
    return array.ndim == axes and bool(np.issubdtype(array.dtype, np.integer))


def _pad_id(data: Data, splits: Iterable[ArrayRows]) -> int | None:
    """The token that fills rows up: what the data says, else what stands where no weight is."""
    noted: int | None = data.model.get("pad_id")
    for arrays in splits:
        if noted is None and "weights" in arrays and _is_whole(arrays["targets"], 2):
            padding = arrays["targets"][arrays["weights"] == 0]
            noted = int(padding[0]) if len(padding) else None
    return noted


def describe(rows: Mapping[str, Rows]) -> dict[str, Any]:
    """All facts of the rows as plain values."""
    fields = next(iter(rows.values())).texts
    facts: dict[str, Any] = {
        "rows": {split: part.count or len(part.sources) for split, part in rows.items()},
        "looked_at": {split: len(part.sources) for split, part in rows.items()},
        "texts": {
            split: len(next(iter(part.texts.values()), part.sources))
            for split, part in rows.items()
        },
        "lengths": {
            field: {split: _lengths(part, field) for split, part in rows.items()}
            for field in fields
        },
        "duplicates": _duplicates(rows),
    }
    if all(part.labels is not None for part in rows.values()):
        facts["labels"] = {split: _labels(part) for split, part in rows.items()}
        facts["contradictions"] = _contradictions(rows)
    return facts


def report(
    definition: WorkloadDefinition,
    scale_name: str,
    scale: Scale,
    kind: str,
    source: str,
    secret: ValidationSeed | None = None,
) -> tuple[dict[str, Any], dict[str, Rows]]:
    """(facts with where they come from, rows) of a workload's data at a scale."""
    data, rows = read(definition, scale, source, secret)
    about = {
        "workload": definition.name,
        "scale": scale_name,
        "data": kind,
        "path": source if kind == "folder" else None,
        "fingerprint": data.fingerprint,
        "fields": {
            name: f"{dtype}{list(shape)}"
            for name, (shape, dtype) in data.splits["train"].fields.items()
        },
        "bad_rows": data.notes.get("bad_rows", {}),
        "held_out": data.notes.get("held_out", {}),
        "remarks": definition.remarks(data),
        "similar": {
            "measure": f"Jaccard similarity of the sets of word {duplicates.NGRAM_WORDS}-grams",
            "threshold": duplicates.SIMILAR,
        },
    }
    if secret is not None:
        about["validation_commitment"] = secret.commitment
    return about | describe(rows), rows


def word_counts(texts: Sequence[str]) -> Ints:
    """Words of each text: what spaces separate."""
    return np.array([len(text.split()) for text in texts], np.int64)


def _spread(values: Ints) -> dict[str, float]:
    """Mean, median and 95th percentile (between two rows linear)."""
    if not len(values):
        return {"mean": 0.0, "median": 0.0, "p95": 0.0}
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, LENGTH_PERCENTILE)),
    }


def _lengths(rows: Rows, field: str) -> dict[str, Any]:
    """Lengths of one field of one split; how many of its texts are cut, empty or unreadable.

    Empty: no letter or digit. Unreadable: replacement or control characters.
    """
    texts, tokens, cut = rows.texts[field], rows.tokens[field], rows.cut.get(field)
    return {
        "words": _spread(word_counts(texts)),
        "tokens": None if tokens is None else _spread(tokens),
        "tokens_uncut": dict(rows.tokens_uncut[field]) if field in rows.tokens_uncut else None,
        "cut": cut,
        "cut_share": None if cut is None else cut / max(len(texts), 1),
        "empty": sum(not any(map(str.isalnum, text)) for text in texts),
        "unreadable": sum(bool(_DAMAGE.search(text)) for text in texts),
    }


def _duplicates(rows: Mapping[str, Rows]) -> dict[str, Any]:
    """By field, the counts of `duplicates.count`; of arrays those of equal ones."""
    fields = next(iter(rows.values())).texts
    counts = {
        field: duplicates.count({split: part.texts[field] for split, part in rows.items()})
        for field in fields
    }
    if "source" in fields:
        return counts
    arrays = {split: np.asarray(part.sources) for split, part in rows.items()}
    return {"source": duplicates.count_arrays(arrays), **counts}


def _labels(rows: Rows) -> dict[str, Any]:
    """Balance, and how far a text's length gives its label away.

    `imbalance` is the largest class over the smallest. `length_bias` is eta squared, the share of
    the variance of the number of words that lies between the labels: 0 if length says nothing.
    """
    assert rows.labels is not None
    names, counts = np.unique(rows.labels, return_counts=True)
    facts: dict[str, Any] = {
        "rows": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        "imbalance": float(counts.max() / counts.min()) if len(counts) else 1.0,
    }
    if isinstance(rows.sources, np.ndarray):
        return facts
    words = word_counts(rows.sources)
    by_label = [words[rows.labels == name] for name in names]
    facts["words"] = {str(name): _spread(each) for name, each in zip(names, by_label, strict=True)}
    total = float(((words - words.mean()) ** 2).sum()) if len(words) else 0.0
    between = sum(len(each) * (each.mean() - words.mean()) ** 2 for each in by_label)
    facts["length_bias"] = float(between / total) if total else 0.0
    return facts


def _contradictions(rows: Mapping[str, Rows]) -> int:
    """Rows of any split whose input (normalised, if text) occurs with another label too."""
    labels: dict[Any, set[int]] = {}
    keys = []
    for part in rows.values():
        assert part.labels is not None
        for row, label in zip(part.sources, part.labels.tolist(), strict=True):
            key = duplicates.normalise(row) if isinstance(row, str) else row.tobytes()
            keys.append(key)
            labels.setdefault(key, set()).add(label)
    return sum(len(labels[key]) > 1 for key in keys)

"""Weights from folders that transformers saved, or from the hub, and folders that it can load.

A format is a kind of model (`layout.Format`); a workload names those that its models can start
from, the first of which is what they are saved as.
"""

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.errors import UserError
from algoperf.workload.definition import Scale, WorkloadDefinition
from algoperf.workload.pretrained import files
from algoperf.workload.pretrained.layout import Format

# Each is a module `workloads.parts.saved_<name>` with `FORMAT`.
FORMATS = ("gpt2", "bart", "roberta")


def format_of(name: str) -> Format:
    """Return the format of that name, one of `FORMATS`."""
    assert name in FORMATS, name
    saved_format: Format = importlib.import_module(f"workloads.parts.saved_{name}").FORMAT
    return saved_format


def load(
    formats: Sequence[str], source: str, settings: Mapping[str, Any]
) -> Mapping[str, np.ndarray]:
    """Return parameters by our names in JAX's layout, for `from_neutral` of either framework's
    workload.

    `source` is a folder or a name on the hub, of one of the `formats`; `settings` what the model is
    built with. UserError names what differs between the two.
    """
    folder = files.locate(source)
    config = files.read_json(folder / files.CONFIG)
    name_of_format = next((name for name in formats if name == config.get("model_type")), None)
    if name_of_format is None:
        raise UserError(
            f"{source} is another model: its model_type {config.get('model_type')!r}, not "
            f"{' or '.join(map(repr, formats))}"
        )
    form = format_of(name_of_format)
    form.check(source, config, settings)
    return form.take(source, files.read_tensors(folder), settings)


def starting_from(definition: WorkloadDefinition, source: str, scale: Scale) -> Scale:
    """Return the scale for a start from saved weights, of a folder or the hub: where it trains a
    tokenizer of its own it takes theirs.

    Raises:
        UserError: The workload starts from no weights, or there is no such tokenizer.
    """
    if not definition.pretrained:
        raise UserError(f"{definition.name} has no pretrained weights to start from")
    if scale.data.get("tokenizer") != "trained":
        return scale
    folder, size = vocabulary(source)
    data = {**scale.data, "tokenizer": folder, "vocab_size": size}
    return dataclasses.replace(scale, data=data)


def vocabulary(source: str) -> tuple[str, int]:
    """Return (the folder that holds the tokenizer of saved weights, the size of their vocabulary).

    Raises UserError where the folder has none: then no row can be made for these weights.
    """
    folder = files.locate(source)
    if not (folder / files.TOKENIZER).is_file():
        raise UserError(
            f"{source}: no {files.TOKENIZER} beside the weights, and this scale trains a tokenizer "
            "of its own, whose tokens are others; take a folder of --save-model, or a scale with "
            "the published tokenizer"
        )
    size = files.read_json(folder / files.CONFIG).get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{folder / files.CONFIG}: vocab_size is {size!r}, expected a whole number")
    return str(folder), size


def flags(values: Mapping[str, np.ndarray] | None) -> dict[str, str]:
    """What a run's flags say of the weights it starts from: SHA-256 over their names and bytes, the
    first 16 hex digits; nothing where there are none.
    """
    if values is None:
        return {}
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values[name]).tobytes())
    return {"pretrained_hash": digest.hexdigest()[:16]}


def check_target(folder: Path) -> None:
    """Raise UserError where a folder holds anything but a model that was saved."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--save-model {folder}: not a folder")
    others = sorted({path.name for path in folder.glob("*")} - files.WRITTEN)
    if others:
        raise UserError(
            f"--save-model {folder}: it holds {others[0]}, which is no part of a saved model; give "
            "a new folder"
        )


def check_saved(name: str, bound: Any, settings: Mapping[str, Any]) -> None:
    """Raise UserError where a workload's model is none that the format of that name can hold."""
    form = format_of(name)
    form.check_style("--save-model with", settings)
    form.check_names("--save-model with", bound.folded_names, settings)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model: the name of the format it is saved in, what it was built with, parameters by
    our names in JAX's layout, and the JSON of its tokenizer, where that is no published one.
    """

    format: str
    settings: Mapping[str, Any]
    values: Mapping[str, np.ndarray]
    tokenizer: str | None

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors as transformers' `save_pretrained` does, and the
        tokenizer, if there is one, as `PreTrainedTokenizerFast` reads it.
        """
        form = format_of(self.format)
        tensors = form.give(self.values, self.settings)
        files.write(folder, form.config(self.settings), tensors, self.tokenizer)

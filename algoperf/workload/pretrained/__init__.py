"""Load weights that transformers saved, from a folder or from the hub, and save such folders.

A format is one kind of model (`layout.Format`). A workload names the formats from which its
models can start; they are saved in the first of these.
"""

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.errors import UserError
from algoperf.run_folder import writing
from algoperf.workload.definition import Scale, WorkloadDefinition
from algoperf.workload.pretrained import files
from algoperf.workload.pretrained.layout import Format

# Each has a module `workloads.parts.saved_<name>`, which defines its `FORMAT`.
FORMATS = ("gpt2", "bart", "roberta")


def format_of(name: str) -> Format:
    """Return the format of a name, which is one of `FORMATS`."""
    assert name in FORMATS, name
    saved_format: Format = importlib.import_module(f"workloads.parts.saved_{name}").FORMAT
    return saved_format


def load(
    formats: Sequence[str], source: str, settings: Mapping[str, Any]
) -> Mapping[str, np.ndarray]:
    """Load the weights of a model that transformers saved.

    Args:
        formats: The names of the formats that the workload can start from.
        source: A folder, or the name of a model on the Hugging Face hub.
        settings: The settings with which the workload's model is built.

    Returns:
        The parameters by our names, in JAX's layout.

    Raises:
        UserError: The weights cannot be read, or are those of another model; the message names the
            difference.
    """
    folder = files.locate(source)
    config = files.read_config(folder)
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
    """Return the scale of a workload for a start from saved weights.

    Where the scale would train a tokenizer of its own, it takes the one saved with the weights.

    Args:
        definition: The workload.
        source: A folder, or the name of a model on the Hugging Face hub.
        scale: The workload's scale.

    Raises:
        UserError: The workload cannot start from saved weights, or no tokenizer was saved with
            them.
    """
    if not definition.pretrained:
        raise UserError(f"{definition.name} has no pretrained weights to start from")
    if scale.data.get("tokenizer") != "trained":
        return scale
    folder, size = vocabulary(source)
    data = {**scale.data, "tokenizer": folder, "vocab_size": size}
    return dataclasses.replace(scale, data=data)


def vocabulary(source: str) -> tuple[str, int]:
    """Return the folder with the tokenizer of saved weights, and the size of their vocabulary.

    Args:
        source: A folder, or the name of a model on the Hugging Face hub.

    Raises:
        UserError: There is no tokenizer beside the weights, so that no row can be prepared for
            them, or their config.json does not give the size of the vocabulary.
    """
    folder = files.locate(source)
    if not (folder / files.TOKENIZER).is_file():
        raise UserError(
            f"{source}: no {files.TOKENIZER} beside the weights, and this scale trains a tokenizer "
            "of its own, whose tokens are others; take a folder of --save-model, or a scale with "
            "the published tokenizer"
        )
    size = files.read_config(folder).get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{folder / files.CONFIG}: vocab_size is {size!r}, expected a whole number")
    return str(folder), size


def flags(values: Mapping[str, np.ndarray] | None) -> dict[str, str]:
    """Return the entry of a run's configuration that identifies the weights it starts from.

    Args:
        values: The weights by name, or None.

    Returns:
        'pretrained_hash', the first 16 hex digits of the SHA-256 over their names and bytes; an
        empty dict without weights.
    """
    if values is None:
        return {}
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values[name]).tobytes())
    return {"pretrained_hash": digest.hexdigest()[:16]}


def check_target(folder: Path) -> None:
    """Check that a model may be saved in a folder.

    Raises:
        UserError: It is a file, or holds anything but a saved model.
    """
    writing.check_folder("--save-model", folder)
    others = sorted({path.name for path in folder.glob("*")} - files.WRITTEN)
    if others:
        raise UserError(
            f"--save-model {folder}: it holds {others[0]}, which is no part of a saved model; give "
            "a new folder"
        )


def check_saved(name: str, bound: Any, settings: Mapping[str, Any]) -> None:
    """Check that a workload's model can be saved in a format.

    Args:
        name: The format's name.
        bound: The workload, bound to a framework.
        settings: The settings with which its model is built.

    Raises:
        UserError: The format has no place for the model's layers or parameters.
    """
    form = format_of(name)
    form.check_style("--save-model with", settings)
    form.check_names("--save-model with", bound.folded_names, settings)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, ready to be saved.

    Attributes:
        format: The name of the format in which it is saved.
        settings: The settings with which it was built.
        values: Its parameters by our names, in JAX's layout.
        tokenizer: The JSON of its tokenizer; None where that is a published one.
    """

    format: str
    settings: Mapping[str, Any]
    values: Mapping[str, np.ndarray]
    tokenizer: str | None

    def save(self, folder: Path) -> None:
        """Write the model to a folder, as transformers' `save_pretrained` does.

        The files are config.json and model.safetensors, and, if there is a tokenizer, those that
        `PreTrainedTokenizerFast` reads.

        Raises:
            UserError: The folder cannot be written.
        """
        form = format_of(self.format)
        tensors = form.give(self.values, self.settings)
        files.write(folder, form.config(self.settings), tensors, self.tokenizer)

"""Read and write folders as transformers saves them, with tensors as NumPy arrays by name.

Folders may also come from the Hugging Face hub. Configurations go through transformers, and so do
tokenizers that are written. Its models need PyTorch, which is not there in an installation for JAX
alone; so tensors are read by safetensors (`model.safetensors`, in one or several files), and those
of an older `pytorch_model.bin` here.
"""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.errors import UserError

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
WRITTEN = frozenset({CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json"})
ROLES = {  # The special tokens by their role; a tokenizer may lack some.
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
HUB_FILES = (CONFIG, "model*.safetensors", "model.safetensors.index.json", TOKENIZER)


def locate(source: str) -> Path:
    """Return the folder of a saved model, after downloading it if it is on the hub.

    Args:
        source: A folder, or the name of a model on the Hugging Face hub.

    Raises:
        UserError: There is no such folder, and the hub has no such model or cannot be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    import huggingface_hub
    from huggingface_hub import errors

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(patterns)))

    try:
        fetched = fetch(HUB_FILES)
        return (
            fetched
            if any(fetched.glob("*.safetensors"))
            else fetch(("*.json", "pytorch_model.bin"))
        )
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as problem:
        first_line = str(problem).strip().splitlines()[0]
        raise UserError(
            f"pretrained weights {source!r}: no such folder, and not found on the Hugging Face hub "
            f"({first_line}); give a folder saved by transformers' save_pretrained"
        ) from problem


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a saved model, with transformers' defaults for what it leaves
    out.

    Raises:
        UserError: There is none, or transformers does not know the kind of model.
    """
    from transformers import AutoConfig

    given = read_json(folder / CONFIG)
    try:
        config: dict[str, Any] = AutoConfig.for_model(**{"model_type": None, **given}).to_dict()
    except Exception as problem:  # of several libraries' kinds
        what = " ".join(line.strip() for line in str(problem).strip().splitlines()[:2])
        raise UserError(f"{folder / CONFIG}: no configuration ({what})") from problem
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder saved by save_pretrained")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as problem:
        raise UserError(f"{path}: not JSON ({problem})") from problem
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a folder, by transformers' names.

    Raises:
        UserError: The folder holds no weights, or they cannot be read.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or index.is_file():
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        names = {whole.name} if whole.is_file() else set(read_json(index)["weight_map"].values())
        tensors: dict[str, np.ndarray] = {}
        for path in sorted(folder / name for name in names):
            try:
                tensors |= load_file(path)
            except (SafetensorError, OSError, KeyError, TypeError) as problem:
                raise UserError(f"{path}: cannot be read ({problem})") from problem
        return tensors
    if (folder / "pytorch_model.bin").is_file():
        return read_torch_file(folder / "pytorch_model.bin")
    raise UserError(f"{folder} holds neither model.safetensors nor pytorch_model.bin")


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer: str | None,
) -> None:
    """Write a model to a folder, as transformers saves it.

    The configuration is written last, so that a folder that has one is complete.

    Args:
        folder: The folder, which is created if necessary.
        config: The content of config.json.
        tensors: The tensors by transformers' names.
        tokenizer: The JSON of a tokenizer of the `tokenizers` library, or None.

    Raises:
        UserError: The folder cannot be written.
    """
    from safetensors.numpy import save
    from tokenizers import Tokenizer
    from transformers import AutoConfig, PreTrainedTokenizerFast

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        (folder / WEIGHTS).write_bytes(save(dict(tensors), metadata={"format": "pt"}))
        if tokenizer is not None:
            own = Tokenizer.from_str(tokenizer)
            roles = {
                role: token for role, token in ROLES.items() if own.token_to_id(token) is not None
            }
            PreTrainedTokenizerFast(tokenizer_object=own, **roles).save_pretrained(folder)
        AutoConfig.for_model(**config).save_pretrained(folder)
    except OSError as problem:
        raise UserError(f"--save-model {folder}: cannot be written ({problem})") from problem


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file that torch.save wrote.

    Such a file is a zip archive of a pickle and of the bytes of each storage.
    Only tensors are unpickled, so the file cannot run any code.

    Raises:
        UserError: It is no such file, or holds something else than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            folder = listing.removesuffix("data.pkl")
            with archive.open(listing) as file:
                content = _TensorUnpickler(file, lambda key: archive.read(f"{folder}data/{key}"))
                tensors: dict[str, np.ndarray] = dict(content.load())
    except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, OSError) as problem:
        raise UserError(f"{path}: not a file of torch.save with tensors ({problem})") from problem
    return tensors


STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8"}


class _TensorUnpickler(pickle.Unpickler):
    """Turns pickled tensors into NumPy arrays and refuses everything else."""

    def __init__(self, file: Any, read: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        """Return what replaces a pickled class or function; raise UnpicklingError for others."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}")

    def persistent_load(self, key: Any) -> np.ndarray:
        """Return the numbers of a storage."""
        _, dtype, name, *_ = key
        return np.frombuffer(self._read(name), dtype)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    step = storage.itemsize
    return np.ndarray(
        shape, storage.dtype, storage, offset * step, [step * stride for stride in strides]
    )

"""The files of a folder saved by transformers, or of the Hugging Face hub, as NumPy arrays by name.

Neither transformers nor PyTorch is needed: `model.safetensors` (in one or several files) and
`pytorch_model.bin` are read into NumPy.
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
WRITTEN = frozenset({CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG})
ROLES = {  # of special tokens, where a tokenizer has them
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
HUB_FILES = (CONFIG, "model*.safetensors", "model.safetensors.index.json", TOKENIZER)


def locate(source: str) -> Path:
    """Return the folder itself, or where the hub's files are kept after a download."""
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


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; UserError where there is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder saved by save_pretrained")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as problem:
        raise UserError(f"{path}: not JSON ({problem})") from problem
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the folder, by transformers' names."""
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
    """Write a model as transformers saves it, the configuration last: a folder with one is whole.

    `tokenizer` is the JSON of the `tokenizers` library. Raises UserError where the disk refuses.
    """
    from safetensors.numpy import save

    contents = {WEIGHTS: save(dict(tensors), metadata={"format": "pt"})}
    if tokenizer is not None:
        known = {each["content"] for each in json.loads(tokenizer)["added_tokens"]}
        roles = {role: token for role, token in ROLES.items() if token in known}
        about = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
        contents[TOKENIZER] = tokenizer.encode()
        contents[TOKENIZER_CONFIG] = (json.dumps(about, indent=2) + "\n").encode()
    contents[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as problem:
        raise UserError(f"--save-model {folder}: cannot be written ({problem})") from problem


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of torch.save: a zip of a pickle and of each storage's bytes.

    Nothing but tensors is unpickled, so the file can run no code.
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
    """Makes NumPy arrays of pickled tensors and refuses everything else."""

    def __init__(self, file: Any, read: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a pickled name."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}")

    def persistent_load(self, key: Any) -> np.ndarray:
        """Return a storage's numbers."""
        _, dtype, name, *_ = key
        return np.frombuffer(self._read(name), dtype)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    step = storage.itemsize
    return np.ndarray(
        shape, storage.dtype, storage, offset * step, [step * stride for stride in strides]
    )

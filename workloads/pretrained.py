"""BART's weights from a folder saved by transformers, or from the Hugging Face hub, as NumPy arrays
by name.

Neither transformers nor PyTorch is needed: `model.safetensors` (in one or several files) and
`pytorch_model.bin` are read into NumPy.
"""

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import parameters
from algoperf.spec import UserError
from workloads.style import BART

# Model settings, and the entries of config.json that must agree with them.
SETTINGS = {
    "vocab_size": ("vocab_size",),
    "positions": ("max_position_embeddings",),
    "width": ("d_model",),
    "encoder_layers": ("encoder_layers",),
    "decoder_layers": ("decoder_layers",),
    "heads": ("encoder_attention_heads", "decoder_attention_heads"),
    "feed_forward": ("encoder_ffn_dim", "decoder_ffn_dim"),
}
# What workloads/bart_*.py are built for.
REQUIRED = {
    "model_type": "bart",
    "activation_function": "gelu",
    "scale_embedding": False,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
# Names of modules, ours and transformers'.
STACK = {"position": "embed_positions", "embedding_norm": "layernorm_embedding"}
BLOCK = {
    "attention": "self_attn",
    "attention_norm": "self_attn_layer_norm",
    "cross_attention": "encoder_attn",
    "cross_attention_norm": "encoder_attn_layer_norm",
    "up": "fc1",
    "down": "fc2",
    "feed_forward_norm": "final_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "attention_out": "out_proj",
}
HUB_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
Tensors = Mapping[str, np.ndarray]


def load(source: str, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return all parameters in JAX's layout, for `from_neutral` of either framework's workload.

    `source` is a folder or a name on the hub, `settings` what the model is built with. UserError
    names what differs between the two.
    """
    if settings.get("style", BART) != BART:
        raise UserError(
            f"{source} cannot be loaded into a variant whose layers differ from BART's: "
            f"{settings['style']}"
        )
    folder = locate(source)
    config = _read_json(folder / "config.json")
    differences = [
        f"{key} {config.get(key)!r}, not {wanted!r}"
        for key, wanted in _wanted(settings)
        if config.get(key) != wanted
    ]
    if differences:
        raise UserError(f"{source} is another model: its {'; '.join(differences)}")
    tensors = {name.removeprefix("model."): value for name, value in _tensors(folder).items()}
    if tensors.get("final_logits_bias", np.zeros(1)).any():
        raise UserError(f"{source} has a bias on its logits (final_logits_bias), ours has none")
    return {
        name: _parameter(source, tensors, name, shape) for name, shape in _shapes(settings).items()
    }


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
        found = fetch(HUB_FILES)
        return found if any(found.glob("*.safetensors")) else fetch(("*.json", "pytorch_model.bin"))
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as problem:
        first_line = str(problem).strip().splitlines()[0]
        raise UserError(
            f"pretrained weights {source!r}: no such folder, and not found on the Hugging Face hub "
            f"({first_line}); give a folder saved by transformers' save_pretrained"
        ) from problem


def _wanted(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from REQUIRED.items()
    for name, keys in SETTINGS.items():
        yield from ((key, settings[name]) for key in keys)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder saved by save_pretrained")
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as problem:
        raise UserError(f"{path}: not JSON ({problem})") from problem
    return content


def _shapes(settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, in JAX's layout."""
    width, inner = settings["width"], settings["feed_forward"]
    norm = {"scale": (width,), "bias": (width,)}
    shapes: dict[str, tuple[int, ...]] = {"token/embedding": (settings["vocab_size"], width)}

    def add(module: str, leaves: Mapping[str, tuple[int, ...]]) -> None:
        shapes.update({f"{module}/{leaf}": shape for leaf, shape in leaves.items()})

    for stack, attentions in (("encoder", 1), ("decoder", 2)):
        add(f"{stack}/position", {"embedding": (settings["positions"] + 2, width)})
        add(f"{stack}/embedding_norm", norm)
        for layer in range(settings[f"{stack}_layers"]):
            block = f"{stack}/block_{layer}"
            for attention in ("attention", "cross_attention")[:attentions]:
                for projection in ("query", "key", "value", "attention_out"):
                    add(f"{block}/{attention}/{projection}", _dense(width, width))
                add(f"{block}/{attention}_norm", norm)
            add(f"{block}/up", _dense(width, inner))
            add(f"{block}/down", _dense(inner, width))
            add(f"{block}/feed_forward_norm", norm)
    return shapes


def _dense(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def transformers_name(name: str) -> str:
    """Our name of a parameter as transformers' BartModel has it."""
    *modules, leaf = name.split("/")
    if modules == ["token"]:
        return "shared.weight"
    stack, module, *inner = modules
    ending = "bias" if leaf == "bias" else "weight"
    if not module.startswith("block_"):
        return f"{stack}.{STACK[module]}.{ending}"
    path = ".".join(BLOCK[part] for part in inner)
    return f"{stack}.layers.{module.removeprefix('block_')}.{path}.{ending}"


def _parameter(source: str, tensors: Tensors, name: str, shape: tuple[int, ...]) -> np.ndarray:
    theirs = transformers_name(name)
    # Tied weights are saved once, under one of their names.
    aliases = ("encoder.embed_tokens.weight", "lm_head.weight") if name == "token/embedding" else ()
    found = next((tensors[key] for key in (theirs, *aliases) if key in tensors), None)
    if found is None:
        raise UserError(f"{source} has no weights named {theirs!r}")
    value = parameters.from_torch(name, found.astype(np.float32))
    if value.shape != shape:
        raise UserError(f"{source}: {theirs!r} has shape {value.shape}, expected {shape}")
    return value


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the folder, by transformers' names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or index.is_file():
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        names = {whole.name} if whole.is_file() else set(_read_json(index)["weight_map"].values())
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

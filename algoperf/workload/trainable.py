"""Choose which of a model's parameters train, and which parameters are added for that.

A technique is a row of `TECHNIQUES`. A text names a technique and its settings ('lora rank=4
alpha=8 targets=qkv,up'), and `bind` applies it to the parameters of a model, by name. Neither the
models nor the workloads know about techniques: `backends/jax_tuning.py` and
`backends/torch_tuning.py` apply the added parameters to the outputs of layers. The table is in
docs/fine_tuning.md.

The output layer trains in every technique, unless its weights are those of an embedding.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from algoperf.errors import UserError, choose
from algoperf.spec import ParameterType
from algoperf.workload import parameters

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # Keys are names of parameters or paths of layers.
LORA_TARGETS = (
    "qkv",
    "query",
    "value",
)  # These are peft's targets for GPT-2 and BART; a model may lack some.
ADAPTED = ("attention_out", "down")  # The layers whose output is added to the residual stream.
PROMPTED = "token"
LORA = "lora"
NORMS = (ParameterType.LAYER_NORM_SCALE, ParameterType.LAYER_NORM_BIAS)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A technique that was chosen.

    Attributes:
        technique: Its name.
        settings: The values of all its settings by name.
    """

    technique: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Technique:
    """A technique of fine-tuning.

    Attributes:
        summary: A short description for listings.
        trains: `trains(name, shape)` returns whether one of the model's own parameters trains.
        kind: The kind of what is added: 'lora', 'adapter', 'prompt', or '' for nothing.
        settings: The default of each setting.
        add: `add(settings, layers)` returns the parameters that are added to each layer, as shapes
            by name below the layer, by the layer's path. `layers` holds the shapes of kernels by
            the path of their layer, and those of embeddings by name.
    """

    summary: str
    trains: Callable[[str, Shape], bool] = lambda name, shape: False
    kind: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    add: Callable[[Mapping[str, Any], Shapes], Mapping[str, Shapes]] = lambda settings, layers: {}


@dataclasses.dataclass(frozen=True)
class Trainable:
    """What trains in one particular model.

    Attributes:
        frozen: The names of the model's own parameters that do not train.
        added: The shapes of the added parameters by name, in JAX's layout.
        kinds: The kind of what is added to a layer ('lora', 'adapter' or 'prompt'), by its path.
        scale: LoRA's alpha / rank.
    """

    frozen: frozenset[str] = frozenset()
    added: Shapes = dataclasses.field(default_factory=dict)
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scale: float = 1.0

    def folded_names(self, names: Iterable[str]) -> set[str]:
        """Return the names of the parameters that remain after `folded`.

        Added parameters that `folded` cannot merge are among them.

        Args:
            names: The names of all parameters.
        """
        kinds = {f"{path}/": kind for path, kind in self.kinds.items()}
        in_a_kernel = tuple(path for path, kind in kinds.items() if kind == LORA)
        return {
            name for name in names if name not in self.added or not name.startswith(in_a_kernel)
        }

    def folded(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the model's own parameters, with the added ones merged into them.

        LoRA's product becomes part of the kernel of its layer: W + (alpha / rank) A B in JAX's
        layout (Hu et al. 2022).

        Args:
            values: All parameters by name, in JAX's layout.

        Raises:
            UserError: An added parameter belongs to no layer of the model, as those of adapters and
                prompts.
        """
        own = {name: value for name, value in values.items() if name not in self.added}
        for path, kind in self.kinds.items():
            if kind != LORA:
                raise UserError(
                    f"{path} has a {kind} beside it, which the model itself cannot hold"
                )
            product = values[f"{path}/lora_a/kernel"] @ values[f"{path}/lora_b/kernel"]
            own[f"{path}/kernel"] = own[f"{path}/kernel"] + np.float32(self.scale) * product
        return own


def _is_embedding(name: str) -> bool:
    return name.endswith("/embedding")


def _is_norm(name: str, shape: Shape) -> bool:
    return parameters.parameter_type(name, shape) in NORMS


def _lora(settings: Mapping[str, Any], layers: Shapes) -> Mapping[str, Shapes]:
    """Return two low-rank matrices beside each target layer (Hu et al. 2022)."""
    dense = {path: shape for path, shape in layers.items() if not _is_embedding(path)}
    names = {path.rpartition("/")[2] for path in dense}
    targets = settings["targets"]
    for name in [] if targets == LORA_TARGETS else targets:
        choose("target of lora", name, sorted(names))
    rank = settings["rank"]
    return {
        path: {"lora_a/kernel": (inputs, rank), "lora_b/kernel": (rank, outputs)}
        for path, (inputs, outputs) in dense.items()
        if path.rpartition("/")[2] in targets
    }


def _adapters(settings: Mapping[str, Any], layers: Shapes) -> Mapping[str, Shapes]:
    """Return two layers with a bottleneck after each layer that adds to the residual stream."""
    size = settings["bottleneck"]
    return {
        path: {
            "adapter_down/kernel": (outputs, size),
            "adapter_down/bias": (size,),
            "adapter_up/kernel": (size, outputs),
            "adapter_up/bias": (outputs,),
        }
        for path, (_, outputs) in layers.items()
        if path.rpartition("/")[2] in ADAPTED
    }


def _prompt(settings: Mapping[str, Any], layers: Shapes) -> Mapping[str, Shapes]:
    """Return the embeddings of virtual tokens, which come before those of the text."""
    _, width = layers[f"{PROMPTED}/embedding"]
    return {PROMPTED: {"prompt/embedding": (settings["tokens"], width)}}


TECHNIQUES: Mapping[str, Technique] = {
    "lora": Technique(
        "low-rank matrices beside some layers (Hu et al. 2022)",
        kind=LORA,
        settings={"rank": 8, "alpha": 16.0, "targets": LORA_TARGETS},
        add=_lora,
    ),
    "prompt": Technique(
        "embeddings of virtual tokens before the text (Lester et al. 2021)",
        kind="prompt",
        settings={"tokens": 16},
        add=_prompt,
    ),
    "adapters": Technique(
        "bottleneck layers, and the norms (Houlsby et al. 2019)",
        trains=_is_norm,
        kind="adapter",
        settings={"bottleneck": 32},
        add=_adapters,
    ),
    "frozen_embeddings": Technique(
        "all but the embeddings", trains=lambda name, shape: not _is_embedding(name)
    ),
    "frozen_encoder": Technique(
        "all but the encoder and the tokens' embeddings, which it reads",
        trains=lambda name, shape: name.partition("/")[0] not in ("encoder", PROMPTED),
    ),
    "head": Technique("the output layer alone"),
}


def parse(text: Any) -> Chosen:
    """Return the technique that a text names, with its settings.

    Args:
        text: A technique's name and settings, as 'lora rank=4'.

    Raises:
        UserError: It is anything else; the message says what is allowed.
    """
    words = text.split() if isinstance(text, str) else []
    if not words:
        raise UserError(
            f"trainable is {text!r}, expected a technique and its settings, as 'lora rank=4' (one "
            f"of: {', '.join(TECHNIQUES)})"
        )
    name = choose("technique", words[0], list(TECHNIQUES))
    settings = dict(TECHNIQUES[name].settings)
    seen = set()
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not settings or not equals or key in seen:
            allowed = " ".join(f"{each}=..." for each in settings) or "no settings"
            raise UserError(f"trainable {text!r}: {word!r} is not expected; {name} has {allowed}")
        choose(f"setting of {name}", key, list(settings))
        seen.add(key)
        settings[key] = _value(f"trainable {text!r}: {key}", value, settings[key])
    return Chosen(name, settings)


def _value(where: str, text: str, default: Any) -> Any:
    """Return the value of a setting, converted to the type of its default."""
    if isinstance(default, tuple):
        names = tuple(text.split(","))
        if not all(names):
            raise UserError(f"{where} is {text!r}, expected names of layers, as qkv,up")
        return names
    kind, expected = (
        (int, "a whole number above 0") if isinstance(default, int) else (float, "above 0")
    )
    try:
        value = kind(text)
    except ValueError:
        value = kind()
    if not 0 < value < math.inf:
        raise UserError(f"{where} is {text!r}, expected {expected}")
    return value


def bind(text: str | None, shapes: Shapes, is_output: Callable[[str], bool]) -> Trainable:
    """Apply a technique to a model.

    Args:
        text: The technique and its settings; None trains all parameters.
        shapes: The shapes of the model's parameters by name, in JAX's layout.
        is_output: Returns whether the parameter of a name belongs to the output layer.

    Raises:
        UserError: It is no technique, or names layers that the model does not have.
    """
    if text is None:
        return Trainable()
    chosen = parse(text)
    technique = TECHNIQUES[chosen.technique]
    whole = {name for name in shapes if is_output(name) and not _is_embedding(name)}
    trained = whole | {name for name, shape in shapes.items() if technique.trains(name, shape)}
    layers = {
        name.removesuffix("/kernel"): shape
        for name, shape in shapes.items()
        if name not in whole and (_is_embedding(name) or name.endswith("/kernel"))
    }
    added = technique.add(chosen.settings, layers)
    return Trainable(
        frozenset(shapes) - trained,
        {f"{path}/{leaf}": shape for path, below in added.items() for leaf, shape in below.items()},
        dict.fromkeys(added, technique.kind),
        chosen.settings["alpha"] / chosen.settings["rank"] if "alpha" in chosen.settings else 1.0,
    )


def initial_value(
    name: str, shape: Shape, model: Mapping[str, np.ndarray], seed: tuple[int, int]
) -> np.ndarray:
    """Return the initial value of an added parameter, in JAX's layout.

    Parameters that map back to the layer's width are 0, so that the model starts as it was. Those
    that map from that width are uniform with the standard deviation 1 / sqrt(3 inputs), as in peft.
    Virtual tokens start as tokens of the model's own vocabulary (Lester et al. 2021, section 2.2).

    Args:
        name: The parameter's name, which with the seed determines the random values.
        shape: Its shape in JAX's layout.
        model: The model's own parameters by name.
        seed: The seed.
    """
    layer = name.split("/")[-2]
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([*seed, zlib.crc32(name.encode())]))
    )
    if layer == "prompt":
        token_VD = model[f"{PROMPTED}/embedding"]
        return token_VD[generator.integers(0, len(token_VD), shape[0])]
    if layer in ("lora_b", "adapter_up") or name.endswith("bias"):
        return np.zeros(shape, np.float32)
    bound = np.float32(parameters.fan_in(shape) ** -0.5)
    return (2 * generator.random(shape, np.float32) - 1) * bound

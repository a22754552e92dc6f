"""What a format of saved weights says: which of transformers' names is which of our parameters."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from algoperf.errors import UserError
from algoperf.workload import parameters

Settings = Mapping[str, Any]  # what a workload's model is built with
Tensors = Mapping[str, np.ndarray]  # by transformers' names


@dataclasses.dataclass(frozen=True)
class Weight:
    """One parameter: our name, its shape in JAX's layout, and transformers' name of it.

    Tied weights are saved once, under the name or one of its `aliases`. What `is_plain` has our
    layout there (GPT-2's Conv1D), any other kernel PyTorch's. What `is_optional` may be missing or
    of another shape: a head. `is_positions`: a table that may have more rows than are needed.
    """

    name: str
    shape: tuple[int, ...]
    theirs: str
    aliases: tuple[str, ...] = ()
    is_plain: bool = False
    is_optional: bool = False
    is_positions: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of model as transformers saves it.

    `title` is its name in messages, `prefix` what its names begin with where there is a head.
    `style` (a frozen dataclass, `workloads.parts.style`) says how the layers of the model are.
    `config` gives the whole config.json for model settings; the entries `compared` must be the same
    in a folder that is loaded. `weights` lists the parameters, `tensors` changes what was read
    before they are taken from it (raising UserError for what our model has not), and `constants`
    are saved beside the parameters, for what transformers' model has and ours has not. With
    `may_lack_positions` positions that a folder has no values for are zeros.
    """

    title: str
    model_type: str
    style: Any
    prefix: str
    config: Callable[[Settings], dict[str, Any]]
    compared: tuple[str, ...]
    positions: str
    weights: Callable[[Settings], Iterator[Weight]]
    tensors: Callable[[str, Tensors], Tensors] = lambda source, tensors: tensors
    constants: Callable[[Settings], dict[str, np.ndarray]] = lambda settings: {}
    may_lack_positions: bool = False

    def check_style(self, what: str, settings: Settings) -> None:
        """Raise UserError, which begins with `what`, where the layers are not the format's."""
        style = settings.get("style", self.style)
        names = [field.name for field in dataclasses.fields(self.style)]
        if any(getattr(style, name) != getattr(self.style, name) for name in names):
            raise UserError(f"{what} a variant whose layers differ from {self.title}'s: {style}")

    def check_names(self, what: str, names: Collection[str], settings: Settings) -> None:
        """Raise UserError, which begins with `what`, where a model's parameters are not those that
        the format has a place for, each and no other.
        """
        listed = list(self.weights(settings))
        missing = {each.name for each in listed if not each.is_optional} - {*names}
        others = {*names} - {each.name for each in listed}
        if missing or others:
            difference = f"has {min(others)} besides" if others else f"lacks {min(missing)}"
            raise UserError(
                f"{what} parameters that are not {self.title}'s: the model {difference}"
            )

    def check(self, source: str, config: Settings, settings: Settings) -> None:
        """Raise UserError that names what of a folder's config.json differs from the model that the
        settings describe.
        """
        self.check_style(f"{source} cannot be loaded into", settings)
        wanted = self.config(settings)
        differences = [
            f"{key} {config.get(key)!r}, not {wanted[key]!r}"
            for key in self.compared
            if config.get(key, ABSENT.get(key)) != wanted[key]
        ]
        positions = config.get(self.positions)
        if not self.may_lack_positions and (positions or 0) < wanted[self.positions]:
            differences.append(f"{self.positions} {positions!r}, not {wanted[self.positions]!r}")
        if differences:
            raise UserError(f"{source} is another model: its {'; '.join(differences)}")

    def take(self, source: str, tensors: Tensors, settings: Settings) -> Tensors:
        """Return our parameters in JAX's layout, from a folder's tensors; UserError for one that is
        missing or of another shape.
        """
        bare = {name.removeprefix(self.prefix): value for name, value in tensors.items()}
        bare = dict(self.tensors(source, bare))
        taken = {each.name: self._parameter(source, bare, each) for each in self.weights(settings)}
        return {name: value for name, value in taken.items() if value is not None}

    def _parameter(self, source: str, tensors: Tensors, weight: Weight) -> np.ndarray | None:
        names = [name.removeprefix(self.prefix) for name in (weight.theirs, *weight.aliases)]
        tensor = next((tensors[name] for name in names if name in tensors), None)
        if tensor is None:
            if weight.is_optional:
                return None
            raise UserError(f"{source} has no weights named {names[0]!r}")
        value = tensor.astype(np.float32)
        if not weight.is_plain:
            value = parameters.from_torch(weight.name, value)
        if weight.is_positions and value.ndim == 2 and value.shape[1:] == weight.shape[1:]:
            missing = max(0, weight.shape[0] - len(value)) * self.may_lack_positions
            value = np.pad(value, ((0, missing), (0, 0)))[: weight.shape[0]]
        if value.shape != weight.shape:
            if weight.is_optional:
                return None
            raise UserError(
                f"{source}: {names[0]!r} has shape {value.shape}, expected {weight.shape}"
            )
        return value

    def give(self, values: Tensors, settings: Settings) -> dict[str, np.ndarray]:
        """Return a model's parameters (ours, in JAX's layout) under transformers' names."""
        tensors = dict(self.constants(settings))
        for weight in self.weights(settings):
            if weight.name in values or not weight.is_optional:
                value = values[weight.name]
                plain = value if weight.is_plain else parameters.to_torch(weight.name, value)
                tensors[weight.theirs] = np.ascontiguousarray(plain)
        return tensors


# What transformers takes where config.json does not say.
ABSENT = {"layer_norm_epsilon": 1e-5, "scale_attn_weights": True}


def dense(
    name: str, theirs: str, inputs: int, outputs: int, is_plain: bool = False
) -> Iterator[Weight]:
    """A dense layer's kernel and bias."""
    yield Weight(f"{name}/kernel", (inputs, outputs), f"{theirs}.weight", is_plain=is_plain)
    yield Weight(f"{name}/bias", (outputs,), f"{theirs}.bias")


def norm(name: str, theirs: str, width: int) -> Iterator[Weight]:
    """A layer norm's scale and bias."""
    yield Weight(f"{name}/scale", (width,), f"{theirs}.weight")
    yield Weight(f"{name}/bias", (width,), f"{theirs}.bias")

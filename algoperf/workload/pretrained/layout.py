"""Describe a format of saved weights: which of transformers' names belongs to which parameter."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from algoperf.errors import UserError
from algoperf.workload import parameters

Settings = Mapping[str, Any]  # The settings with which a model is built.
Tensors = Mapping[str, np.ndarray]  # Arrays by name.


@dataclasses.dataclass(frozen=True)
class Weight:
    """One parameter in a format of saved weights.

    Attributes:
        name: Our name.
        shape: Its shape in JAX's layout.
        theirs: Transformers' name.
        aliases: Other names under which it may be saved; tied weights are saved only once.
        is_plain: Whether it is saved in JAX's layout, as GPT-2's Conv1D is. Any other kernel is
            saved in PyTorch's.
        is_optional: Whether it may be missing or have another shape, as a head may.
        is_positions: Whether it is a table of positions, which may have more rows than are needed.
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
    """One kind of model in the form in which transformers saves it.

    Attributes:
        title: Its name in messages.
        model_type: Its name in config.json.
        style: How its layers are built (a frozen dataclass, `workloads.parts.style`).
        prefix: What the names of tensors begin with if the model has a head.
        config: Returns the content of config.json for the settings of a model.
        compared: The entries of config.json that must be the same in a folder that is loaded.
        positions: The entry of config.json with the number of positions.
        weights: Yields the parameters for the settings of a model.
        tensors: Changes the tensors that were read before parameters are taken from them. Raises
            UserError for something that our model does not have.
        constants: Returns tensors that are saved besides the parameters, because transformers'
            model has them and ours does not.
        may_lack_positions: Whether positions for which a folder has no values become zeros.
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
        """Check that a model's layers are built as in the format.

        Args:
            what: The beginning of the message.
            settings: The settings of the model.

        Raises:
            UserError: They are not.
        """
        style = settings.get("style", self.style)
        names = [field.name for field in dataclasses.fields(self.style)]
        if any(getattr(style, name) != getattr(self.style, name) for name in names):
            raise UserError(f"{what} a variant whose layers differ from {self.title}'s: {style}")

    def check_names(self, what: str, names: Collection[str], settings: Settings) -> None:
        """Check that a model has exactly the parameters for which the format has a place.

        Args:
            what: The beginning of the message.
            names: The names of the model's parameters.
            settings: The settings of the model.

        Raises:
            UserError: A parameter is missing, or the format has no place for it.
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
        """Check that a folder holds the model that the settings describe.

        Args:
            source: The folder, for messages.
            config: The content of its config.json.
            settings: The settings of the model.

        Raises:
            UserError: It is another model; the message names the differences.
        """
        self.check_style(f"{source} cannot be loaded into", settings)
        wanted = self.config(settings)
        differences = [
            f"{key} {config.get(key)!r}, not {wanted[key]!r}"
            for key in self.compared
            if config.get(key) != wanted[key]
        ]
        positions = config.get(self.positions)
        if not self.may_lack_positions and (positions or 0) < wanted[self.positions]:
            differences.append(f"{self.positions} {positions!r}, not {wanted[self.positions]!r}")
        if differences:
            raise UserError(f"{source} is another model: its {'; '.join(differences)}")

    def take(self, source: str, tensors: Tensors, settings: Settings) -> Tensors:
        """Return a model's parameters by our names, in JAX's layout, from a folder's tensors.

        Optional ones that are missing or of another shape are left out.

        Args:
            source: The folder, for messages.
            tensors: The tensors by transformers' names.
            settings: The settings of the model.

        Raises:
            UserError: A tensor is missing or has another shape.
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
        """Return a model's parameters as tensors by transformers' names.

        Args:
            values: The parameters by our names, in JAX's layout.
            settings: The settings of the model.
        """
        tensors = dict(self.constants(settings))
        for weight in self.weights(settings):
            if weight.name in values or not weight.is_optional:
                value = values[weight.name]
                plain = value if weight.is_plain else parameters.to_torch(weight.name, value)
                tensors[weight.theirs] = np.ascontiguousarray(plain)
        return tensors


def dense(
    name: str, theirs: str, inputs: int, outputs: int, is_plain: bool = False
) -> Iterator[Weight]:
    """Yield the kernel and the bias of a dense layer.

    Args:
        name: The path of our layer.
        theirs: The path of transformers' layer.
        inputs: The number of inputs.
        outputs: The number of outputs.
        is_plain: Whether the kernel is saved in JAX's layout.
    """
    yield Weight(f"{name}/kernel", (inputs, outputs), f"{theirs}.weight", is_plain=is_plain)
    yield Weight(f"{name}/bias", (outputs,), f"{theirs}.bias")


def norm(name: str, theirs: str, width: int) -> Iterator[Weight]:
    """Yield the scale and the bias of a layer norm.

    Args:
        name: The path of our layer.
        theirs: The path of transformers' layer.
        width: The number of values in each.
    """
    yield Weight(f"{name}/scale", (width,), f"{theirs}.weight")
    yield Weight(f"{name}/bias", (width,), f"{theirs}.bias")

"""The contract that a submission sees: enums, type names, parameters, hyperparameters, errors, and
Workload.

The names and meanings are those of the AlgoPerf benchmark's public submission interface
(https://github.com/mlcommons/algorithmic-efficiency, DOCUMENTATION.md), so that a published
submission finds here what it expects. Importing this module loads no training framework.
"""

import abc
import collections
import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from algoperf import losses
from algoperf.errors import UserError as UserError  # part of the contract, as is the loss type
from algoperf.losses import LossType as LossType

# Type names that published submissions use in annotations. A tensor is a jax.Array or a
# torch.Tensor.
Tensor = Any
Shape = tuple[int, ...]
ParameterKey = str
ParameterContainer = Any  # JAX: nested dicts of arrays; PyTorch: the nn.Module
ParameterShapeTree = Any
ParameterTypeTree = Any
RandomState = Any  # JAX: a PRNG key; PyTorch: a pair of unsigned 32-bit integers
OptimizerState = Any
Hyperparameters = Any  # attributes, `_asdict()`; None under self-tuning
Timing = float
Steps = int
ModelAuxiliaryState = Any  # JAX: None, or a dict with the batch statistics; PyTorch: None
ModelInitState = tuple[ParameterContainer, ModelAuxiliaryState]
UpdateReturn = tuple[OptimizerState, ParameterContainer, ModelAuxiliaryState]
InitOptimizerFn = Callable[..., OptimizerState]
UpdateParamsFn = Callable[..., UpdateReturn]
DataSelectionFn = Callable[..., dict[str, Tensor]]
PrepareForEvalFn = Callable[..., UpdateReturn]


class ForwardPassMode(enum.Enum):
    """Whether a forward pass trains (dropout, batch statistics) or evaluates."""

    TRAIN = 0
    EVAL = 1


class ParameterType(enum.Enum):
    """The role of a parameter, so that an optimizer can treat roles apart."""

    WEIGHT = 0
    BIAS = 1
    CONV_WEIGHT = 2
    BATCH_NORM_SCALE = 3
    BATCH_NORM_BIAS = 4
    LAYER_NORM_SCALE = 5
    LAYER_NORM_BIAS = 6
    EMBEDDING = 7
    ATTENTION_Q = 8
    ATTENTION_K = 9
    ATTENTION_V = 10
    ATTENTION_OUT = 11
    ATTENTION_QKV = 12
    ATTENTION_KV = 13
    ATTENTION_BIAS = 14


class TrainingCompleteError(Exception):
    """Raised by `update_params` to end training early; one last evaluation follows."""


@dataclasses.dataclass(frozen=True)
class ShapeTuple:
    """A parameter's shape; a class of its own so that a tree of shapes has these as leaves."""

    shape_tuple: Shape


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One named parameter, as an optimizer-form submission sees it.

    `name` is the path of module names joined by '/', the same in both frameworks; `shape` is the
    framework's own (a JAX dense kernel is (in, out), a PyTorch one (out, in)). `tensor` is the
    torch.nn.Parameter, or None in JAX.
    """

    name: str
    type: ParameterType
    shape: Shape
    is_output: bool
    tensor: Any = None

    @property
    def is_matrix(self) -> bool:
        """A hidden matrix: two-dimensional, neither an embedding nor the output layer."""
        return (
            len(self.shape) == 2 and self.type is not ParameterType.EMBEDDING and not self.is_output
        )


class Parameters(Mapping[str, Parameter]):
    """All parameters by name, in a fixed order."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._by_name = {parameter.name: parameter for parameter in parameters}

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def tensors(self, where: Callable[[Parameter], bool] = lambda _: True) -> list[Any]:
        """PyTorch: the tensors of the parameters for which `where` holds."""
        return [parameter.tensor for parameter in self.values() if where(parameter)]

    def tree(self, value: Callable[[Parameter], Any]) -> dict[str, Any]:
        """JAX: `value` of every parameter in the model's nested dict, e.g. labels or a mask for
        optax.
        """
        nested: dict[str, Any] = {}
        for name, parameter in self._by_name.items():
            *folders, leaf = name.split("/")
            node = nested
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = value(parameter)
        return nested


@dataclasses.dataclass(frozen=True)
class TrainingInfo:
    """What any training algorithm may know of the run. `budget_s` is submission time in seconds."""

    step_hint: int
    loss_type: LossType
    budget_s: float


class Workload(abc.ABC):
    """A model, a loss and the facts around them, as a submission sees it.

    A backend makes one for a run (`jax_backend.JaxWorkload`, `torch_backend.TorchWorkload`). It
    compares and hashes by identity, since submissions pass it to jit as a static argument.
    """

    ops: losses.Ops  # the framework's functions for losses

    def __init__(
        self,
        *,
        name: str,
        loss_type: LossType,
        step_hint: int,
        budget_s: float,
        eval_every_s: float,
        num_train_examples: int,
        target_metric_name: str,
        validation_target: float | None,
        test_target: float | None,
        output_layer: str,
        dropout_rate: float,
        feeds_targets: bool = False,
    ) -> None:
        self.name = name
        self.loss_type = loss_type
        self.step_hint = step_hint
        self.max_allowed_runtime_sec = budget_s
        self.eval_period_time_sec = eval_every_s
        self.num_train_examples = num_train_examples
        self.target_metric_name = target_metric_name
        self.validation_target_value = validation_target
        self.test_target_value = test_target
        self.output_layer = output_layer
        self.dropout_rate = dropout_rate
        self.feeds_targets = feeds_targets  # the model sees (inputs, targets), as a translator's
        self.frozen_count = 0  # of the model's numbers, those that no submission sees
        self.pretrained: Mapping[str, Any] | None = None  # what parameters start from, by name
        self.metrics_logger: Any = None  # None, or has append_scalar_metrics(dict, global_step)

    def seal(self) -> None:
        """Make it read-only, but for the logger of scalars: what a submission gets."""
        object.__setattr__(self, "_is_sealed", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_is_sealed", False) and name != "metrics_logger":
            raise AttributeError(f"the workload is read-only: {name} cannot be set")
        object.__setattr__(self, name, value)

    @property
    @abc.abstractmethod
    def param_shapes(self) -> ParameterShapeTree:
        """The parameters' tree with `ShapeTuple` leaves."""

    @property
    @abc.abstractmethod
    def model_params_types(self) -> ParameterTypeTree:
        """The parameters' tree with `ParameterType` leaves."""

    @abc.abstractmethod
    def init_model_fn(self, rng: RandomState) -> ModelInitState:
        """Return fresh (parameters, model state) drawn from `rng`."""

    def changed_frozen(self, params: ParameterContainer, model_state: ModelAuxiliaryState) -> bool:
        """Whether a frozen parameter is not what it started as."""
        return False

    def model_fn(
        self,
        params: ParameterContainer,
        augmented_and_preprocessed_input_batch: Mapping[str, Tensor],
        model_state: ModelAuxiliaryState,
        mode: ForwardPassMode,
        rng: RandomState,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[Tensor, ModelAuxiliaryState]:
        """One forward pass.

        Args:
            params: the parameters that train.
            augmented_and_preprocessed_input_batch: arrays by name, at least "inputs".
            model_state: what `init_model_fn`, or the last call that updated it, returned.
            mode: TRAIN applies dropout and keeps what gradients need.
            rng: what dropout draws from, in JAX.
            update_batch_norm: whether batch norm's running statistics take in this batch's. They
                can only where the batch's are used: without batch statistics nothing changes.
            dropout_rate: None means the workload's own; in JAX it may be traced.
            use_running_average_bn: whether batch norm uses its running statistics (True) or the
                batch's (False). None: the batch's in TRAIN, the running ones in EVAL.

        Returns:
            (logits, new model state). JAX: the state that was given stays as it is. PyTorch: the
            running statistics are buffers of the module, and updated in place.
        """
        train = mode is ForwardPassMode.TRAIN
        use_running = not train if use_running_average_bn is None else use_running_average_bn
        rate = self.dropout_rate if dropout_rate is None else dropout_rate
        batch = augmented_and_preprocessed_input_batch
        inputs = (batch["inputs"], batch["targets"]) if self.feeds_targets else batch["inputs"]
        return self.apply(
            params,
            inputs,
            model_state,
            rng,
            train,
            rate,
            use_running_average=use_running,
            update_statistics=update_batch_norm and not use_running,
        )

    @abc.abstractmethod
    def apply(
        self,
        params: ParameterContainer,
        inputs: Tensor,
        model_state: ModelAuxiliaryState,
        rng: RandomState,
        train: bool,
        dropout_rate: float,
        *,
        use_running_average: bool = True,
        update_statistics: bool = False,
    ) -> tuple[Tensor, ModelAuxiliaryState]:
        """One forward pass of the framework's model; the last two are batch norm's switches, of
        which the second needs the first to be off.
        """

    def per_example_loss(
        self, label_batch: Tensor, logits_batch: Tensor, label_smoothing: float
    ) -> Tensor:
        """Unmasked loss of each example (of each token or task, where labels have more axes)."""
        return losses.per_example(
            self.loss_type, label_batch, logits_batch, label_smoothing, self.ops
        )

    def loss_fn(
        self,
        label_batch: Tensor,
        logits_batch: Tensor,
        mask_batch: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, Tensor]:
        """Return 'summed', 'n_valid_examples' (the sum of the mask) and 'per_example', not reduced
        over devices.
        """
        per_example = self.per_example_loss(label_batch, logits_batch, label_smoothing)
        return losses.reduce_masked(per_example, mask_batch)

    def mean_loss(
        self,
        label_batch: Tensor,
        logits_batch: Tensor,
        mask_batch: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The mean of `loss_fn` over the examples that count: what the optimizer form trains on."""
        per_example = self.per_example_loss(label_batch, logits_batch, label_smoothing)
        loss = losses.reduce_masked(per_example, mask_batch)
        return loss["summed"] / loss["n_valid_examples"]

    def output_activation_fn(self, logits_batch: Tensor) -> Tensor:
        """Probabilities (softmax or sigmoid, by the loss type), or the logits of a regression."""
        match self.loss_type:
            case LossType.SOFTMAX_CROSS_ENTROPY:
                return self.ops.softmax(logits_batch)
            case LossType.SIGMOID_CROSS_ENTROPY:
                return self.ops.sigmoid(logits_batch)
        return logits_batch

    def is_output_params(self, param_key: ParameterKey) -> bool:
        """Whether the parameter (a path with '/' or '.', or a top-level module) belongs to the
        output layer.
        """
        return self.output_layer in param_key.replace(".", "/").split("/")


def make_hyperparameters(point: Mapping[str, Any]) -> Any:
    """Return `point` as a namedtuple that remembers which of its fields were read
    (see `unread`).
    """
    base = collections.namedtuple("Hyperparameters", point)  # type: ignore[misc]
    read: set[str] = set()

    class Hyperparameters(base):
        __slots__ = ()
        names_read = read

        def __getattribute__(self, name: str) -> Any:
            if name in point:
                read.add(name)
            return super().__getattribute__(name)

        def _asdict(self) -> dict[str, Any]:
            read.update(point)
            return dict(super()._asdict())

    return Hyperparameters(**point)


def unread(hyperparameters: Any) -> list[str]:
    """The fields that nobody has read so far."""
    return [name for name in hyperparameters._fields if name not in hyperparameters.names_read]

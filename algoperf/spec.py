"""The public contract between the benchmark and a submission.

It holds the enums, the type names used in annotations, the parameters, the hyperparameters, the
errors and the abstract `Workload` that a submission receives. The names and meanings are those of
the AlgoPerf benchmark's public submission interface
(https://github.com/mlcommons/algorithmic-efficiency, DOCUMENTATION.md), so that a published
submission finds here what it expects. Importing this module loads no training framework.
"""

import abc
import collections
import dataclasses
import enum
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """Whether a forward pass is for training (dropout, batch statistics) or for evaluation."""

    TRAIN = 0
    EVAL = 1


class ParameterType(enum.Enum):
    """The role of a parameter in the model, so that an optimizer can treat roles differently."""

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
    """Raised by a submission's `update_params` to end training early.

    The trial then makes one last evaluation and ends.
    """


@dataclasses.dataclass(frozen=True)
class ShapeTuple:
    """The shape of one parameter.

    It is a class of its own, so that a tree of shapes has these as its leaves: a plain tuple would
    be taken for one more level of the tree.

    Attributes:
        shape_tuple: The sizes of the parameter's dimensions, in the framework's own layout.
    """

    shape_tuple: Shape


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One named parameter, as a submission in the optimizer form sees it.

    Attributes:
        name: The path of module names joined by '/', the same in both frameworks.
        type: The parameter's role.
        shape: The shape in the framework's own layout: a dense kernel is (in, out) in JAX and
            (out, in) in PyTorch.
        is_output: Whether the parameter belongs to the output layer.
        tensor: The torch.nn.Parameter, or None in JAX.
    """

    name: str
    type: ParameterType
    shape: Shape
    is_output: bool
    tensor: Any = None

    @property
    def is_matrix(self) -> bool:
        """Whether this is a hidden matrix.

        It is one if it has two dimensions and is neither an embedding nor part of the output layer.
        """
        return (
            len(self.shape) == 2 and self.type is not ParameterType.EMBEDDING and not self.is_output
        )


class Parameters(Mapping[str, Parameter]):
    """All parameters of a model by name, in a fixed order."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._by_name = {parameter.name: parameter for parameter in parameters}

    def __getitem__(self, name: str) -> Parameter:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def tensors(self, where: Callable[[Parameter], bool] = lambda _: True) -> list[Any]:
        """Return the PyTorch tensors of the selected parameters, in the fixed order.

        For PyTorch only; in JAX a parameter has no tensor.

        Args:
            where: Called with each parameter; the tensors for which it returns True are returned.
                By default these are all of them.
        """
        return [parameter.tensor for parameter in self.values() if where(parameter)]

    def tree(self, value: Callable[[Parameter], Any]) -> dict[str, Any]:
        """Return a nested dict, shaped like the model's JAX parameters, with a value for each.

        Such a tree serves for instance as labels or as a mask for optax.

        Args:
            value: Called with each parameter; returns the leaf that takes its place.
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
    """The facts about the run that any training algorithm may know.

    Attributes:
        step_hint: The number of steps that the workload suggests for a learning-rate schedule.
        loss_type: The training loss of the workload.
        budget_s: The budget of the trial in seconds of submission time.
        rank: The number of this process among those that train the trial together, from 0.
        world_size: How many there are: several where PyTorch trains on several devices, or JAX in
            several processes. Gradients are those of the whole batch in each of them when an
            optimizer steps.
        shard: What the devices divide among them: 'optimizer', so that of each parameter one
            device alone has the gradient and the optimizer's state when it steps; 'parameters', so
            that each has a part of each parameter, gradient and state; None for nothing.
    """

    step_hint: int
    loss_type: LossType
    budget_s: float
    rank: int = 0
    world_size: int = 1
    shard: str | None = None

    def whole(self, tensor: Tensor) -> Tensor:
        """Return the whole of a tensor of which each process may have a part.

        With `--shard parameters` PyTorch's parameters, their gradients and what is computed of them
        are `torch.distributed.tensor.DTensor`s, of which each process has a part. Whatever needs
        all values of a matrix at once can ask for them by this, in every process alike: it waits
        until all of them have asked. Anything else is whole already, and so is everything in JAX.

        Args:
            tensor: The tensor, such as a parameter's gradient.

        Returns:
            A plain tensor with all values, the same in every process; the tensor itself where it
            is whole.
        """
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    def divided(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return a whole tensor as another one is divided: the way back from `whole`.

        Args:
            tensor: A plain tensor with all values, the same in every process.
            like: The tensor of that shape that it is to be combined with, such as a parameter.

        Returns:
            A tensor of which each process has the part that it has of `like`; where that one is
            whole, the tensor itself.
        """
        if not hasattr(like, "full_tensor"):
            return tensor
        library: Any = sys.modules["torch.distributed.tensor"]
        mesh, placements = like.device_mesh, like.placements
        return library.distribute_tensor(tensor.detach(), mesh, placements, src_data_rank=None)


class Workload(abc.ABC):
    """A model, its loss and the facts around them, as a submission sees them.

    Each framework's backend creates one for a run (`jax_backend.JaxWorkload`,
    `torch_backend.TorchWorkload`). A workload compares and hashes by identity, since submissions
    pass it to jit as a static argument.

    Attributes:
        name: The workload's name.
        loss_type: The training loss.
        step_hint: The number of steps that the workload suggests for a learning-rate schedule.
        max_allowed_runtime_sec: The budget in seconds of submission time.
        eval_period_time_sec: Seconds of submission time from one evaluation to the next.
        num_train_examples: The number of training examples.
        target_metric_name: The metric that the targets are values of.
        validation_target_value: The value to reach on the validation split; None without a target.
        test_target_value: The value to reach on the test split; None without a target.
        output_layer: The name of the module that is the model's output layer.
        dropout_rate: The default dropout rate.
        feeds_targets: Whether the model's input is (inputs, targets), as a translator's is.
        model_inputs: What of a batch the model is called with, by name: one array as it is, of
            several a tuple.
        frozen_count: How many of the model's numbers are frozen, so that no submission sees them.
        pretrained: The values that parameters start from, by name; None where all are drawn.
        metrics_logger: None, or an object with `append_scalar_metrics(metrics, global_step)`, which
            records training scalars.
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
        model_inputs: Sequence[str] = ("inputs",),
        pretrained: Mapping[str, Any] | None = None,
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
        self.model_inputs = ("inputs", "targets") if feeds_targets else tuple(model_inputs)
        self.frozen_count = 0  # of the model's numbers, those that no submission sees
        self.pretrained = pretrained  # what parameters start from, by name
        self.metrics_logger: Any = None  # None, or has append_scalar_metrics(dict, global_step)

    def seal(self) -> None:
        """Make the workload read-only, except for `metrics_logger`.

        A submission receives a sealed workload: setting any other attribute raises AttributeError.
        """
        object.__setattr__(self, "_is_sealed", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_is_sealed", False) and name != "metrics_logger":
            raise AttributeError(f"the workload is read-only: {name} cannot be set")
        object.__setattr__(self, name, value)

    @property
    @abc.abstractmethod
    def param_shapes(self) -> ParameterShapeTree:
        """The parameters' tree with a `ShapeTuple` for each parameter."""

    @property
    @abc.abstractmethod
    def model_params_types(self) -> ParameterTypeTree:
        """The parameters' tree with a `ParameterType` for each parameter."""

    @abc.abstractmethod
    def init_model_fn(self, rng: RandomState) -> ModelInitState:
        """Return freshly initialised parameters and model state.

        Args:
            rng: The random state that the initial values are drawn from.

        Returns:
            The parameters, and the model's auxiliary state (None if it has none).
        """

    def changed_frozen(self, params: ParameterContainer, model_state: ModelAuxiliaryState) -> bool:
        """Return whether any frozen parameter differs from its initial value.

        A workload without frozen parameters returns False.
        """
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
        """Run the model on one batch and return its logits and its new auxiliary state.

        Args:
            params: The model's parameters.
            augmented_and_preprocessed_input_batch: The batch: arrays by name, 'inputs' among them,
                and whatever else `model_inputs` names.
            model_state: What `init_model_fn`, or the last call that updated it, returned.
            mode: Whether this is a forward pass of training (with dropout) or of evaluation.
            rng: The random state that dropout draws from, in JAX.
            update_batch_norm: Whether batch norm's running statistics take in this batch's. They
                can only where the batch's are used: without batch statistics nothing changes.
            dropout_rate: The dropout rate; None means the workload's own default. In JAX it may be
                a traced value.
            use_running_average_bn: Whether batch norm uses its running statistics (True) or the
                batch's (False). None: the batch's in training, the running ones in evaluation.

        Returns:
            The logits, and the model's auxiliary state. JAX: the state that was given stays as it
            is. PyTorch: the running statistics are buffers of the module, updated in place.
        """
        train = mode is ForwardPassMode.TRAIN
        use_running = not train if use_running_average_bn is None else use_running_average_bn
        rate = self.dropout_rate if dropout_rate is None else dropout_rate
        return self.apply(
            params,
            model_inputs(self.model_inputs, augmented_and_preprocessed_input_batch),
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
        """Run one forward pass of the framework's model.

        Args:
            params: The model's parameters.
            inputs: The model's input; a tuple where `model_inputs` names several arrays.
            model_state: The model's auxiliary state, or None.
            rng: The random state that dropout draws from.
            train: Whether the pass is one of training, so that dropout acts.
            dropout_rate: The dropout rate.
            use_running_average: Whether batch norm uses its running statistics.
            update_statistics: Whether they take in the batch's; only where those are used.

        Returns:
            The logits, and the model's new auxiliary state.
        """

    def per_example_loss(
        self, label_batch: Tensor, logits_batch: Tensor, label_smoothing: float
    ) -> Tensor:
        """Return the loss of each example, without a mask.

        Where labels have more axes than the batch's, it is the loss of each token or of each task.
        See `losses.per_example` for the formulas and the shapes.

        Args:
            label_batch: The labels.
            logits_batch: The model's outputs.
            label_smoothing: The share of smoothing, from 0 to 1.
        """
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
        """Return the loss of a batch, summed and by example, not reduced over devices.

        Args:
            label_batch: The labels.
            logits_batch: The model's outputs.
            mask_batch: The weight of each example, 0 for one that does not count; None counts all.
            label_smoothing: The share of smoothing, from 0 to 1.

        Returns:
            A dict of 'summed', the sum of the masked losses; 'n_valid_examples', the sum of the
            mask (of CTC, over the labels of each example, and at least 1); and 'per_example', the
            masked losses.
        """
        per_example = self.per_example_loss(label_batch, logits_batch, label_smoothing)
        counts = losses.example_counts(self.loss_type, label_batch)
        return losses.reduce_masked(per_example, mask_batch, counts)

    def mean_loss(
        self,
        label_batch: Tensor,
        logits_batch: Tensor,
        mask_batch: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Return the mean loss over the examples that count.

        It is `loss_fn`'s 'summed' divided by its 'n_valid_examples', and the loss on which the
        optimizer form trains. The arguments are those of `loss_fn`.
        """
        loss = Workload.loss_fn(self, label_batch, logits_batch, mask_batch, label_smoothing)
        return loss["summed"] / loss["n_valid_examples"]

    def output_activation_fn(self, logits_batch: Tensor) -> Tensor:
        """Return the model's predictions from its logits.

        These are probabilities for the cross-entropy losses (by softmax or sigmoid), and the logits
        themselves for any other loss, such as that of a regression.
        """
        match self.loss_type:
            case LossType.SOFTMAX_CROSS_ENTROPY:
                return self.ops.softmax(logits_batch)
            case LossType.SIGMOID_CROSS_ENTROPY:
                return self.ops.sigmoid(logits_batch)
        return logits_batch

    def is_output_params(self, param_key: ParameterKey) -> bool:
        """Return whether a parameter belongs to the output layer.

        Args:
            param_key: The parameter's path, joined by '/' or '.', or the name of a top-level
                module.
        """
        return self.output_layer in param_key.replace(".", "/").split("/")


def model_inputs(names: Sequence[str], batch: Mapping[str, Any]) -> Any:
    """Return what of a batch a model is called with.

    Args:
        names: The names of the arrays.
        batch: The batch, arrays by name.

    Returns:
        The array itself where there is one name, else a tuple in their order.
    """
    inputs = tuple(batch[name] for name in names)
    return inputs[0] if len(inputs) == 1 else inputs


def make_hyperparameters(point: Mapping[str, Any]) -> Any:
    """Return a tuning point as a namedtuple that remembers which of its fields were read.

    `unread` tells which were not. Calling `_asdict` counts as reading all of them.

    Args:
        point: The hyperparameters' values by name.
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
    """Return the names of the hyperparameters that nobody has read so far.

    Args:
        hyperparameters: A namedtuple from `make_hyperparameters`.
    """
    return [name for name in hyperparameters._fields if name not in hyperparameters.names_read]

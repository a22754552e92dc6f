"""PyTorch behind the functions of `Backend`: an nn.Module as container, torch.optim updates, one
device.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from algoperf import spec
from algoperf.backends import generation, shared, torch_batch_norm, torch_shards, torch_tuning
from algoperf.backends.computation import Computation
from algoperf.backends.ranks import ALONE, Ranks
from algoperf.backends.torch_computation import autocast, checkpoint_blocks
from algoperf.backends.torch_decoding import TorchDecoder
from algoperf.backends.torch_devices import TorchRanks, bare
from algoperf.backends.torch_losses import OPS
from algoperf.backends.torch_optimizer_form import OptimizerForm
from algoperf.errors import UserError
from algoperf.workload import Data, Scale, WorkloadDefinition, parameters, trainable

LEAVES = {
    nn.Embedding: "embedding",
    nn.GroupNorm: "scale",
    nn.LayerNorm: "scale",
    nn.RMSNorm: "scale",
    nn.modules.batchnorm._BatchNorm: "scale",
}
BUFFERS = {"running_mean": "mean", "running_var": "var"}


def neutral_names(module: nn.Module) -> dict[str, str]:
    """PyTorch's name of every parameter and running statistic -> its name by paths, as
    flax has it.
    """
    names = {}
    for path, child in module.named_modules():
        weight = next((leaf for kind, leaf in LEAVES.items() if isinstance(child, kind)), "kernel")
        own = [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]
        for leaf, _ in own:
            neutral = weight if leaf == "weight" else BUFFERS.get(leaf, leaf)
            torch_name = f"{path}.{leaf}" if path else leaf
            names[torch_name] = "/".join([*path.split("."), neutral] if path else [neutral])
    return names


class TorchWorkload(spec.Workload):
    """A PyTorch module bound to its workload's facts; the module itself is the
    parameter container.

    Of a technique (see `algoperf.workload.trainable`) the module's parameters are what trains, and
    what is frozen are buffers. So are batch norm's running statistics, and the model state is None.
    """

    ops = OPS

    def __init__(
        self,
        facts: dict[str, Any],
        model: nn.Module,
        initial_rule: shared.InitialRule,
        device: torch.device,
        compile_model: bool,
        precision: str,
        technique: str | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(**facts)
        names = neutral_names(model)
        statistics = {names[name] for name in torch_batch_norm.names(model)}
        shapes = torch_tuning.shapes(model, names)
        self._own_shapes = {name: shapes[name] for name in shapes if name not in statistics}
        self.statistic_shapes = {name: shapes[name] for name in shapes if name in statistics}
        self._set = trainable.bind(technique, self._own_shapes, self.is_output_params)
        torch_tuning.tune(model, self._set, names)
        self.frozen_count = sum(math.prod(self._own_shapes[name]) for name in self._set.frozen)
        self._frozen_sum = shared.FrozenSum()
        self._model = model.to(device)
        self._batch_norms = torch_batch_norm.layers(model)
        self.autocast = functools.partial(autocast, precision, device)
        self._names = neutral_names(model)
        # What a submission gets: on several devices it adds gradients up as they are computed.
        self._ranks = ranks
        self._container = ranks.container(model) if isinstance(ranks, TorchRanks) else model
        self._initial_rule = initial_rule
        self._forward: Callable[..., torch.Tensor] | None = (
            torch.compile(model) if compile_model else None
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter in JAX's layout by name, those that are frozen as well."""
        return {**self._own_shapes, **self._set.added}

    @property
    def parameters(self) -> spec.Parameters:
        """The named parameters, with their tensors, that an optimizer-form submission sees."""
        tensors = {self._names[name]: value for name, value in self._model.named_parameters()}
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        return parameters.describe(shapes, self.is_output_params, tensors)

    @property
    def param_shapes(self) -> spec.ParameterShapeTree:
        """Name -> `ShapeTuple`, under PyTorch's names; on several devices as the container has
        them, each after `module.`, which is how AlgoPerf has them.
        """
        return {
            name: spec.ShapeTuple(tuple(value.shape))
            for name, value in self._container.named_parameters()
        }

    @property
    def model_params_types(self) -> spec.ParameterTypeTree:
        """Name -> `ParameterType`, under PyTorch's names."""
        return {
            name: parameters.parameter_type(neutral, tuple(value.shape))
            for neutral, (name, value) in zip(
                self.parameters, self._container.named_parameters(), strict=True
            )
        }

    def init_model_fn(self, rng: spec.RandomState) -> spec.ModelInitState:
        """Return (the module with fresh parameters and running statistics, None)."""
        shapes = {**self._own_shapes, **self.statistic_shapes}
        self.from_neutral(
            shared.initial_values(self, self._initial_rule, shapes, rng, self._set.added)
        )
        torch_batch_norm.restart_counts(self._batch_norms)
        self._frozen_sum.start(self._frozen_values(self._model))
        return self._container, None

    def changed_frozen(self, params: nn.Module, model_state: spec.ModelAuxiliaryState) -> bool:
        """Whether a frozen parameter is not what it started as."""
        return self._frozen_sum.differs(self._frozen_values(params))

    def _frozen_values(self, params: nn.Module) -> dict[str, np.ndarray]:
        return torch_tuning.values(bare(params), self._names, self._set.frozen)

    def from_neutral(self, values: Mapping[str, np.ndarray]) -> nn.Module:
        """Load NumPy arrays by name, in JAX's layout, into the module and return it; they may be
        parameters and running statistics, and what is not given stays.
        """
        own = self._model.state_dict()
        state = {
            torch_name: torch_shards.divided(
                torch.tensor(parameters.to_torch(name, values[name])), own.get(torch_name)
            )
            for torch_name, name in self._names.items()
            if name in values
        }
        self._model.load_state_dict(state, strict=False)
        return self._container

    def state_from_neutral(self, values: Mapping[str, np.ndarray]) -> spec.ModelInitState:
        """Return (parameters, model state) of arrays by name, in JAX's layout: all of `shapes`
        and of `statistic_shapes`.
        """
        names = [*self.shapes, *self.statistic_shapes]
        return self.from_neutral({name: values[name] for name in names}), None

    def state_to_neutral(
        self, params: nn.Module, model_state: spec.ModelAuxiliaryState
    ) -> dict[str, np.ndarray]:
        """The inverse of `state_from_neutral`."""
        return self._neutral(params, {*self.shapes, *self.statistic_shapes})

    def to_neutral(self, params: nn.Module) -> dict[str, np.ndarray]:
        """Return NumPy arrays by name, in JAX's layout, of the parameters that train."""
        return self._neutral(params, self.shapes.keys() - self._set.frozen)

    @property
    def folded_names(self) -> set[str]:
        """The names of what `folded` returns; see `Trainable.folded_names`."""
        return self._set.folded_names(self.shapes) | self.statistic_shapes.keys()

    def folded(
        self, params: nn.Module, model_state: spec.ModelAuxiliaryState
    ) -> dict[str, np.ndarray]:
        """Return the model's own parameters and running statistics by name, in JAX's layout; see
        `Trainable.folded`.
        """
        return self._set.folded(self.state_to_neutral(params, model_state))

    def _neutral(self, params: nn.Module, wanted: Collection[str]) -> dict[str, np.ndarray]:
        values = torch_tuning.values(bare(params), self._names, wanted)
        return {name: parameters.from_torch(name, value.copy()) for name, value in values.items()}

    def apply(
        self,
        params: spec.ParameterContainer,
        inputs: spec.Tensor,
        model_state: spec.ModelAuxiliaryState,
        rng: spec.RandomState,
        train: bool,
        dropout_rate: float,
        *,
        use_running_average: bool = True,
        update_statistics: bool = False,
    ) -> tuple[spec.Tensor, spec.ModelAuxiliaryState]:
        """Return (logits, model_state); outside training no gradient is kept. The module's running
        statistics are updated in place.
        """
        if params.training is not train:
            params.train(train)
        if self._batch_norms:
            own = params is self._container
            torch_batch_norm.switch(
                self._batch_norms if own else torch_batch_norm.layers(params),
                use_running_average=use_running_average,
                update_statistics=update_statistics,
            )
        forward = self._forward if self._forward is not None and params is self._model else params
        with torch.set_grad_enabled(train and torch.is_grad_enabled()):
            with self.autocast():
                logits = forward(inputs, dropout_rate=dropout_rate)
            if isinstance(logits, tuple):  # with their paddings
                return tuple(each.float() for each in logits), model_state
            return logits.float(), model_state

    def loss_fn(
        self,
        label_batch: torch.Tensor,
        logits_batch: torch.Tensor,
        mask_batch: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, torch.Tensor]:
        """As in the base class; 'n_valid_examples' is a tensor on the device, as AlgoPerf's is."""
        loss: dict[str, Any] = super().loss_fn(
            label_batch, logits_batch, mask_batch, label_smoothing
        )
        counted = torch.as_tensor(loss["n_valid_examples"], device=loss["summed"].device)
        return {**loss, "n_valid_examples": counted}

    def mean_loss(
        self,
        label_batch: torch.Tensor,
        logits_batch: torch.Tensor,
        mask_batch: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """As in the base class; the common case by one fused operation, some 50 us faster.

        On several devices a process has a share of the batch: the mean of what they get is the mean
        loss of the whole batch, as the mean of their gradients is its gradient.
        """
        if isinstance(self._ranks, TorchRanks):
            batch = {"targets": label_batch, "weights": mask_batch}
            whole = shared.whole_of(self, batch, self._ranks.count, self._ranks.summed)
            if whole.weight_sum is not None:
                parts = self.loss_fn(label_batch, logits_batch, mask_batch, label_smoothing)
                own: torch.Tensor = shared.share_of(parts, mask_batch, whole)
                return own * self._ranks.count
        softmax = self.loss_type is spec.LossType.SOFTMAX_CROSS_ENTROPY
        if mask_batch is None and softmax and label_batch.ndim == 1:
            return nn.functional.cross_entropy(
                logits_batch, label_batch.long(), label_smoothing=label_smoothing
            )
        loss: torch.Tensor = super().mean_loss(
            label_batch, logits_batch, mask_batch, label_smoothing
        )
        return loss


class TorchBackend:
    """The functions of `Backend` for PyTorch."""

    name = "pytorch"
    steps_together = 1  # to wait for an event costs next to nothing, and on the CPU nothing queues

    def __init__(
        self, *, compile_model: bool, computation: Computation, ranks: Ranks = ALONE
    ) -> None:
        self._computation = computation
        self.ranks = ranks
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if isinstance(ranks, TorchRanks):
            self._device = ranks.device
        self._compile_model = compile_model
        self._cuda = self._device.type == "cuda"
        if computation.offload and not self._cuda:
            raise UserError(
                "--offload: PyTorch has no accelerator here, and a processor's memory is the "
                "host's already; leave it out"
            )

    def workload(
        self,
        definition: WorkloadDefinition,
        scale: Scale,
        source: str,
        data: Data,
        pretrained: Mapping[str, np.ndarray] | None = None,
    ) -> TorchWorkload:
        """Build the module and bind it to the facts."""
        settings, initial_rule = shared.model_settings(definition, scale, data)
        model = definition.build_model("torch", settings)
        if self._computation.checkpoint_activations:
            checkpoint_blocks(model)
        facts = {**definition.facts(scale, source, data), "pretrained": pretrained}
        bound = TorchWorkload(
            facts,
            model,
            initial_rule,
            self._device,
            self._compile_model,
            self._computation.precision,
            scale.trainable,
            self.ranks,
        )
        self._computation.check_blocks(list(bound.shapes))
        return bound

    def random_state(self, pair: tuple[int, int]) -> tuple[int, int]:
        """Return the pair itself."""
        return pair

    def seed(self, pair: tuple[int, int]) -> None:
        """Seed the global generator, from which dropout draws: each rank other numbers."""
        torch.manual_seed((pair[0] << 32 | pair[1]) + self.ranks.rank)

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Put the batch on the device."""
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        if not self._cuda:
            return tensors
        return {
            name: value.pin_memory().to(self._device, non_blocking=True)
            for name, value in tensors.items()
        }

    def settle(self, state: Any, beside: Any = None) -> Any:
        """Return the state."""
        return state

    def drain(self, *trees: Any) -> None:
        """Wait for the CUDA device; the CPU has always finished."""
        if self._cuda:
            torch.cuda.synchronize(self._device)

    def marker(self, params: Any) -> Any:
        """Return an event at the end of what is queued; None on the CPU."""
        if not self._cuda:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def wait(self, marker: Any) -> None:
        """Wait for the event."""
        if marker is not None:
            marker.synchronize()

    def checksum(self, params: nn.Module, model_state: Any = None) -> int:
        """Return the CRC-32 of all parameters and running statistics, one after another."""
        return shared.checksum(_arrays(params))

    def is_finite(self, params: nn.Module, model_state: Any = None) -> bool:
        """Return whether all parameters and running statistics are finite."""
        return shared.is_finite(_arrays(params))

    def compiled_s(self) -> float:
        """Return 0: PyTorch does not tell."""
        return 0.0

    def predict(self, workload: spec.Workload, params: Any, model_state: Any, batch: Any) -> Any:
        """Return (per-example loss, predictions)."""
        with torch.no_grad():
            return shared.prediction(workload, params, model_state, batch)

    def generate(
        self,
        workload: TorchWorkload,
        params: Any,
        model_state: Any,
        sources_BS: np.ndarray,
        settings: generation.GenerationSettings,
    ) -> list[list[int]]:
        """Return the tokens that the model writes for each row."""
        decoder = TorchDecoder(params)
        with workload.autocast():
            return generation.generate(decoder, sources_BS, settings).tokens

    def fetch(self, tree: Any) -> Any:
        """Return the tree (of dicts, lists and tuples) with NumPy arrays."""
        if isinstance(tree, torch.Tensor):
            fetched = tree.detach().cpu()
            # NumPy has no bfloat16.
            return (fetched.float() if fetched.dtype is torch.bfloat16 else fetched).numpy()
        if isinstance(tree, Mapping):
            return {key: self.fetch(value) for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            return type(tree)(self.fetch(value) for value in tree)
        return tree

    def signature(
        self, params: nn.Module, model_state: Any = None
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, type)."""
        named = _tensors(params)  # Of a divided one the shape is that of the whole.
        return {name: (tuple(value.shape), str(value.dtype)) for name, value in named.items()}

    def write(self, params: nn.Module, model_state: Any, into: Mapping[str, np.ndarray]) -> None:
        """Copy the parameters and running statistics into these bytes, by name."""
        for name, tensor in _tensors(params).items():
            value = torch_shards.whole(tensor.detach())
            if name in into:
                _as_tensor(into[name], value).copy_(value)

    def read(
        self, params: nn.Module, model_state: Any, values: Mapping[str, np.ndarray]
    ) -> tuple[nn.Module, Any]:
        """Return the module, which holds these bytes, by name, from now on."""
        for name, tensor in _tensors(params).items():
            value = _as_tensor(values[name], tensor)
            if self._cuda:
                tensor.data.copy_(value)
            else:
                tensor.data = value  # it need not be copied: it is in this memory
        return params, model_state

    def optimizer_form(
        self, functions: shared.OptimizerFunctions, settings: shared.StepSettings
    ) -> OptimizerForm:
        """Return the submission as the functions of the full form."""
        return OptimizerForm(functions, settings, self._computation, self.ranks)

    def on_each_device(self) -> "list[TorchBackend]":
        """Return itself: each device has a process of its own."""
        return [self]

    def threads(self) -> int:
        """Return the number of threads that PyTorch computes one operation with."""
        return torch.get_num_threads()

    def peak_device_memory_bytes(self) -> int | None:
        """Return the most CUDA memory that the allocator held; None on the CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._cuda else None

    def free_device_memory_bytes(self) -> int | None:
        """Return what CUDA has free, for every process; None on the CPU."""
        return torch.cuda.mem_get_info(self._device)[0] if self._cuda else None


def _arrays(params: nn.Module) -> Iterator[np.ndarray]:
    values = _tensors(params).values()
    return (torch_shards.whole(value.detach()).cpu().numpy() for value in values)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and running statistics by PyTorch's names."""
    model = bare(module)
    return {**dict(model.named_parameters()), **torch_batch_norm.statistics(model)}


def _as_tensor(content: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return the tensor that these bytes are, of another's type and shape."""
    return torch.from_numpy(content).view(like.dtype).view(like.shape)


def make(*, compile_model: bool, computation: Computation, ranks: Ranks = ALONE) -> TorchBackend:
    """Return the backend."""
    return TorchBackend(compile_model=compile_model, computation=computation, ranks=ranks)

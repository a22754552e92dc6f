"""JAX behind the functions of `Backend`: flax models, optax updates, arrays laid out over the local
devices.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax.experimental import multihost_utils

from algoperf import errors, jax_sharding_utils, spec
from algoperf.backends import generation, jax_tuning, shared
from algoperf.backends.computation import Computation
from algoperf.backends.jax_computation import TYPES, cast, checkpointed_blocks, unshared
from algoperf.backends.jax_decoding import JaxDecoder
from algoperf.backends.jax_layout import Layout
from algoperf.backends.jax_losses import OPS
from algoperf.backends.jax_optimizer_form import OptimizerForm
from algoperf.backends.ranks import ALONE, Ranks
from algoperf.machine import environment, hardware
from algoperf.workload import Data, Scale, WorkloadDefinition, parameters, trainable

FROZEN = "frozen"


class JaxWorkload(spec.Workload):
    """A flax model bound to its workload's facts; parameters are nested dicts of arrays.

    Of a technique (see `algoperf.workload.trainable`) the parameters are what trains; what is
    frozen is the model state's `FROZEN`, which a step returns as it came. A model with batch norm
    has its running statistics in flax's collection `batch_stats`, which is in the model state under
    that name; such a model is called with the keyword `use_running_average` as well.
    """

    ops = OPS

    def __init__(
        self,
        facts: dict[str, Any],
        model: nn.Module,
        sample_inputs: Any,
        initial_rule: shared.InitialRule,
        layout: Layout,
        computation: Computation,
        technique: str | None = None,
    ) -> None:
        super().__init__(**facts)
        self._computation = computation
        self._initial_rule = initial_rule
        self._layout = layout
        init = functools.partial(model.init, train=False, dropout_rate=0.0)
        variables = jax.eval_shape(init, jax.random.PRNGKey(0), sample_inputs)
        self._shapes = {
            collection: {
                name: value.shape
                for name, value in traverse_util.flatten_dict(tree, sep="/").items()
            }
            for collection, tree in variables.items()
        }
        own = self._shapes["params"]
        self._set = trainable.bind(technique, own, self.is_output_params)
        self.model = jax_tuning.tuned(model, self._set)
        self.frozen_count = sum(math.prod(own[name]) for name in self._set.frozen)
        self._frozen_sum = shared.FrozenSum()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by name, those that are frozen as well."""
        return {**self._shapes["params"], **self._set.added}

    @property
    def parameters(self) -> spec.Parameters:
        """The named parameters that an optimizer-form submission sees."""
        shapes = {name: each for name, each in self.shapes.items() if name not in self._set.frozen}
        return parameters.describe(shapes, self.is_output_params)

    @property
    def param_shapes(self) -> spec.ParameterShapeTree:
        """Nested dict of `ShapeTuple`."""
        return self.parameters.tree(lambda parameter: spec.ShapeTuple(parameter.shape))

    @property
    def model_params_types(self) -> spec.ParameterTypeTree:
        """Nested dict of `ParameterType`."""
        return self.parameters.tree(lambda parameter: parameter.type)

    def init_model_fn(self, rng: spec.RandomState) -> spec.ModelInitState:
        """Return (parameters, model state), laid out over the devices: running statistics are whole
        on each.
        """
        high, low = (int(word) for word in np.asarray(rng))
        shapes = {**self._shapes["params"], **self.statistic_shapes}
        params, model_state = self.state_from_neutral(
            shared.initial_values(self, self._initial_rule, shapes, (high, low), self._set.added)
        )
        self._frozen_sum.start(self.to_neutral((model_state or {}).get(FROZEN, {})))
        return params, model_state

    @property
    def statistic_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every running statistic of batch norm by name, as `batch_norm_0/mean`."""
        return {
            name: shape
            for collection, shapes in self._shapes.items()
            if collection != "params"
            for name, shape in shapes.items()
        }

    def state_from_neutral(self, values: Mapping[str, np.ndarray]) -> spec.ModelInitState:
        """Return (parameters, model state) of arrays by name, in JAX's layout: all of `shapes`
        and of `statistic_shapes`.
        """
        params, frozen = self.split({name: values[name] for name in self.shapes})
        state = {
            collection: jax_sharding_utils.replicate(
                traverse_util.unflatten_dict({name: values[name] for name in shapes}, sep="/")
            )
            for collection, shapes in self._shapes.items()
            if collection != "params"
        }
        return params, state | ({FROZEN: frozen} if frozen else {}) or None

    def state_to_neutral(
        self, params: Any, model_state: spec.ModelAuxiliaryState
    ) -> dict[str, np.ndarray]:
        """The inverse of `state_from_neutral`."""
        values = self.to_neutral(self.whole(params, model_state))
        for tree in statistics(model_state).values():
            values |= self.to_neutral(tree)
        return values

    def split(self, values: Mapping[str, np.ndarray]) -> tuple[Any, Any]:
        """Return (parameters that train, frozen ones) of NumPy arrays by name, in JAX's layout."""
        parts: tuple[dict[str, np.ndarray], ...] = ({}, {})
        for name, value in values.items():
            parts[name in self._set.frozen][name] = value
        trained, frozen = (self.from_neutral(part) for part in parts)
        return trained, frozen

    def changed_frozen(self, params: Any, model_state: spec.ModelAuxiliaryState) -> bool:
        """Whether a frozen parameter is not what it started as."""
        return self._frozen_sum.differs(self.to_neutral((model_state or {}).get(FROZEN, {})))

    def whole(self, params: Any, model_state: spec.ModelAuxiliaryState) -> Any:
        """Return all of the model's parameters, those that are frozen as well."""
        frozen = (model_state or {}).get(FROZEN)
        return jax_tuning.merged(params, frozen) if frozen else params

    def from_neutral(self, values: Mapping[str, np.ndarray]) -> Any:
        """Return a nested dict of parameters from NumPy arrays by name, in JAX's layout."""
        tree = traverse_util.unflatten_dict(dict(values), sep="/")
        return jax_sharding_utils.place(tree, self._layout.of_params(tree))

    def to_neutral(self, params: Any) -> dict[str, np.ndarray]:
        """Return NumPy arrays by name, in JAX's layout."""
        flat = traverse_util.flatten_dict(params, sep="/")
        return {name: whole(value) for name, value in flat.items()}

    @property
    def folded_names(self) -> set[str]:
        """The names of what `folded` returns; see `Trainable.folded_names`."""
        return self._set.folded_names(self.shapes) | self.statistic_shapes.keys()

    def folded(self, params: Any, model_state: spec.ModelAuxiliaryState) -> dict[str, np.ndarray]:
        """Return the model's own parameters and running statistics by name, in JAX's layout; see
        `Trainable.folded`.
        """
        return self._set.folded(self.state_to_neutral(params, model_state))

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
        """Return (logits, the model state, with new running statistics where they are updated).

        Running statistics stay float32 whatever the run's precision.
        """
        running = statistics(model_state)
        # flax's own batch norm writes its update whenever it uses the batch's statistics.
        is_written = bool(running) and not use_running_average
        again = train and self._computation.checkpoint_activations
        with checkpointed_blocks() if again else contextlib.nullcontext():
            outputs, updated = self.model.apply(
                {"params": self.lowered(self.whole(params, model_state)), **running},
                self.lowered(inputs),
                train=train,
                dropout_rate=dropout_rate,
                **({"use_running_average": use_running_average} if running else {}),
                rngs={"dropout": rng} if train else None,
                mutable=list(running) if is_written else ["none"],
            )
        outputs = outputs if self._computation.precision == "float32" else cast(outputs, np.float32)
        is_updated = is_written and update_statistics
        return outputs, {**model_state, **updated} if is_updated else model_state

    def lowered(self, tree: Any) -> Any:
        """The tree in the run's precision: as it is, where that is float32."""
        precision = self._computation.precision
        return tree if precision == "float32" else cast(tree, TYPES[precision])


def statistics(model_state: spec.ModelAuxiliaryState) -> dict[str, Any]:
    """The running statistics in a model state, by their collection."""
    if not isinstance(model_state, Mapping):
        return {}
    return {name: each for name, each in model_state.items() if name != FROZEN}


class _Compiling:
    """Adds up what JAX's monitoring tells of its compilations, from this module's import on."""

    EVENTS = frozenset(
        f"/jax/core/compile/{name}_duration" for name in ("jaxpr_to_mlir_module", "backend_compile")
    )

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in self.EVENTS:
            self.seconds += duration_secs


_compiling = _Compiling()


class JaxBackend:
    """The functions of `Backend` for JAX."""

    name = "jax"

    def __init__(self, computation: Computation, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self._computation = computation
        self._devices = jax.local_devices()
        # Collectives of many queued steps have stalled on several devices of a processor.
        self.steps_together = 4 if jax.device_count() == 1 else 1
        self._layout = Layout(ranks.shard, computation.offload)
        self._sharded = jax_sharding_utils.get_batch_dim_sharding()
        self._first_value: Callable[[Any], Any] = jax.jit(lambda leaf: leaf.reshape(-1)[:1])
        self._smallest: dict[int, int] = {}
        self._predict = jax.jit(shared.prediction, static_argnums=0)
        # A jitted identity places a batch in a third of device_put's time on the host, which a
        # small model feels.
        self._placed = jax.jit(
            lambda batch: batch, in_shardings=self._sharded, out_shardings=self._sharded
        )

    def workload(
        self,
        definition: WorkloadDefinition,
        scale: Scale,
        source: str,
        data: Data,
        pretrained: Mapping[str, np.ndarray] | None = None,
    ) -> JaxWorkload:
        """Build the flax model and bind it to the facts."""
        settings, initial_rule = shared.model_settings(definition, scale, data)
        model = definition.build_model("jax", settings)
        sample_inputs = shared.sample_inputs(definition, data)
        facts = {**definition.facts(scale, source, data), "pretrained": pretrained}
        bound = JaxWorkload(
            facts,
            model,
            sample_inputs,
            initial_rule,
            self._layout,
            self._computation,
            scale.trainable,
        )
        self._computation.check_blocks(list(bound.shapes))
        return bound

    def random_state(self, pair: tuple[int, int]) -> np.ndarray:
        """Return a raw PRNG key."""
        return np.array(pair, np.uint32)

    def seed(self, pair: tuple[int, int]) -> None:
        """Nothing to do: JAX has no global generator."""

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Shard the batch over the devices along its first axis; of several processes each gives
        the rows of its own devices.
        """
        rows = len(next(iter(batch.values())))
        if rows % len(self._devices):
            raise errors.UserError(
                f"a batch of {rows * self.ranks.count} does not divide over {jax.device_count()} "
                "devices; choose a multiple with --batch-size"
            )
        if self.ranks.count > 1:
            part = functools.partial(jax.make_array_from_process_local_data, self._sharded)
            return {name: part(value) for name, value in batch.items()}
        placed: dict[str, jax.Array] = self._placed(dict(batch))
        return placed

    def settle(self, state: Any, beside: Any = None) -> Any:
        """Return the state with its uncommitted arrays laid out over the devices, and those that
        share memory in memory of their own; as it is, where it is no tree of JAX's.
        """

        def placed(leaf: Any) -> Any:
            is_free = isinstance(leaf, jax.Array) and not leaf.committed
            if not is_free:
                return leaf
            return jax_sharding_utils.place(leaf, self._layout.of_state(leaf))

        try:
            return unshared(jax.tree.map(placed, state), beside)
        except (TypeError, ValueError):  # a dict whose keys have no order
            return state

    def drain(self, *trees: Any) -> None:
        """Block on every array of the trees."""
        jax.block_until_ready(
            [leaf for leaf in jax.tree.leaves(trees) if isinstance(leaf, jax.Array)]
        )

    def marker(self, params: Any) -> Any:
        """Return one value copied from the smallest parameter."""
        leaves = jax.tree.leaves(params)
        count = len(leaves)  # tells the models apart that one process trains, one after another
        if count not in self._smallest:
            self._smallest[count] = min(range(count), key=lambda index: leaves[index].size)
        smallest = leaves[self._smallest[count]]
        if not smallest.is_fully_addressable:  # Others may be at another step.
            smallest = smallest.addressable_data(0)
        return self._first_value(smallest)

    def wait(self, marker: Any) -> None:
        """Block on the marker."""
        marker.block_until_ready()

    def checksum(self, params: Any, model_state: Any = None) -> int:
        """Return the CRC-32 of all parameters and running statistics, one after another."""
        return shared.checksum(_arrays(params, model_state))

    def is_finite(self, params: Any, model_state: Any = None) -> bool:
        """Return whether all parameters and running statistics are finite."""
        return shared.is_finite(_arrays(params, model_state))

    def compiled_s(self) -> float:
        """Return what JAX reports of lowering and compiling (not of tracing, which it counts twice
        where functions nest).
        """
        return _compiling.seconds

    def predict(self, workload: spec.Workload, params: Any, model_state: Any, batch: Any) -> Any:
        """Return (per-example loss, predictions)."""
        return self._predict(workload, params, model_state, batch)

    def generate(
        self,
        workload: JaxWorkload,
        params: Any,
        model_state: Any,
        sources_BS: np.ndarray,
        settings: generation.GenerationSettings,
    ) -> list[list[int]]:
        """Return the tokens that the model writes for each row."""
        decoder = JaxDecoder(workload.model, workload.lowered(workload.whole(params, model_state)))
        return generation.generate(decoder, sources_BS, settings).tokens

    def fetch(self, tree: Any) -> Any:
        """Return the tree with NumPy arrays; of one that processes have parts of, the own part."""
        return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(_own_part, tree)))

    def signature(
        self, params: Any, model_state: Any = None
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, type); a running statistic's name starts with its collection's."""
        flat = _flat(params, model_state)
        return {name: (tuple(value.shape), str(value.dtype)) for name, value in flat.items()}

    def write(self, params: Any, model_state: Any, into: Mapping[str, np.ndarray]) -> None:
        """Copy the parameters and running statistics into these bytes, by name."""
        for name, array in _flat(params, model_state).items():
            value = whole(array)  # Of processes each is asked for its parts, in the same order.
            if name in into:
                into[name].view(value.dtype).reshape(value.shape)[...] = value

    def read(
        self, params: Any, model_state: Any, values: Mapping[str, np.ndarray]
    ) -> tuple[Any, Any]:
        """Return (parameters, model state) that hold these bytes, by name."""

        def tree(like: Any) -> Any:
            flat = traverse_util.flatten_dict(like, sep="/")
            return traverse_util.unflatten_dict(
                {name: _as_array(values[name], array) for name, array in flat.items()}, sep="/"
            )

        running = statistics(model_state)
        return tree(params), {**model_state, **tree(running)} if running else model_state

    def optimizer_form(
        self, functions: shared.OptimizerFunctions, settings: shared.StepSettings
    ) -> OptimizerForm:
        """Return the submission as the functions of the full form."""
        return OptimizerForm(functions, settings, self._computation, self._layout)

    def on_each_device(self) -> "list[JaxBackend]":
        """Return itself where there is one device, else a backend for each of them."""
        if len(self._devices) == 1:
            return [self]
        return [_OnDevice(self, device) for device in self._devices]

    def threads(self) -> int:
        """Return the size of XLA's pool for one operation, which JAX itself does not tell."""
        return environment.xla_threads(os.environ, hardware.thread_count())

    def peak_device_memory_bytes(self) -> int | None:
        """Return the largest peak over the local devices; None where JAX does not count it (the
        CPU).
        """
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in self._devices]
        counted = [int(peak) for peak in peaks if peak is not None]
        return max(counted) if counted else None

    def free_device_memory_bytes(self) -> int | None:
        """Return the least that a local device has left of what JAX may take; None where JAX does
        not count it (the CPU).
        """
        counts = [device.memory_stats() or {} for device in self._devices]
        left = [
            int(count["bytes_limit"] - count["bytes_in_use"])
            for count in counts
            if "bytes_limit" in count
        ]
        return min(left) if left else None


class _OnDevice(JaxBackend):
    """One of several devices, which evaluates beside the others.

    Args:
        whole: The backend of all devices of this process.
        device: The device.
    """

    def __init__(self, whole: JaxBackend, device: jax.Device) -> None:
        vars(self).update(vars(whole))  # What it compiles is compiled for each device.
        self._device = device

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Put the whole batch on the device."""
        placed: dict[str, jax.Array] = jax.device_put(dict(batch), self._device)
        return placed

    def predict(self, workload: spec.Workload, params: Any, model_state: Any, batch: Any) -> Any:
        """Return (per-example loss, predictions)."""
        return super().predict(workload, self._here(params), self._here(model_state), batch)

    def generate(
        self,
        workload: JaxWorkload,
        params: Any,
        model_state: Any,
        sources_BS: np.ndarray,
        settings: generation.GenerationSettings,
    ) -> list[list[int]]:
        """Return the tokens that the model writes for each row."""
        own, own_state = self._here(params), self._here(model_state)
        return super().generate(workload, own, own_state, sources_BS, settings)

    def _here(self, tree: Any) -> Any:
        """Return the arrays as they lie on this device, without copying what is whole on each."""

        def on_device(leaf: Any) -> Any:
            if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
                for shard in leaf.addressable_shards:
                    if shard.device == self._device:
                        return shard.data
            return jax.device_put(leaf, self._device)

        return jax.tree.map(on_device, tree)


def _arrays(params: Any, model_state: Any) -> Iterator[np.ndarray]:
    return (whole(value) for value in jax.tree.leaves((params, statistics(model_state))))


def whole(array: Any) -> np.ndarray:
    """Return an array with what all devices have of it. Where processes have parts of it each of
    them calls this, and gets the whole.
    """
    if _is_in_parts(array):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def _own_part(leaf: Any) -> Any:
    if not _is_in_parts(leaf):
        return leaf
    sharding = leaf.sharding
    return multihost_utils.global_array_to_host_local_array(leaf, sharding.mesh, sharding.spec)


def _is_in_parts(leaf: Any) -> bool:
    """Return whether several processes have parts of an array."""
    return isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    )


def _flat(params: Any, model_state: Any) -> dict[str, Any]:
    """The parameters and running statistics by name."""
    flat: dict[str, Any] = {}
    for tree in (params, statistics(model_state)):
        flat |= traverse_util.flatten_dict(tree, sep="/")
    return flat


def _as_array(content: np.ndarray, like: jax.Array) -> jax.Array:
    """Return the array that these bytes are, of another's type, shape and placement."""
    placed: jax.Array = jax.device_put(content.view(like.dtype).reshape(like.shape), like.sharding)
    return placed


def make(*, compile_model: bool, computation: Computation, ranks: Ranks = ALONE) -> JaxBackend:
    """Return the backend; JAX always compiles, so `compile_model` changes nothing, and one process
    has all devices.
    """
    return JaxBackend(computation, ranks)

"""The two frameworks behind one small set of functions (`Backend`)."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from algoperf import errors, spec
from algoperf.backends.computation import USUAL, Computation
from algoperf.backends.ranks import ALONE, Ranks
from algoperf.errors import choose

if TYPE_CHECKING:  # `algoperf --help` reads names of this package, and waits for no NumPy
    import numpy as np

    from algoperf.backends.generation import GenerationSettings
    from algoperf.workload import Data, Scale, WorkloadDefinition

FRAMEWORKS = {"jax": ("jax", "flax", "optax"), "pytorch": ("torch",)}
MODULES = {"jax": "jax_backend", "pytorch": "torch_backend"}
DEVICES = {"jax": "jax_devices", "pytorch": "torch_devices"}
# What a framework imports when its first optimizer is made, which takes a second.
IMPORTED_LATE = {"jax": (), "pytorch": ("torch._dynamo",)}


class Backend(Protocol):
    """What the training loop asks of a framework. Arrays and trees are the framework's own."""

    name: str
    steps_together: int  # how many quick steps the host may be ahead of the device
    ranks: Ranks  # the processes that train together

    def workload(
        self,
        definition: "WorkloadDefinition",
        scale: "Scale",
        source: str,
        data: "Data",
        pretrained: "Mapping[str, np.ndarray] | None" = None,
    ) -> spec.Workload:
        """Build the model and bind it to the facts.

        Args:
            definition: The workload.
            scale: The scale at which the model is built.
            source: The kind of the rows, which chooses the target: 'builtin', 'hub' or 'folder'.
            data: The rows; the model is built for the first of them.
            pretrained: Values that parameters start from, by name in JAX's layout; those that are
                not among them are drawn.
        """
        ...

    def random_state(self, pair: tuple[int, int]) -> spec.RandomState:
        """Return the framework's random state from two unsigned 32-bit integers."""
        ...

    def seed(self, pair: tuple[int, int]) -> None:
        """Seed the framework's global generator, where it has one."""
        ...

    def place(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Put a batch of NumPy arrays on the device (JAX: sharded over the local devices)."""
        ...

    def settle(self, state: Any, beside: Any = None) -> Any:
        """Return an optimizer state with its arrays where a step would leave them, if they are
        nowhere in particular yet: a step that jit compiled for the one would be compiled once more
        for the other.

        Args:
            state: The optimizer state.
            beside: The parameters and the model state. A step may donate them together with the
                optimizer state, so JAX's arrays share no memory with them afterwards.
        """
        ...

    def drain(self, *trees: Any) -> None:
        """Return when the device has finished everything that was asked of it."""
        ...

    def marker(self, params: Any) -> Any:
        """Return something small that becomes ready when `params` are, and outlives
        their donation.
        """
        ...

    def wait(self, marker: Any) -> None:
        """Return when the marker is ready."""
        ...

    def checksum(self, params: Any, model_state: Any = None) -> int:
        """Return a checksum of the bytes of the parameters and of the running batch statistics
        (JAX: those in `model_state`; PyTorch: those in the module).
        """
        ...

    def is_finite(self, params: Any, model_state: Any = None) -> bool:
        """Return whether all parameters and running batch statistics are finite."""
        ...

    def compiled_s(self) -> float:
        """Return the seconds that the framework has spent compiling so far in this process; 0 where
        it does not tell.
        """
        ...

    def predict(self, workload: spec.Workload, params: Any, model_state: Any, batch: Any) -> Any:
        """Return (per-example loss, predictions) of a placed batch, in evaluation
        mode, unfetched.
        """
        ...

    def generate(
        self,
        workload: spec.Workload,
        params: Any,
        model_state: Any,
        sources_BS: "np.ndarray",
        settings: "GenerationSettings",
    ) -> list[list[int]]:
        """Return the tokens that the model writes for each source row, without start, end and
        padding.
        """
        ...

    def fetch(self, tree: Any) -> Any:
        """Return the tree with NumPy arrays for the framework's."""
        ...

    def signature(
        self, params: Any, model_state: Any = None
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, type) of every parameter and running batch statistic, read without
        waiting for the device.
        """
        ...

    def write(self, params: Any, model_state: Any, into: "Mapping[str, np.ndarray]") -> None:
        """Copy every parameter and running batch statistic into the bytes of its name.

        Where processes have parts of the parameters each of them calls it, those that write nothing
        with nothing to write into.

        Args:
            params: The parameters, drained.
            model_state: The model state.
            into: The bytes of each, by the names of `signature`.
        """
        ...

    def read(
        self, params: Any, model_state: Any, values: "Mapping[str, np.ndarray]"
    ) -> tuple[Any, Any]:
        """Return (parameters, model state) with these bytes in place of those that they have.

        Args:
            params: Parameters of the same model: their types, shapes and placement.
            model_state: The model state beside them; what is no running statistic stays.
            values: What `write` wrote; it may be used as it is, so it is not to change as long as
                the parameters are in use.
        """
        ...

    def optimizer_form(self, functions: Any, settings: Any) -> Any:
        """Return an optimizer-form submission as the functions of the full form."""
        ...

    def on_each_device(self) -> "Sequence[Backend]":
        """Return a backend for each device of this process that evaluates on it alone: it takes the
        parameters as they lie on all of them.
        """
        ...

    def threads(self) -> int:
        """Return with how many threads the framework computes one operation on the processor."""
        ...

    def peak_device_memory_bytes(self) -> int | None:
        """Return the most device memory that this process held; None without an accelerator."""
        ...

    def free_device_memory_bytes(self) -> int | None:
        """Return the device memory that is free; None without an accelerator."""
        ...


def check_installed(framework: str) -> None:
    """Raise UserError if the framework is unknown or not installed; load nothing."""
    choose("framework", framework, list(FRAMEWORKS))
    missing = [name for name in FRAMEWORKS[framework] if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.UserError(
            f"framework {framework!r} is not installed (missing: {', '.join(missing)}); "
            f"install it with: pip install 'algoperf[{'jax' if framework == 'jax' else 'torch'}]'"
        )


def modules_of(framework: str) -> tuple[str, ...]:
    """Return the names of all modules that a trial imports for a framework, ours first."""
    return (f"algoperf.backends.{MODULES[framework]}", *IMPORTED_LATE[framework])


def join(
    framework: str,
    rank: int,
    devices: int,
    meeting: str,
    shard: str | None = None,
    processes: int | None = None,
) -> Ranks:
    """Import the framework and let this process train on several devices, with others or alone.

    In PyTorch each device has a process of its own; in JAX one process has all of them, or several
    have a share each.

    Args:
        framework: The framework; nothing of it has been computed yet.
        rank: The number of this process, from 0.
        devices: How many devices train together.
        meeting: A path of at most 100 bytes in an own folder, at which nothing is, by which the
            processes find one another.
        shard: What the devices divide among them (`algoperf.backends.ranks`).
        processes: How many processes JAX's devices are those of; None for one.

    Returns:
        The processes that train together.

    Raises:
        UserError: There are not so many devices.
    """
    module = importlib.import_module(f"algoperf.backends.{DEVICES[framework]}")
    ranks: Ranks = module.join(rank, devices, meeting, shard, processes)
    return ranks


def evaluate_on(framework: str, rank: int, devices: int) -> None:
    """Import the framework and let this process evaluate on one of so many devices; in JAX on all
    of them, before it has computed anything.

    Raises:
        UserError: There are not so many devices.
    """
    module = importlib.import_module(f"algoperf.backends.{DEVICES[framework]}")
    if framework == "jax":
        module.have(devices)
    else:
        module.take(rank, devices)


def world_size(framework: str, devices: int, processes: int | None = None) -> int:
    """Return how many processes train on so many devices.

    Args:
        framework: The framework.
        devices: How many devices there are.
        processes: How many processes JAX's are those of; None for one.
    """
    return devices if framework == "pytorch" else processes or 1


def load(
    framework: str,
    *,
    compile_model: bool = False,
    computation: Computation = USUAL,
    ranks: Ranks = ALONE,
) -> Backend:
    """Import the framework and return its backend, which computes as asked.

    Args:
        framework: 'jax' or 'pytorch'.
        compile_model: Whether the model is compiled (JAX always compiles).
        computation: How the forward and backward pass are computed.
        ranks: The processes that train together.

    Raises:
        UserError: There is no such framework, or it is not installed.
    """
    check_installed(framework)
    module = importlib.import_module(modules_of(framework)[0])
    backend: Backend = module.make(
        compile_model=compile_model, computation=computation, ranks=ranks
    )
    return backend

"""Tell apart the kinds of values that a state may hold, and read and set random generators."""

import enum
import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from algoperf.spec import Workload

_of_numpy: Any = np.random.mtrand._rand  # The generator that np.random.rand uses.
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def is_kind(value: Any, module: str, kind: str) -> bool:
    """Return whether a value is of a framework's type, without importing the framework.

    Args:
        value: The value.
        module: The module that has the type; where it is not loaded, the answer is False.
        kind: The name of the type in that module.
    """
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, kind))


def is_named_tuple(value: Any) -> bool:
    """Return whether a value is a named tuple."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def children(value: Any) -> tuple[list[Any], Any] | None:
    """Return the children and the definition of a registered JAX pytree node.

    Returns:
        None for any other value, and where JAX is not loaded.
    """
    jax = sys.modules.get("jax")
    if jax is None or jax.tree_util.all_leaves([value]):
        return None
    children, definition = jax.tree_util.tree_flatten(value, is_leaf=lambda node: node is not value)
    return list(children), definition


def label(value: Any) -> str:
    """Return the text by which a value that is not saved is recognised when it is restored."""
    kind = type(value)
    if isinstance(value, enum.Enum) or kind.__module__.partition(".")[0] in ("torch", "numpy"):
        return f"{kind.__qualname__} {value}"
    return str(getattr(value, "__qualname__", kind.__qualname__))


def is_static(value: Any) -> bool:
    """Return whether a value holds no data, so that it is taken from the fresh tree.

    Such are functions, classes, workloads, members of enums, and types and devices of arrays.
    """
    constant = isinstance(value, enum.Enum | np.dtype | Workload) or any(
        is_kind(value, "torch", kind) for kind in ("dtype", "device")
    )
    return constant or callable(value)


def article(value: Any) -> str:
    """Return the name of a value's type with its article, as 'a list'."""
    name = type(value).__qualname__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def hides(value: Any) -> bool:
    """Return whether an object has state beside its attributes.

    A subclass of `list` or an object written in C has such state. Python's own rules for copying
    objects decide.
    """
    kind: Any = type(value)
    if (kind.__reduce__, kind.__reduce_ex__) != (object.__reduce__, object.__reduce_ex__):
        return True
    if kind.__getstate__ is not object.__getstate__:
        return False  # The object chooses what is copied, so its attributes are all it has.
    try:
        copied: Any = object.__reduce_ex__(value, 2)
        _, _, attributes, *items = copied
    except TypeError:
        return True
    return isinstance(attributes, tuple) or any(each is not None for each in items)


def generator_state(value: Any) -> Any:
    """Return the state of a random generator of Python's or NumPy's as a tree.

    Returns:
        None for any other value, and for a NumPy generator whose bits come from a source that is
        not in `BIT_GENERATORS`.
    """
    if type(value) is random.Random:
        return value.getstate()
    if type(value) is np.random.RandomState:
        return value.get_state(legacy=False)
    if type(value) is np.random.Generator and bit_generator(value) in BIT_GENERATORS:
        return value.bit_generator.state
    return None


def bit_generator(value: np.random.Generator) -> str:
    """Return the name of the source from which a NumPy generator draws its bits, as 'PCG64'."""
    return type(value.bit_generator).__name__


def set_generator_state(value: Any, state: Any) -> None:
    """Set the state of a random generator to one from `generator_state`."""
    if isinstance(value, random.Random):
        value.setstate(state)
    elif isinstance(value, np.random.RandomState):
        value.set_state(state)
    else:
        value.bit_generator.state = state


def generators() -> dict[str, Any]:
    """Return the states of the global random generators.

    These are Python's, NumPy's and, where PyTorch is loaded, PyTorch's on the CPU.
    """
    torch = sys.modules.get("torch")
    states = {"python": random.getstate(), "numpy": _of_numpy.get_state(legacy=False)}
    return states if torch is None else {**states, "torch": torch.get_rng_state()}


def seed_generators(seed: int) -> None:
    """Seed the global random generators of Python and NumPy; the backend seeds PyTorch's."""
    random.seed(seed)
    _of_numpy.seed(seed % 2**32)


def set_generators(states: Mapping[str, Any]) -> None:
    """Set the global random generators to the states that `generators` returned."""
    random.setstate(states["python"])
    _of_numpy.set_state(states["numpy"])
    if "torch" in states:
        sys.modules["torch"].set_rng_state(states["torch"])

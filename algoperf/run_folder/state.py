"""Convert the state that a submission keeps between steps to named arrays and JSON, and back.

`to_arrays(tree)` returns `(arrays, structure)`: NumPy arrays by name, of types that NumPy itself
has, and a JSON value that says how they belong together. `restore(arrays, structure, fresh)`
returns the tree again. `fresh` is the same tree newly initialised. Whatever is not data comes
from it: functions, classes, the types of named tuples and dataclasses, the nodes of JAX pytrees,
and the objects that load a state. Nothing is pickled.

A tree may hold arrays (JAX, PyTorch, NumPy), numbers, strings, None, dicts, lists, tuples,
deques, named tuples, dataclasses, registered JAX pytrees, and the random generators of PyTorch,
NumPy and Python. It may hold objects with `state_dict` and `load_state_dict` (PyTorch's
optimizers, schedulers and modules), and other objects if their attributes are all that they
hold. Functions, classes and workloads are taken from `fresh`. For anything else `to_arrays`
raises UserError, which says where in the tree it is.

No framework is imported: a tree holds JAX or PyTorch values only where they are loaded already.
"""

import collections
import copy
import dataclasses
import enum
import math
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from algoperf import jax_sharding_utils
from algoperf.errors import UserError
from algoperf.run_folder import state_kinds as kinds

Arrays = Mapping[str, np.ndarray]
Structure = dict[str, Any]  # It is a JSON object.
ABSENT: Any = object()
SAVED = (
    "arrays, numbers, strings, None, dicts, lists, tuples, deques, dataclasses, JAX pytrees, "
    "functions, random generators, and objects with state_dict and load_state_dict, or with "
    "attributes that can be saved"
)
SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "deque": collections.deque}
DICTS = (dict, collections.OrderedDict, collections.Counter)
DIVIDED = ("torch.distributed.tensor", "DTensor")  # of which each process has a part
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def to_arrays(
    tree: Any, name: str = "state", *, copy: bool = True
) -> tuple[dict[str, np.ndarray], Structure]:
    """Return a tree as arrays by name and a JSON structure; the tree stays as it is.

    Args:
        tree: The state; see the module's description for what it may hold.
        name: The name of the tree's root, with which the arrays' names begin, and the places that
            messages name.
        copy: Whether the arrays are copies, which later steps do not change. Else those of the
            host share the tree's memory where they can: for whoever writes them at once.

    Returns:
        The arrays by name, and the structure.

    Raises:
        UserError: The tree holds something that cannot be saved; the message says where.
    """
    writer = _Writer(copy)
    structure = writer.node(tree, name)
    return writer.arrays, structure


def restore(arrays: Arrays, structure: Structure, fresh: Any, name: str = "state") -> Any:
    """Return the tree that `to_arrays` saved.

    PyTorch tensors and objects in `fresh` are filled in place where they fit, so that whatever
    refers to a module's parameters still does. All other tensors are created anew.

    Args:
        arrays: The saved arrays by name.
        structure: The saved structure.
        fresh: The same tree, newly initialised, or its `outline`.
        name: The name of the tree's root, with which the places in messages begin.

    Raises:
        UserError: A part of `fresh` is of another kind than the part that was saved.
    """
    return _Reader(arrays).value(structure, fresh, name)


def outline(tree: Any) -> Any:
    """Return a tree of which `restore` makes the same as of the one given, without the values of
    its JAX arrays: for whoever drops the other one, so that its memory is free before the saved
    arrays are read. PyTorch's tensors stay, as they are filled in place.
    """
    if kinds.is_kind(tree, "jax", "Array"):
        placed = tree.sharding if tree.committed else None
        return sys.modules["jax"].ShapeDtypeStruct(tree.shape, tree.dtype, sharding=placed)
    if type(tree) is dict:
        return {key: outline(value) for key, value in tree.items()}
    if kinds.is_named_tuple(tree):
        return type(tree)(*map(outline, tree))
    if type(tree) in (list, tuple):
        return type(tree)(map(outline, tree))
    members = kinds.children(tree)
    if members is None:
        return tree
    children, definition = members
    return definition.unflatten(map(outline, children))


class _Writer:
    def __init__(self, copy: bool) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._copy = copy
        self._inside: set[int] = set()  # The objects being written, to detect cycles.

    def node(self, value: Any, at: str) -> Structure:
        """Return the structure of one value, and keep its arrays."""
        for write in (self._plain, self._array, self._container, self._random, self._object):
            node = write(value, at)
            if node is not None:
                return node
        if kinds.is_static(value):
            static = {"kind": "static", "label": kinds.label(value)}
            if isinstance(value, enum.Enum):
                kind = type(value)
                static |= {"module": kind.__module__, "type": kind.__qualname__}
                static["member"] = value.name
            return static
        has_attributes = hasattr(value, "__dict__") and not isinstance(value, types.ModuleType)
        if has_attributes and not kinds.hides(value):
            return self._instance(value, at)
        raise UserError(
            f"{at} is {kinds.article(value)}, which cannot be saved; a state holds {SAVED}"
        )

    def _plain(self, value: Any, at: str) -> Structure | None:
        if type(value) is float and not math.isfinite(value):
            return {"kind": "float", "value": repr(value)}
        if value is None or type(value) in (bool, int, float, str):
            return {"kind": "value", "value": value}
        return None

    def _array(self, value: Any, at: str) -> Structure | None:
        if isinstance(value, np.ndarray | np.generic):
            kind = "numpy" if isinstance(value, np.ndarray) else "scalar"
            return {"kind": kind, **self._keep(self._owned(value), at)}
        if kinds.is_kind(value, *DIVIDED):
            return self._part(value, at)
        if kinds.is_kind(value, "torch", "Tensor"):
            return self._tensor(value, at)
        if kinds.is_kind(value, "torch", "Generator"):
            return {"kind": "generator", **self._keep(value.get_state().numpy().copy(), at)}
        if not kinds.is_kind(value, "jax", "Array"):
            return None
        if not (value.is_fully_addressable or value.is_fully_replicated):
            return self._jax_parts(value, at)
        jax: Any = sys.modules["jax"]
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            kept = self._keep(self._owned(jax.random.key_data(value)), at)
            return {"kind": "jax key", "generator": str(jax.random.key_impl(value)), **kept}
        return {"kind": "jax", "weak": bool(value.weak_type), **self._keep(self._owned(value), at)}

    def _owned(self, value: Any) -> np.ndarray:
        return np.array(value) if self._copy else np.asarray(value)

    def _part(self, value: Any, at: str) -> Structure:
        """Return the structure of what this process has of a tensor."""
        axes = [getattr(each, "dim", None) for each in value.placements]
        if any(each.is_partial() for each in value.placements):
            raise UserError(
                f"{at} is a sum that the processes have parts of, which cannot be saved"
            )
        whole = {"shape": list(value.shape), "strides": list(value.stride()), "axes": axes}
        node = self._tensor(value.detach().to_local(), at)
        return {**node, "gradient": bool(value.requires_grad), "whole": whole}

    def _jax_parts(self, value: Any, at: str) -> Structure:
        """Return the structure of the parts of an array that this process's devices have."""
        jax: Any = sys.modules["jax"]
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise UserError(f"{at} is keys that the processes have parts of, which cannot be saved")
        parts = {_bounds(each.index, value.shape): each.data for each in value.addressable_shards}
        items = [
            {"bounds": bounds, **self._keep(self._owned(part), f"{at}/part {number}")}
            for number, (bounds, part) in enumerate(sorted(parts.items(), key=lambda item: item[0]))
        ]
        return {"kind": "jax parts", "shape": list(value.shape), "parts": items}

    def _tensor(self, value: Any, at: str) -> Structure:
        torch: Any = sys.modules["torch"]
        if value.layout is not torch.strided:
            raise UserError(f"{at} is a {value.layout} tensor, which cannot be saved")
        flat = value.detach().cpu().contiguous()
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype == "bfloat16" or dtype.startswith("float8"):  # NumPy has no such types
            flat = flat.view(torch.int16 if dtype == "bfloat16" else torch.uint8)
        kept = self._keep(self._owned(flat.numpy()), at)
        device, gradient = value.device.type, bool(value.requires_grad)
        return {"kind": "torch", **kept, "dtype": dtype, "device": device, "gradient": gradient}

    def _keep(self, array: np.ndarray, at: str) -> Structure:
        if array.dtype.hasobject or array.dtype.names is not None:
            raise UserError(f"{at} is an array of {array.dtype}, which cannot be saved")
        while at in self.arrays:  # A key may contain '/', so that two paths look the same.
            at += "'"
        dtype = array.dtype
        self.arrays[at] = array if dtype.isbuiltin != 2 else array.view(UNSIGNED[dtype.itemsize])
        return {"array": at, "dtype": dtype.name}

    def _container(self, value: Any, at: str) -> Structure | None:
        kind = type(value).__qualname__
        if isinstance(value, dict):
            keys = [
                [self._key(key, at), self.node(each, f"{at}/{key}")] for key, each in value.items()
            ]
            return {"kind": "dict", "type": kind, "items": keys}
        if kinds.is_named_tuple(value):
            pairs = zip(value._fields, value, strict=True)
            return {"kind": "named tuple", "type": kind, "items": self._all(pairs, at)}
        if type(value) is collections.deque:
            items = self._all(enumerate(value), at)
            return {"kind": kind, "most": value.maxlen, "items": items}
        if type(value) in (list, tuple) or kinds.is_kind(value, "torch", "Size"):
            return {"kind": kind, "items": self._all(enumerate(value), at)}
        members = kinds.children(value)
        if members is not None:
            return {"kind": "pytree", "type": kind, "items": self._all(enumerate(members[0]), at)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            named = (
                (field.name, getattr(value, field.name)) for field in dataclasses.fields(value)
            )
            return {"kind": "dataclass", "type": kind, "items": self._all(named, at)}
        return None

    def _all(self, named: Any, at: str) -> list[Structure]:
        return [self.node(value, f"{at}/{name}") for name, value in named]

    def _key(self, key: Any, at: str) -> Structure:
        simple = key is None or type(key) in (bool, int, float, str)
        if not simple and not (type(key) is tuple and all(type(part) is not tuple for part in key)):
            raise UserError(
                f"{at} is a dict with {kinds.article(key)} as a key, which cannot be saved"
            )
        return (
            self.node(key, f"{at} (a key)")
            if simple
            else {"kind": "tuple", "items": [self._key(part, at) for part in key]}
        )

    def _random(self, value: Any, at: str) -> Structure | None:
        generator_state = kinds.generator_state(value)
        if generator_state is None:
            return None
        return {
            "kind": "random",
            "type": kinds.label(value),
            "state": self.node(generator_state, at),
        }

    def _object(self, value: Any, at: str) -> Structure | None:
        loads = all(
            callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict")
        )
        if not loads or isinstance(value, type):
            return None
        return {
            "kind": "object",
            "type": type(value).__qualname__,
            "state": self.node(_asking(value, "state_dict", at), at),
        }

    def _instance(self, value: Any, at: str) -> Structure:
        if id(value) in self._inside:
            raise UserError(
                f"{at} is {kinds.article(value)} that holds itself, which cannot be saved"
            )
        self._inside.add(id(value))
        attributes = [[name, self.node(each, f"{at}/{name}")] for name, each in vars(value).items()]
        self._inside.discard(id(value))
        kind = type(value)
        named = {"type": kind.__qualname__, "module": kind.__module__}
        return {"kind": "instance", **named, "items": attributes}


class _Reader:
    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        # The array that filled the tensor at each memory address.
        self._filled: dict[int, str] = {}
        self._mesh: Any = None  # of the processes that have parts of tensors

    def value(self, node: Structure, fresh: Any, at: str) -> Any:
        """Return the value that a node describes.

        Args:
            node: The saved structure.
            fresh: Its counterpart in the fresh tree, or `ABSENT`.
            at: Where in the tree it is, for messages.
        """
        kind = node["kind"]
        if kind == "value":
            return node["value"]
        if kind == "float":
            return float(node["value"])
        if kind == "static":
            if fresh is ABSENT and "member" in node:
                fresh = getattr(_loaded_type(node), "__members__", {}).get(node["member"], ABSENT)
            self._expect(
                fresh is not ABSENT and kinds.label(fresh) == node["label"], node, fresh, at
            )
            return fresh
        if kind == "object":
            self._expect(hasattr(fresh, "load_state_dict"), node, fresh, at)
            saved = self.value(node["state"], _asking(fresh, "state_dict", at), at)
            _asking(fresh, "load_state_dict", at, saved)
            if callable(getattr(fresh, "step", None)):
                _as_saved(_asking(fresh, "state_dict", at), saved)
            return fresh
        if kind == "random":
            self._expect(kinds.label(fresh) == node["type"], node, fresh, at)
            kinds.set_generator_state(fresh, self.value(node["state"], ABSENT, at))
            return fresh
        if kind == "jax parts":
            return self._jax_parts(node, fresh, at)
        return self._array(node, fresh, at) if "array" in node else self._container(node, fresh, at)

    def _expect(self, fits: bool, node: Structure, fresh: Any, at: str) -> None:
        if not fits:
            what = node.get("type", node.get("label", node["kind"]))
            now = "absent" if fresh is ABSENT else kinds.article(fresh)
            raise UserError(f"{at} was saved as {what}, but is {now} after initialisation")

    def _array(self, node: Structure, fresh: Any, at: str) -> Any:
        array = self._arrays[node["array"]]
        if "whole" in node:
            return self._part(node, array, fresh, at)
        if node["kind"] == "torch":
            return self._tensor(node, array, fresh)
        if node["kind"] == "jax" and array.dtype.name == node["dtype"]:
            return _jax_array(node, array, fresh)  # which copies it
        array = array.copy() if array.dtype.name == node["dtype"] else array.view(node["dtype"])
        if node["kind"] == "numpy":
            return array
        if node["kind"] == "scalar":
            return array[()]
        if node["kind"] == "generator":
            self._expect(hasattr(fresh, "set_state"), node, fresh, at)
            fresh.set_state(sys.modules["torch"].from_numpy(array))
            return fresh
        return _jax_array(node, array, fresh)

    def _part(self, node: Structure, array: np.ndarray, fresh: Any, at: str) -> Any:
        """Return a tensor of which this process has a part, in place where there is one."""
        is_divided = kinds.is_kind(fresh, *DIVIDED)
        if is_divided:
            self._mesh = fresh.device_mesh
        own = fresh.detach().to_local() if is_divided else ABSENT
        part = self._tensor({**node, "gradient": False}, array, own)
        if part is own:
            return fresh
        self._expect(self._mesh is not None, node, fresh, at)
        library: Any = sys.modules[DIVIDED[0]]
        torch: Any = sys.modules["torch"]
        whole = node["whole"]
        tensor = library.DTensor.from_local(
            part,
            self._mesh,
            [
                library.Replicate() if axis is None else library.Shard(axis)
                for axis in whole["axes"]
            ],
            run_check=False,
            shape=torch.Size(whole["shape"]),
            stride=tuple(whole["strides"]),
        )
        return tensor.requires_grad_() if node["gradient"] else tensor

    def _jax_parts(self, node: Structure, fresh: Any, at: str) -> Any:
        """Return an array of which this process has parts, laid out as the fresh one."""
        shape, jax = tuple(node["shape"]), sys.modules["jax"]
        parts = {tuple(map(tuple, part["bounds"])): part for part in node["parts"]}
        outlined: Any = outline(fresh)
        sharding: Any = getattr(outlined, "sharding", None)
        fits = sharding is not None and outlined.shape == shape
        asked = sharding.addressable_devices_indices_map(shape).values() if fits else ()
        fits = fits and all(_bounds(index, shape) in parts for index in asked)
        self._expect(fits, node, fresh, at)

        def part(index: Any) -> np.ndarray:
            known = parts[_bounds(index, shape)]
            array = self._arrays[known["array"]]
            return array if array.dtype.name == known["dtype"] else array.view(known["dtype"])

        return jax.make_array_from_callback(shape, sharding, part)

    def _tensor(self, node: Structure, array: np.ndarray, fresh: Any) -> Any:
        torch: Any = sys.modules["torch"]
        dtype = getattr(torch, node["dtype"])
        if kinds.is_kind(fresh, "torch", "Tensor") and (tuple(fresh.shape), fresh.dtype) == (
            array.shape,
            dtype,
        ):
            # Tensors that share memory in the fresh tree may have had different values when they
            # were saved, so a place is filled a second time only with the same values.
            name = node["array"]
            before = self._filled.setdefault(fresh.data_ptr(), name)
            is_same = before == name or self._arrays[before].tobytes() == array.tobytes()
            if is_same and fresh.is_contiguous():
                with torch.no_grad():
                    fresh.copy_(torch.from_numpy(_writable(array)).view(dtype))
                return fresh
        tensor = torch.from_numpy(array.copy()).view(dtype)
        tensor = tensor.to(node["device"])
        return tensor.requires_grad_() if node["gradient"] else tensor

    def _container(self, node: Structure, fresh: Any, at: str) -> Any:
        kind, items = node["kind"], node["items"]
        if kind == "dict":
            return self._dict(node, fresh, at)
        if kind == "Size":
            return sys.modules["torch"].Size(item["value"] for item in items)
        if kind in SEQUENCES:
            old = list(fresh) if isinstance(fresh, list | tuple | collections.deque) else []
            padded = [*old[: len(items)], *[ABSENT] * (len(items) - len(old))]
            values = self._all(items, list(zip(range(len(items)), padded, strict=True)), at)
            return SEQUENCES[kind](values, **({"maxlen": node["most"]} if kind == "deque" else {}))
        if kind == "instance" and fresh is ABSENT:
            fresh = _blank(node)
        self._expect(type(fresh).__qualname__ == node["type"], node, fresh, at)
        if kind == "named tuple":
            return type(fresh)(*self._all(items, list(zip(fresh._fields, fresh, strict=True)), at))
        if kind == "instance":
            old = vars(fresh)
            names = [(name, old.get(name, ABSENT)) for name, _ in items]
            values = self._all([item for _, item in items], names, at)
            old.clear()
            old.update(zip([name for name, _ in items], values, strict=True))
            return fresh
        if kind == "pytree":
            members = kinds.children(fresh)
            assert members is not None
            children, definition = members
            self._expect(len(children) == len(items), node, fresh, at)
            return definition.unflatten(self._all(items, list(enumerate(children)), at))
        restored = copy.copy(fresh)
        named = [(field.name, getattr(fresh, field.name)) for field in dataclasses.fields(fresh)]
        for (name, _), value in zip(named, self._all(items, named, at), strict=True):
            object.__setattr__(restored, name, value)
        return restored

    def _all(self, items: list[Structure], named: list[tuple[Any, Any]], at: str) -> list[Any]:
        return [
            self.value(item, old, f"{at}/{name}")
            for item, (name, old) in zip(items, named, strict=True)
        ]

    def _dict(self, node: Structure, fresh: Any, at: str) -> Any:
        old = fresh if isinstance(fresh, dict) else {}
        values = {}
        for key_node, item in node["items"]:
            key = self.value(key_node, ABSENT, at)
            values[key] = self.value(item, old.get(key, ABSENT), f"{at}/{key}")
        for known in DICTS:
            if known.__qualname__ == node["type"]:
                return known(values)
        self._expect(type(fresh).__qualname__ == node["type"], node, fresh, at)
        restored = copy.copy(fresh)  # A copy of a defaultdict keeps its factory.
        restored.clear()
        restored.update(values)
        return restored


def _blank(node: Structure) -> Any:
    """Return an object without attributes of the type that was saved, as optimizers make some late.

    Returns:
        `ABSENT` where no module that is loaded has the type: nothing is imported or called.
    """
    kind = _loaded_type(node)
    return ABSENT if kind is None else object.__new__(kind)


def _loaded_type(node: Structure) -> type | None:
    """Return the type that a node names, if a module that is loaded has it."""
    known: Any = sys.modules.get(node.get("module", ""))
    for part in node["type"].split("."):
        known = vars(known).get(part) if isinstance(known, type | types.ModuleType) else None
    return known if isinstance(known, type) else None


def _asking(value: Any, method: str, at: str, *arguments: Any) -> Any:
    """Call `state_dict` or `load_state_dict` of an object that may be the user's own.

    Raises:
        UserError: What it raised, and where in the tree it is.
    """
    try:
        return getattr(value, method)(*arguments)
    except UserError:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise UserError(
            f"{at}: {method} of {kinds.article(value)} raised {type(error).__name__}: {text}"
        ) from error


def _as_saved(now: Any, saved: Any) -> Any:
    """Return what an optimizer holds after `load_state_dict`, as it was saved.

    PyTorch's `load_state_dict` casts every tensor to the type of its parameter, a string to the
    text of a generator, and a deque to one without a bound. A `state_dict` holds the optimizer's
    own dicts, however deep its layout has them, so they are mended there.

    Args:
        now: The optimizer's `state_dict`, or a part of it.
        saved: The state that it was given, or the same part of it.
    """
    if kinds.is_kind(saved, "torch", "Tensor"):
        is_cast = kinds.is_kind(now, "torch", "Tensor") and now.dtype != saved.dtype
        return saved.to(now.device) if is_cast else now
    if isinstance(saved, str) and isinstance(now, str):
        return saved
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in now.keys() & saved.keys():
            mended = _as_saved(now[key], saved[key])
            if mended is not now[key]:
                now[key] = mended
        return now
    kind = type(saved)
    if kind not in SEQUENCES.values() or type(now) is not kind or len(now) != len(saved):
        return now
    members = [_as_saved(*pair) for pair in zip(now, saved, strict=True)]
    if kind is collections.deque:
        return collections.deque(members, saved.maxlen)
    return now if all(a is b for a, b in zip(members, now, strict=True)) else kind(members)


def _writable(array: np.ndarray) -> np.ndarray:
    """As PyTorch asks for, though nothing is written."""
    return array if array.flags.writeable else array.copy()


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return where a part of an array begins and ends along each of its axes."""
    return tuple(each.indices(size)[:2] for each, size in zip(index, shape, strict=True))


def _jax_array(node: Structure, array: np.ndarray, fresh: Any) -> Any:
    """Return the saved array as a JAX array, on the same devices as the fresh one."""
    jax: Any = sys.modules["jax"]
    if node["kind"] == "jax key":
        return jax.random.wrap_key_data(array, impl=node["generator"])
    # A Python number gives a weakly typed array; one of NumPy's would promote other types.
    if node["weak"] and array.ndim == 0:
        restored = jax.numpy.array(array.item())
    else:  # `jax.numpy.array` would copy twice
        restored = jax.device_put(array, may_alias=False)
    outlined = outline(fresh)
    is_outline = kinds.is_kind(outlined, "jax", "ShapeDtypeStruct")
    if is_outline and outlined.shape == restored.shape and outlined.sharding:
        return jax_sharding_utils.place(restored, outlined.sharding)
    return restored

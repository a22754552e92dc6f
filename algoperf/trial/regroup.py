"""Put the parts of a checkpoint together and divide them anew, for another number of devices.

Each process that trained a trial has saved a part of its state (`algoperf.run_folder.checkpoint`).
Those that go on with it may be more or fewer. Each of them makes from all the parts the one that it
would have saved itself, and takes it up as any other checkpoint:

- What all processes had alike, any part of it serves. That it was alike is looked at, bit for bit:
  what differs is something of each process, which nobody can give to others.
- Of what was divided by its rows (`--shard parameters`), each process reads those that are its own.
- Of the optimizer's state by its parameters (`--shard optimizer`), it takes the parameters' that it
  owns from whichever process did before.
- Random generators go on where they were, by rank; those of a process that is new are seeded for it
  and for the step.

Nothing is read before it is used, and no more of an array at a time than one process needs: no
process puts the model together. JAX has one process for all devices, and its arrays are saved
whole: there the only question is whether they have the shapes that they have on so many devices.

PyTorch's own torch.distributed.checkpoint reads tensors for another number of processes, too. It is
not used, since it asks for a dict of tensors by the names of the model's parameters, and pickles
what else there is: a submission's optimizers, schedulers and objects are no such dict, and nothing
is unpickled from a run folder.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from algoperf.backends.ranks import OPTIMIZER, PARAMETERS, Ranks
from algoperf.errors import UserError
from algoperf.run_folder import device_history, state, state_kinds
from algoperf.run_folder.checkpoint import Arrays, Stored
from algoperf.trial.preservation import Saved

GENERATORS = "generators"
WRAPPED = "module"  # The name under which DistributedDataParallel has a model.
Node = dict[str, Any]  # A node of a saved structure.
Nodes = Mapping[int, Node]  # By the rank of the process that saved it.
Read = Callable[[], np.ndarray]


def part_of(
    parts: Sequence[Saved],
    ranks: Ranks,
    shard: str | None,
    fresh: Mapping[str, Any],
    indices_of_others: Callable[[Any], Collection[int]] = lambda optimizer: (),
) -> Saved:
    """Return what one process would have saved, of what others have.

    Args:
        parts: What they have saved, by rank.
        ranks: The processes that go on with it.
        shard: What the devices divide among them, from `algoperf.backends.ranks`; the same before
            and now.
        fresh: The trial's trees by name, newly initialised.
        indices_of_others: Returns the places, in an optimizer's saved state, of what other
            processes will have of it.

    Raises:
        UserError: A part of it cannot be divided anew.
    """
    return _Regrouping(parts, ranks, shard, indices_of_others).saved(fresh)


def together(ranks: Ranks, make: Callable[[], Saved]) -> Saved:
    """Return what `make` returns; what it raises in one of the processes is raised in all."""
    saved = mistake = None
    try:
        saved = make()
    except UserError as error:
        mistake = str(error)
    mistakes = [text for text in ranks.gathered(mistake) if text is not None]
    if mistakes:
        raise UserError(mistakes[0])
    assert saved is not None
    return saved


class _Regrouping:
    def __init__(
        self,
        parts: Sequence[Saved],
        ranks: Ranks,
        shard: str | None,
        indices_of_others: Callable[[Any], Collection[int]],
    ) -> None:
        self._parts, self._ranks, self._shard = parts, ranks, shard
        self._indices_of_others = indices_of_others
        self._reads: dict[str, Read] = {}

    def saved(self, fresh: Mapping[str, Any]) -> Saved:
        """Return the part of this process."""
        document = self._parts[0].document
        items = []
        for key, _ in document["structure"]["items"]:
            name = key["value"]
            nodes = {
                rank: _entries(part.document["structure"])[name]
                for rank, part in enumerate(self._parts)
            }
            if name == GENERATORS:
                own = self._ranks.rank if self._ranks.rank in nodes else 0
                nodes = {own: nodes[own]}
            items.append([key, self._node(nodes, fresh.get(name, state.ABSENT), f"state/{name}")])
        structure = {**document["structure"], "items": items}
        return Saved(_Arrays(self._reads), {**document, "structure": structure})

    def _node(self, nodes: Nodes, fresh: Any, at: str) -> Node:
        """Return the node of this process.

        Args:
            nodes: Those of the others.
            fresh: Its counterpart in the fresh tree, or `state.ABSENT`.
            at: Where in the tree it is, for messages.
        """
        first = next(iter(nodes.values()))
        self._check_same(nodes, at, lambda node: (node["kind"], node.get("type")))
        if "array" in first:
            return self._array(nodes, fresh, at)
        if "state" in first:
            inside = {rank: node["state"] for rank, node in nodes.items()}
            return {**first, "state": self._object(inside, fresh, at)}
        if "items" in first:
            return {**first, "items": self._items(nodes, fresh, at)}
        self._check_same(nodes, at, repr)
        return first

    def _object(self, nodes: Nodes, fresh: Any, at: str) -> Node:
        """Return the node of what an object's `state_dict` had returned."""
        if self._shard == OPTIMIZER and all(map(_is_of_optimizer, nodes.values())):
            first = next(iter(nodes.values()))
            entries = {rank: _entries(node) for rank, node in nodes.items()}
            items = []
            for key, _ in first["items"]:
                name = key["value"]
                inside = {rank: each[name] for rank, each in entries.items() if name in each}
                if name == "state":
                    node = self._owned(inside, fresh, f"{at}/{name}")
                elif name == "param_groups":
                    states = {rank: set(_entries(each["state"])) for rank, each in entries.items()}
                    node = self._groups(inside, states, f"{at}/{name}")
                else:
                    node = self._node(inside, state.ABSENT, f"{at}/{name}")
                items.append([key, node])
            return {**first, "items": items}
        if state_kinds.is_kind(fresh, "torch.nn", "Module"):
            return self._node(nodes, fresh.state_dict(), at)
        return self._node(nodes, state.ABSENT, at)

    def _owned(self, nodes: Nodes, fresh: Any, at: str) -> Node:
        """Return the states, by parameter, that this process owns of an optimizer's."""
        others: Collection[int] = ()
        if self._ranks.count > 1:
            if not hasattr(fresh, "param_groups"):
                raise _refused(f"nobody knows which parameters {at} is of")
            others = self._indices_of_others(fresh)
        owners: dict[Any, dict[int, Node]] = {}
        for rank, node in nodes.items():
            for index, each in _entries(node).items():
                owners.setdefault(index, {})[rank] = each
        items = [
            [{"kind": "value", "value": index}, self._node(states, state.ABSENT, f"{at}/{index}")]
            for index, states in sorted(owners.items())
            if index not in others
        ]
        return {**next(iter(nodes.values())), "items": items}

    def _groups(self, nodes: Nodes, states: Mapping[int, Collection[Any]], at: str) -> Node:
        """Return the node of an optimizer's groups of parameters, each as those processes have it
        that have states of its parameters: elsewhere nothing counts its steps.

        Args:
            nodes: Those of the others.
            states: Of which parameters each of them has a state, by their indices.
            at: Where in the tree it is, for messages.
        """
        self._check_same(nodes, at, lambda node: len(node["items"]))
        first = next(iter(nodes.values()))
        groups = []
        for number, group in enumerate(first["items"]):
            indices = {each["value"] for each in _entries(group).get("params", {}).get("items", [])}
            inside = {rank: node["items"][number] for rank, node in nodes.items()}
            owners = {rank: each for rank, each in inside.items() if indices & set(states[rank])}
            groups.append(self._node(owners or inside, state.ABSENT, f"{at}/{number}"))
        return {**first, "items": groups}

    def _items(self, nodes: Nodes, fresh: Any, at: str) -> list[Any]:
        first = next(iter(nodes.values()))
        if first["kind"] not in ("dict", "instance"):
            self._check_same(nodes, at, lambda node: len(node["items"]))
            return [
                self._node(
                    {rank: node["items"][index] for rank, node in nodes.items()},
                    _child(fresh, index),
                    f"{at}/{index}",
                )
                for index in range(len(first["items"]))
            ]
        self._check_same(nodes, at, lambda node: sorted(map(repr, _entries(node))))
        entries = {rank: _entries(node) for rank, node in nodes.items()}
        names = list(entries[next(iter(nodes))])
        now = _renamed(names, fresh)
        items = []
        for (key, _), name in zip(first["items"], names, strict=True):
            inside = {rank: each[name] for rank, each in entries.items()}
            node = self._node(inside, _child(fresh, now[name]), f"{at}/{name}")
            items.append([{**key, "value": now[name]} if now[name] != name else key, node])
        return items

    def _array(self, nodes: Nodes, fresh: Any, at: str) -> Node:
        if any("whole" in node for node in nodes.values()):
            return self._divided(nodes, fresh, at)
        self._check_same(nodes, at, lambda node: (node["dtype"], node.get("weak")))
        self._check_same_values(nodes, at)
        owner, node = next(iter(nodes.items()))
        arrays, name = self._parts[owner].arrays, node["array"]
        if node["kind"] in ("torch", "jax"):
            self._check_shape(_shape(arrays, name), fresh, at)
        return self._keep(node, functools.partial(arrays.__getitem__, name))

    def _divided(self, nodes: Nodes, fresh: Any, at: str) -> Node:
        """Return the node of a tensor of which each process has the rows of one part."""
        if self._shard != PARAMETERS:
            raise _refused(f"{at} is divided by the submission itself")
        self._check_same(nodes, at, lambda node: node.get("whole"))
        node = nodes[0]
        shape, axes = node["whole"]["shape"], node["whole"]["axes"]
        self._check_shape(tuple(shape), fresh, at)
        if axes == [None]:
            self._check_same_values(nodes, at)
            name = node["array"]
            return self._keep(node, functools.partial(self._parts[0].arrays.__getitem__, name))
        if len(axes) != 1:
            raise _refused(f"{at} is divided along {len(axes)} axes")
        (axis,) = axes
        names = {rank: node["array"] for rank, node in nodes.items()}
        sizes = [_shape(self._parts[rank].arrays, name)[axis] for rank, name in names.items()]
        if sum(sizes) != shape[axis]:
            raise _refused(f"{at} has {shape[axis]} rows, and its parts have {sum(sizes)}")
        start, stop = own_range(shape[axis], self._ranks.rank, self._ranks.count)
        return self._keep(node, lambda: self._rows(names, sizes, axis, start, stop))

    def _rows(
        self, names: Mapping[int, str], sizes: Sequence[int], axis: int, start: int, stop: int
    ) -> np.ndarray:
        """Return the rows of a range, from the parts that have them."""
        pieces, first = [], 0
        for (rank, name), size in zip(names.items(), sizes, strict=True):
            low, high = max(start - first, 0), min(stop - first, size)
            if low < high:
                pieces.append(_range(self._parts[rank].arrays, name, axis, low, high))
            first += size
        if not pieces:
            return _range(self._parts[0].arrays, names[0], axis, 0, 0)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)

    def _keep(self, node: Node, read: Read) -> Node:
        name = f"array_{len(self._reads)}"
        self._reads[name] = read
        return {**node, "array": name}

    def _check_same(self, nodes: Nodes, at: str, what: Callable[[Node], Any]) -> None:
        first, *others = (what(node) for node in nodes.values())
        if any(other != first for other in others):
            raise _refused(f"{at} is not the same on all devices that it was trained on")

    def _check_same_values(self, nodes: Nodes, at: str) -> None:
        """Check that arrays are the same, bit for bit; each process looks at some of them."""
        (owner, node), *others = nodes.items()
        compared = [
            (rank, other["array"])
            for rank, other in others
            if rank % self._ranks.count == self._ranks.rank
        ]
        if not compared:
            return
        own = self._parts[owner].arrays[node["array"]]
        for rank, name in compared:
            other_array = self._parts[rank].arrays[name]
            if own.shape != other_array.shape or own.tobytes() != other_array.tobytes():
                raise _refused(f"{at} is not the same on all devices that it was trained on")

    def _check_shape(self, shape: tuple[int, ...], fresh: Any, at: str) -> None:
        """Check that an array is as large as it is on as many devices as there are now."""
        own = getattr(fresh, "shape", None)
        if own is not None and tuple(own) != shape:
            raise _refused(f"{at} has the shape {shape}, and {tuple(own)} on as many devices")


class _Arrays(Arrays):
    """Arrays, each of which is put together whenever it is asked for."""

    def __init__(self, reads: Mapping[str, Read]) -> None:
        self._reads = reads

    def __getitem__(self, name: str) -> np.ndarray:
        return self._reads[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._reads)

    def __len__(self) -> int:
        return len(self._reads)


def own_range(size: int, rank: int, count: int) -> tuple[int, int]:
    """Return the first row of a process's part of a tensor, and the one after its last: all parts
    are as large as the first, but for the last ones, which may be smaller or empty (as PyTorch's
    `Shard` has them).

    Args:
        size: How many rows there are.
        rank: The number of the process,
        count: and how many there are.
    """
    rows = -(-size // count)
    return min(size, rank * rows), min(size, (rank + 1) * rows)


def _refused(why: str) -> UserError:
    return UserError(
        f"{device_history.OPTION}: the checkpoint cannot be divided anew ({why}); go on with "
        "--devices as many as it was saved by"
    )


def _entries(node: Node) -> dict[Any, Node]:
    """Return the nodes of a dict or an object by their keys."""
    if node["kind"] == "instance":
        return dict(node["items"])
    return {
        key["value"] if key["kind"] == "value" else repr(key): each for key, each in node["items"]
    }


def _is_of_optimizer(node: Node) -> bool:
    """Return whether a node is laid out as the `state_dict` of a PyTorch optimizer."""
    return node["kind"] == "dict" and {"state", "param_groups"} <= _entries(node).keys()


def _child(fresh: Any, name: Any) -> Any:
    """Return the counterpart of an entry in a fresh tree, or `state.ABSENT`."""
    if isinstance(fresh, Mapping):
        return fresh.get(name, state.ABSENT)
    members = state_kinds.children(fresh)
    children = fresh if isinstance(fresh, list | tuple) else members and members[0]
    if children is not None and isinstance(name, int):
        return children[name] if name < len(children) else state.ABSENT
    return getattr(fresh, "__dict__", {}).get(name, state.ABSENT)


def _renamed(names: Sequence[Any], fresh: Any) -> dict[Any, Any]:
    """Return the names of entries on as many devices as there are now, by those that they had.

    Several PyTorch processes have a model within another, under the name `module`, one has it as
    it is.
    """
    same = {name: name for name in names}
    if not isinstance(fresh, Mapping) or not all(isinstance(name, str) for name in names):
        return same
    known = {_bare(name): name for name in fresh if isinstance(name, str)}
    if set(names) <= fresh.keys() or len(known) != len(fresh):
        return same
    renamed = {name: known.get(_bare(name), name) for name in names}
    return renamed if len(set(renamed.values())) == len(names) else same


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def _shape(arrays: Arrays, name: str) -> tuple[int, ...]:
    return arrays.shape(name) if isinstance(arrays, Stored) else arrays[name].shape


def _range(arrays: Arrays, name: str, axis: int, start: int, stop: int) -> np.ndarray:
    if isinstance(arrays, Stored):
        return arrays.rows(name, axis, start, stop)
    return arrays[name][(*[slice(None)] * axis, slice(start, stop))]

"""Fit a state that was trained at other hyperparameters to those that a trial goes on at.

A state holds some of its hyperparameters: the groups of a PyTorch optimizer hold the learning rate,
a scheduler its base, optax's `inject_hyperparams` all of them. Which parts do, and what they would
hold, the submission's own initialisation tells: it is asked twice, for the old point and for the
new one, from the same parameters and random generators. Schedulers are brought to the step that
they were saved at. Where the two initial states differ, and what was saved is still the old one's,
the new one's takes its place. What training has changed stays: moments, counts, estimates.

What a function holds (an optax transformation, a scheduler's lambda, `update_params`) is not in the
state. It is made for the new point anyhow.
"""

import collections
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from algoperf import errors
from algoperf.run_folder import state, state_kinds
from algoperf.run_folder.checkpoint import Arrays
from algoperf.trial.preservation import COPIED, Saved

TREE = "optimizer_state"
NEW = "new/"  # With this begin the names of arrays of the new point's initial state.
Node = Any  # A node of a saved structure: a JSON object.
Initialise = Callable[[Mapping[str, Any]], Any]  # point -> a fresh optimizer state


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of a tree: its node, and the arrays that its leaves name."""

    node: Node
    arrays: Arrays

    def child(self, node: Node) -> "_Part":
        return _Part(node, self.arrays)


def fitted(saved: Saved, point: Mapping[str, Any] | None, initialise: Initialise) -> Saved:
    """Return a checkpoint whose state holds a trial's own hyperparameters.

    Args:
        saved: The checkpoint; where it was not copied from another trial, it is returned as it is.
        point: The hyperparameters of the trial that goes on with it.
        initialise: Returns what the submission's initialisation makes of a point, from the trial's
            first parameters.

    Raises:
        UserError: Its state cannot take the hyperparameters: a part of it has another form.
    """
    copied = saved.document.get(COPIED)
    if copied is None or copied["point"] == point or point is None:
        return saved
    structure = saved.document["structure"]
    index = next(i for i, (key, _) in enumerate(structure["items"]) if key["value"] == TREE)
    key, node = structure["items"][index]
    before = state_kinds.generators()
    initial = []
    for each in (copied["point"], point):
        state_kinds.set_generators(before)
        fresh = initialise(each)
        _replay(node, fresh)
        arrays, fresh_node = state.to_arrays(fresh, f"state/{TREE}")
        initial.append(_Part(fresh_node, arrays))
    state_kinds.set_generators(before)
    own: dict[str, np.ndarray] = {}
    old, new = initial
    new_node = _merged(_Part(node, saved.arrays), old, new, f"state/{TREE}", own)
    items = list(structure["items"])
    items[index] = [key, new_node]
    document = {**saved.document, "structure": {**structure, "items": items}}
    return Saved(collections.ChainMap(own, saved.arrays), document)  # type: ignore[arg-type]


def _replay(node: Node, fresh: Any) -> None:
    """Bring PyTorch's schedulers to the step that they were saved at."""
    for scheduler, steps in _schedulers(node, fresh):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Its optimizer makes no steps.
            for _ in range(steps):
                scheduler.step()


def _schedulers(node: Node, fresh: Any) -> Iterator[tuple[Any, int]]:
    """Yield the schedulers that a fresh tree holds, each with its steps in the saved one."""
    kind = node["kind"]
    if kind == "object":
        module = "torch.optim.lr_scheduler"
        plateau = state_kinds.is_kind(fresh, module, "ReduceLROnPlateau")  # It steps by a value.
        if state_kinds.is_kind(fresh, module, "LRScheduler") and not plateau:
            entries = {name: each for _, name, each in _items(node["state"])}
            counted = entries.get("last_epoch", {}).get("value")
            yield fresh, counted if isinstance(counted, int) else 0
    elif kind == "dict" and isinstance(fresh, dict):
        for key, name, each in _items(node):
            if key["kind"] == "value" and name in fresh:
                yield from _schedulers(each, fresh[name])
    elif "items" in node and isinstance(fresh, list | tuple):
        for each, value in zip(node["items"], fresh, strict=False):
            yield from _schedulers(each, value)


def _merged(saved: _Part, old: _Part, new: _Part, at: str, own: dict[str, np.ndarray]) -> Node:
    """Return the saved node with the new point's values where the old point's still stand."""
    if _is_same(old, new):
        return saved.node
    if old.node["kind"] == "object" and saved.node["kind"] == new.node["kind"] == "object":
        inside = [each.child(each.node["state"]) for each in (saved, old, new)]
        return {**saved.node, "state": _merged(inside[0], inside[1], inside[2], at, own)}
    if all("items" in each.node for each in (saved, old, new)):
        return _merged_items(saved, old, new, at, own)
    if _form(old) != _form(new):
        raise errors.UserError(
            f"{at} of the copied state is {_shown(old)} by its own hyperparameters, and "
            f"{_shown(new)} by the new ones, which it cannot take in mid-training; leave the "
            "hyperparameter that decides it out of the search space"
        )
    return _new(new, own) if _is_same(saved, old) else saved.node


def _merged_items(
    saved: _Part, old: _Part, new: _Part, at: str, own: dict[str, np.ndarray]
) -> Node:
    saved_items, old_items, new_items = (
        {_identity(key, name): (key, name, each) for key, name, each in _items(part.node)}
        for part in (saved, old, new)
    )
    if old_items.keys() != new_items.keys() or not old_items.keys() <= saved_items.keys():
        raise errors.UserError(
            f"{at} of the copied state has other parts by the new hyperparameters than by its own, "
            "which it cannot take in mid-training; leave the hyperparameter that decides it out of "
            "the search space"
        )
    merged = []
    for identity, (key, name, each) in saved_items.items():
        node = each
        if identity in old_items:
            node = _merged(
                saved.child(each),
                old.child(old_items[identity][2]),
                new.child(new_items[identity][2]),
                f"{at}/{name}",
                own,
            )
        merged.append(node if key is None else [key, node])
    if "lr" in {name for _, name, _ in saved_items.values()}:
        merged = _with_rate(merged, saved, old, new)
    return {**saved.node, "items": merged}


def _with_rate(merged: list[Any], saved: _Part, old: _Part, new: _Part) -> list[Any]:
    """Move a learning rate that training has moved, as `ReduceLROnPlateau` does, in proportion."""
    rates = [
        {name: each for _, name, each in _items(part.node)}["lr"].get("value")
        for part in (saved, old, new)
    ]
    if saved.node["kind"] != "dict" or not all(isinstance(rate, float) for rate in rates):
        return merged
    was, old_rate, new_rate = rates
    if was == old_rate or old_rate == 0:
        return merged
    moved = {"kind": "value", "value": was * new_rate / old_rate}
    return [[key, moved if key.get("value") == "lr" else node] for key, node in merged]


def _items(node: Node) -> list[tuple[Node, Any, Node]]:
    """Return the parts of a container: the node of a key (None in a sequence), its name, a node."""
    if node["kind"] in ("dict", "instance"):
        return [
            (key, key.get("value") if isinstance(key, dict) else key, each)
            for key, each in node["items"]
        ]
    return [(None, number, each) for number, each in enumerate(node["items"])]


def _identity(key: Node, name: Any) -> str:
    return repr(name if key is None else key)


def _is_same(one: _Part, other: _Part) -> bool:
    """Return whether two parts hold the same, bit for bit."""
    first, second = one.node, other.node
    if _form(one) != _form(other):
        return False
    if "array" in first:
        return one.arrays[first["array"]].tobytes() == other.arrays[second["array"]].tobytes()
    if "state" in first:
        return _is_same(one.child(first["state"]), other.child(second["state"]))
    if "items" not in first:
        return repr(first) == repr(second)
    pairs = zip(_items(first), _items(second), strict=True)
    return all(
        _identity(key, name) == _identity(other_key, other_name)
        and _is_same(one.child(each), other.child(other_each))
        for (key, name, each), (other_key, other_name, other_each) in pairs
    )


def _form(part: _Part) -> tuple[Any, ...]:
    """Return what two parts share if one can take the other's place."""
    node = part.node
    kind = "value" if node["kind"] in ("value", "float") else node["kind"]
    if "array" in node:
        return kind, node["dtype"], part.arrays[node["array"]].shape
    return kind, node.get("type"), len(node["items"]) if "items" in node else None


def _shown(part: _Part) -> str:
    node = part.node
    if "array" in node:
        return f"{node['dtype']}{list(part.arrays[node['array']].shape)}"
    return str(node.get("value", node.get("label", node["kind"])))


def _new(part: _Part, own: dict[str, np.ndarray]) -> Node:
    """Return a node of the new point's initial state, and keep the arrays that it names."""
    node = part.node
    if "array" in node:
        name = f"{NEW}{node['array']}"
        own[name] = part.arrays[node["array"]]
        return {**node, "array": name}
    if "state" in node:
        return {**node, "state": _new(part.child(node["state"]), own)}
    return node

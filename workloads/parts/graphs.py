"""Graphs in arrays of fixed shapes: a batch's rows are slots for so many nodes and edges.

A batch's `inputs` are int32, (B, W). Each of the B rows has N node slots and E edge slots; W gives
both (`Room`). Node slots of all rows are counted through, and so are edge slots, rows and nodes. In
a packed batch graphs lie one after another in them, whatever row a slot belongs to, as far as there
is room; in rows that were taken one by one, each graph lies in its own row. All numbers that point
somewhere count from the own row on, so that both mean the same to a model. What is padding points
to `NOWHERE`: such nodes belong to a graph beyond the last, and such edges lead from the last node
slot, which is never a graph's, to itself.

Legend: B rows of a batch, N and E node and edge slots of a row, G graphs, F features.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.errors import UserError
from algoperf.workload import Field
from algoperf.workload.rows import FINGERPRINT_DIGITS, IS_ROW

NODE_FEATURES, EDGE_FEATURES = 9, 3  # as OGB describes atoms and bonds
NORM_EPSILON = 1e-6  # flax's default
NOWHERE = -(2**30)
EDGES_EACH, NODES_EACH = 9, 4  # a row has room for nine edges for every four nodes


@dataclasses.dataclass(frozen=True)
class Room:
    """The slots of a row.

    Attributes:
        nodes: The number N of node slots; edge slots are 9/4 as many, rounded down. Molecules have
            about as many bonds as atoms, and each is an edge in both directions.
    """

    nodes: int

    @property
    def edges(self) -> int:
        """The number E of edge slots."""
        return self.nodes * EDGES_EACH // NODES_EACH

    @property
    def width(self) -> int:
        """The numbers W in a row: features and graph of each node, features and ends of edges."""
        return self.nodes * (NODE_FEATURES + 1) + self.edges * (EDGE_FEATURES + 2)

    @classmethod
    def of_width(cls, width: int) -> "Room":
        """Return the room of rows of that many numbers."""
        nodes = width * NODES_EACH // (NODES_EACH * (NODE_FEATURES + 1) + EDGES_EACH * 5)
        return next(room for room in map(cls, (nodes, nodes + 1)) if room.width == width)

    @classmethod
    def holding(cls, nodes: int, edges: int) -> "Room":
        """Return the least room in which so many nodes, one to spare, and edges fit."""
        return cls(max(nodes + 1, -(-edges * NODES_EACH // EDGES_EACH)))


class Slots(NamedTuple):
    """The parts of a batch's inputs, as a view of them, in the arrays of either framework.

    Attributes:
        node_features: (B N, 9).
        graph_of_node: (B, N), relative to the own row.
        edge_features: (B E, 3).
        senders: (B, E), relative to the own row's first node slot.
        receivers: Likewise.
    """

    node_features: Any
    graph_of_node: Any
    edge_features: Any
    senders: Any
    receivers: Any


def slots(inputs_BW: Any) -> Slots:
    """Return the parts of a batch's inputs."""
    room = Room.of_width(inputs_BW.shape[1])
    N, E = room.nodes, room.edges
    ends = np.cumsum([N * NODE_FEATURES, N, E * EDGE_FEATURES, E, E]).tolist()
    parts = [inputs_BW[:, start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    parts[0] = parts[0].reshape(-1, NODE_FEATURES)
    parts[2] = parts[2].reshape(-1, EDGE_FEATURES)
    return Slots(*parts)


@dataclasses.dataclass(frozen=True)
class Graphs:
    """Graphs one after another.

    Attributes:
        nodes: How many nodes each has, (G,).
        bonds: How many bonds each has, (G,); an edge in both directions.
        node_features: Of all nodes, (sum of nodes, 9).
        bond_features: Of all bonds, (sum of bonds, 3).
        ends: The two nodes of each bond, counted in its graph from 0, (sum of bonds, 2).
    """

    nodes: NDArray[np.int64]
    bonds: NDArray[np.int64]
    node_features: NDArray[Any]
    bond_features: NDArray[Any]
    ends: NDArray[Any]

    def __len__(self) -> int:
        return len(self.nodes)

    @functools.cached_property
    def node_starts(self) -> NDArray[np.int64]:
        """Where each graph's nodes begin."""
        return np.cumsum(self.nodes) - self.nodes

    @functools.cached_property
    def bond_starts(self) -> NDArray[np.int64]:
        """Where each graph's bonds begin."""
        return np.cumsum(self.bonds) - self.bonds

    def chosen(self, indices: NDArray[np.int64]) -> "Graphs":
        """Return copies of some graphs."""
        nodes, bonds = self.nodes[indices], self.bonds[indices]
        of_nodes = _runs(self.node_starts[indices], nodes)
        of_bonds = _runs(self.bond_starts[indices], bonds)
        return Graphs(
            nodes,
            bonds,
            self.node_features[of_nodes],
            self.bond_features[of_bonds],
            self.ends[of_bonds],
        )


class GraphRows:
    """A split of graphs with their labels.

    Args:
        graphs: The graphs.
        labels_GT: 1, 0, or NaN where it is missing, of each task.
        room: The slots of a row of a packed batch.
        largest: The slots of a row that is taken alone; the same in all splits.
    """

    is_slow = False

    def __init__(
        self, graphs: Graphs, labels_GT: NDArray[np.float32], room: Room, largest: Room
    ) -> None:
        self.graphs = graphs
        self.labels_GT = labels_GT
        self._room, self._largest = room, largest
        self._known_GT = ~np.isnan(labels_GT)

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row that is taken alone, by name."""
        return self.fields_of(self._largest)

    def fields_of(self, room: Room) -> Mapping[str, Field]:
        """What is in a row of that room, by name."""
        tasks = self.labels_GT.shape[1:]
        return {
            "inputs": Field((room.width,), np.dtype(np.int32)),
            "targets": Field(tasks, np.dtype(np.float32)),
            "weights": Field(tasks, np.dtype(np.float32)),
        }

    @property
    def fingerprint(self) -> str:
        """Of all arrays."""
        digest = hashlib.sha256(f"{self._room}{self._largest}".encode())
        for array in (*dataclasses.astuple(self.graphs), self.labels_GT):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return these graphs, each in a row of its own."""
        return self.batch(indices, len(indices), self._largest, is_apart=True)

    def source_row(self, index: int) -> dict[str, np.ndarray]:
        """Return a graph's own arrays, and its labels."""
        graph = self.graphs.chosen(np.array([index]))
        return {
            "inputs": graph.node_features,
            "bonds": graph.bond_features,
            "ends": graph.ends,
            "targets": self.labels_GT[index],
        }

    @property
    def packing(self) -> "GraphPacking":
        """How the graphs share the room of a batch."""
        return GraphPacking(self, self._room)

    def batch(
        self, indices: np.ndarray, batch_size: int, room: Room, *, is_apart: bool
    ) -> dict[str, np.ndarray]:
        """Return a batch of graphs.

        Args:
            indices: The graphs; they fit.
            batch_size: The rows of the batch.
            room: The slots of a row.
            is_apart: Whether each lies in its own row, or one after another.
        """
        graphs, B = self.graphs, batch_size
        nodes_G, bonds_G = graphs.nodes[indices], graphs.bonds[indices]
        own_row_G = np.arange(len(indices))
        if is_apart:
            first_node_G, first_edge_G = own_row_G * room.nodes, own_row_G * room.edges
        else:
            first_node_G = np.cumsum(nodes_G) - nodes_G
            first_edge_G = 2 * (np.cumsum(bonds_G) - bonds_G)
        node_features = np.zeros((B * room.nodes, NODE_FEATURES), np.int32)
        edge_features = np.zeros((B * room.edges, EDGE_FEATURES), np.int32)
        graph_of_node = np.full(B * room.nodes, NOWHERE, np.int32)
        senders, receivers = np.full((2, B * room.edges), NOWHERE, np.int32)

        source, slot = _runs(graphs.node_starts[indices], nodes_G), _runs(first_node_G, nodes_G)
        node_features[slot] = graphs.node_features[source]
        graph_of_node[slot] = np.repeat(own_row_G, nodes_G) - slot // room.nodes
        source, there = _runs(graphs.bond_starts[indices], bonds_G), _runs(first_edge_G, bonds_G)
        back = there + np.repeat(bonds_G, bonds_G)
        one, other = graphs.ends[source].T + np.repeat(first_node_G, bonds_G)
        for edge, sender, receiver in ((there, one, other), (back, other, one)):
            edge_features[edge] = graphs.bond_features[source]
            base = edge // room.edges * room.nodes
            senders[edge], receivers[edge] = sender - base, receiver - base
        parts = node_features, graph_of_node, edge_features, senders, receivers
        inputs_BW = np.concatenate([part.reshape(B, -1) for part in parts], axis=1)
        assert inputs_BW.shape == (B, room.width)
        batch = {"inputs": inputs_BW}
        for name, values in (
            ("targets", np.where(self._known_GT, self.labels_GT, 0)[indices]),
            ("weights", self._known_GT[indices]),
        ):
            batch[name] = np.zeros((B, *values.shape[1:]), np.float32)
            batch[name][: len(values)] = values
        return batch


class GraphPacking:
    """Graphs one after another in the slots of a batch; see `algoperf.workload.rows.Packing`.

    The last node slot is nobody's: padding edges are there.
    """

    def __init__(self, rows: GraphRows, room: Room) -> None:
        self._rows, self._room = rows, room

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row of a packed batch, by name."""
        return self._rows.fields_of(self._room)

    def __call__(self, indices: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        """Return a batch of as many of these graphs, from the first, as there is room for."""
        graphs, room = self._rows.graphs, self._room
        nodes, edges = batch_size * room.nodes - 1, batch_size * room.edges
        has_room = (np.cumsum(graphs.nodes[indices]) <= nodes) & (
            2 * np.cumsum(graphs.bonds[indices]) <= edges
        )
        count = int(has_room.sum())
        if count == 0:
            raise UserError(
                f"graph {indices[0]} has {graphs.nodes[indices[0]]} nodes and "
                f"{2 * graphs.bonds[indices[0]]} edges, and a batch of {batch_size} rows has room "
                f"for {nodes} and {edges}: choose larger batches"
            )
        batch = self._rows.batch(indices[:count], batch_size, room, is_apart=False)
        return {**batch, IS_ROW: np.arange(batch_size) < count}


def _runs(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ..., so many for each start, one run after another."""
    before = np.cumsum(counts) - counts
    runs: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    return runs

"""The graph network of the ogbg workload in flax (Battaglia et al. 2018, algorithm 1).

Shapes: B graphs, N nodes and E edges of the batch, D width of what an edge, a node or a graph is.
The last graph and the last node are padding.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts import graphs
from workloads.parts.dropout_jax import Dropout
from workloads.parts.style import GraphStyle, scaled
from workloads.parts.style_jax import FUNCTIONS, norm

EPSILON = graphs.NORM_EPSILON
Part = tuple[jax.Array, jax.Array | None]  # an array, and which of its rows; None for all


class Embedding(nn.Module):
    """A dense layer of the features of nodes or edges, which are numbers."""

    width: int

    @nn.compact
    def __call__(self, features_NF: jax.Array) -> jax.Array:
        """Return hidden_ND."""
        shape = (features_NF.shape[-1], self.width)
        embedding = self.param("embedding", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return features_NF.astype(embedding.dtype) @ embedding + bias


class Joined(nn.Module):
    """A dense layer of several arrays side by side.

    Each is multiplied by its own rows of the kernel before its rows are repeated: there are fewer
    nodes than edges.
    """

    width: int

    @nn.compact
    def __call__(self, parts: Sequence[Part]) -> jax.Array:
        """Return the layer's output, of as many rows as the parts have."""
        inputs = sum(values.shape[-1] for values, _ in parts)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (inputs, self.width))
        outputs, start = self.param("bias", nn.initializers.zeros, (self.width,)), 0
        for values, rows in parts:
            product = values @ kernel[start : start + values.shape[-1]]
            outputs = outputs + (product if rows is None else product[rows])
            start += values.shape[-1]
        return outputs


class Update(nn.Module):
    """The perceptron that makes edges, nodes or graphs anew of what they see."""

    width: int
    layers: int
    style: GraphStyle

    @nn.compact
    def __call__(
        self, parts: Sequence[Part], train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return hidden, of as many rows as the parts have."""
        for layer in range(self.layers):
            dense = Joined(self.width, name=f"dense_{layer}")
            hidden = norm(self.style, f"norm_{layer}", epsilon=EPSILON)(dense(parts))
            hidden = FUNCTIONS[self.style.activation](hidden)
            hidden = Dropout(dropout_rate, train)(hidden)
            parts = [(hidden, None)]
        return hidden


class Block(nn.Module):
    """One step of messages: edges, then nodes, then graphs."""

    width: int
    layers: int
    style: GraphStyle

    @nn.compact
    def __call__(
        self,
        state: tuple[jax.Array, jax.Array, jax.Array],
        places: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
        train: bool,
        dropout_rate: float | jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return (nodes_ND, edges_ED, graphs_BD)."""
        nodes_ND, edges_ED, graphs_BD = state
        senders, receivers, graph_of_node, graph_of_edge = places

        def update(name: str, *parts: Part) -> jax.Array:
            module = Update(self.width, self.layers, self.style, name=name)
            return module(parts, train, dropout_rate)

        def total(values: jax.Array, rows: jax.Array, like: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, rows, len(like))

        edges_ED = update(
            "edges",
            (edges_ED, None),
            (nodes_ND, senders),
            (nodes_ND, receivers),
            (graphs_BD, graph_of_edge),
        )
        sent_ND, received_ND = (total(edges_ED, rows, nodes_ND) for rows in (senders, receivers))
        nodes_ND = update(
            "nodes",
            (nodes_ND, None),
            (sent_ND, None),
            (received_ND, None),
            (graphs_BD, graph_of_node),
        )
        graphs_BD = update(
            "graphs",
            (total(nodes_ND, graph_of_node, graphs_BD), None),
            (total(edges_ED, graph_of_edge, graphs_BD), None),
            (graphs_BD, None),
        )
        return nodes_ND, edges_ED, graphs_BD


class GraphNetwork(nn.Module):
    """Labels of graphs.

    Attributes:
        width: That of the embedded features of nodes and edges.
        hidden: The width D of all layers after.
        mlp_layers: Layers of an update.
        depth: Steps of messages.
        tasks: Labels of a graph, and the width that a graph starts with, as zeros.
        style: Activation, norm and output scale.
    """

    width: int
    hidden: int
    mlp_layers: int
    depth: int
    tasks: int
    style: GraphStyle

    @nn.compact
    def __call__(
        self, inputs_BW: jax.Array, train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return logits_BT.

        Args:
            inputs_BW: See `workloads.parts.graphs`.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        slots, B = graphs.slots(inputs_BW), len(inputs_BW)
        N = len(slots.node_features)
        row_B1 = jnp.arange(B)[:, None]

        def counted(relative: jax.Array, each: int, last: int) -> jax.Array:
            absolute = (relative + each * row_B1).reshape(-1)
            return jnp.where(absolute < 0, last, absolute)

        senders, receivers = (
            counted(ends, N // B, N - 1) for ends in (slots.senders, slots.receivers)
        )
        graph_of_node = counted(slots.graph_of_node, 1, B)
        places = senders, receivers, graph_of_node, graph_of_node[senders]
        nodes_ND = Embedding(self.width, name="node_embedding")(slots.node_features)
        edges_ED = Embedding(self.width, name="edge_embedding")(slots.edge_features)
        state = nodes_ND, edges_ED, jnp.zeros((B + 1, self.tasks), nodes_ND.dtype)
        for step in range(self.depth):
            block = Block(self.hidden, self.mlp_layers, self.style, name=f"block_{step}")
            state = block(state, places, train, dropout_rate)
        logits_BT = nn.Dense(self.tasks, name="head")(state[2][:B])
        return scaled(logits_BT, self.style.output_scale)


build = GraphNetwork

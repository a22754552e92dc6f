"""The graph network of the ogbg workload in PyTorch (Battaglia et al. 2018, algorithm 1).

Shapes: B graphs, N nodes and E edges of the batch, D width of what an edge, a node or a graph is.
The last graph and the last node are padding.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from workloads.parts import graphs
from workloads.parts.style import GraphStyle, scaled
from workloads.parts.style_torch import FUNCTIONS, norm

EPSILON = graphs.NORM_EPSILON
Part = tuple[torch.Tensor, torch.Tensor | None]  # an array, and which of its rows; None for all


class Embedding(nn.Module):
    """A dense layer of the features of nodes or edges, which are numbers."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(features, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, features_NF: torch.Tensor) -> torch.Tensor:
        """Return hidden_ND."""
        return torch.addmm(self.bias, features_NF.to(self.embedding.dtype), self.embedding)


class Joined(nn.Linear):
    """A dense layer of several arrays side by side.

    Each is multiplied by its own columns of the weight before its rows are repeated: there are
    fewer nodes than edges.

    Args:
        inputs: The widths of the arrays.
        width: That of the output.
    """

    def __init__(self, inputs: Sequence[int], width: int) -> None:
        super().__init__(sum(inputs), width)
        self.inputs = list(inputs)

    def forward(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return the layer's output, of as many rows as the parts have."""
        weights = self.weight.split(self.inputs, 1)
        outputs, bias = None, self.bias
        for (values, rows), weight in zip(parts, weights, strict=True):
            product = functional.linear(values, weight, bias)
            product = product if rows is None else product.index_select(0, rows)
            outputs, bias = product if outputs is None else outputs + product, None
        assert outputs is not None
        return outputs


class Update(nn.Module):
    """The perceptron that makes edges, nodes or graphs anew of what they see."""

    def __init__(self, inputs: Sequence[int], width: int, layers: int, style: GraphStyle) -> None:
        super().__init__()
        self.layers, self.style = layers, style
        for layer in range(layers):
            self.add_module(f"dense_{layer}", Joined([width] if layer else inputs, width))
            self.add_module(f"norm_{layer}", norm(style, width, epsilon=EPSILON))

    def forward(self, parts: Sequence[Part], dropout_rate: float) -> torch.Tensor:
        """Return hidden, of as many rows as the parts have."""
        for layer in range(self.layers):
            hidden: torch.Tensor = self.get_submodule(f"dense_{layer}")(parts)
            hidden = self.get_submodule(f"norm_{layer}")(hidden)
            hidden = FUNCTIONS[self.style.activation](hidden)
            hidden = functional.dropout(hidden, dropout_rate, self.training)
            parts = [(hidden, None)]
        return hidden


class Block(nn.Module):
    """One step of messages: edges, then nodes, then graphs.

    Args:
        inputs: The widths of nodes, edges and graphs before the step.
        width: Their width D after it.
        layers: Layers of an update.
        style: Activation and norm.
    """

    def __init__(
        self, inputs: tuple[int, int, int], width: int, layers: int, style: GraphStyle
    ) -> None:
        super().__init__()
        nodes, edges, whole = inputs
        self.edges = Update([edges, nodes, nodes, whole], width, layers, style)
        self.nodes = Update([nodes, width, width, whole], width, layers, style)
        self.graphs = Update([width, width, whole], width, layers, style)

    def forward(
        self,
        state: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        places: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
        dropout_rate: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (nodes_ND, edges_ED, graphs_BD)."""
        nodes_ND, edges_ED, graphs_BD = state
        senders, receivers, graph_of_node, graph_of_edge = places
        edges_ED = self.edges(
            [
                (edges_ED, None),
                (nodes_ND, senders),
                (nodes_ND, receivers),
                (graphs_BD, graph_of_edge),
            ],
            dropout_rate,
        )
        sent_ND, received_ND = (_total(edges_ED, rows, nodes_ND) for rows in (senders, receivers))
        nodes_ND = self.nodes(
            [
                (nodes_ND, None),
                (sent_ND, None),
                (received_ND, None),
                (graphs_BD, graph_of_node),
            ],
            dropout_rate,
        )
        graphs_BD = self.graphs(
            [
                (_total(nodes_ND, graph_of_node, graphs_BD), None),
                (_total(edges_ED, graph_of_edge, graphs_BD), None),
                (graphs_BD, None),
            ],
            dropout_rate,
        )
        return nodes_ND, edges_ED, graphs_BD


class GraphNetwork(nn.Module):
    """Labels of graphs.

    Args:
        width: That of the embedded features of nodes and edges.
        hidden: The width D of all layers after.
        mlp_layers: Layers of an update.
        depth: Steps of messages.
        tasks: Labels of a graph, and the width that a graph starts with, as zeros.
        style: Activation, norm and output scale.
    """

    def __init__(
        self, width: int, hidden: int, mlp_layers: int, depth: int, tasks: int, style: GraphStyle
    ) -> None:
        super().__init__()
        self.depth, self.tasks, self.style = depth, tasks, style
        self.node_embedding = Embedding(graphs.NODE_FEATURES, width)
        self.edge_embedding = Embedding(graphs.EDGE_FEATURES, width)
        for step in range(depth):
            inputs = (hidden, hidden, hidden) if step else (width, width, tasks)
            self.add_module(f"block_{step}", Block(inputs, hidden, mlp_layers, style))
        self.head = nn.Linear(hidden, tasks)

    def forward(self, inputs_BW: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_BT.

        Args:
            inputs_BW: See `workloads.parts.graphs`.
            dropout_rate: The share of values to drop while training.
        """
        slots, B = graphs.slots(inputs_BW), len(inputs_BW)
        N = len(slots.node_features)
        row_B1 = torch.arange(B, device=inputs_BW.device)[:, None]

        def counted(relative: torch.Tensor, each: int, last: int) -> torch.Tensor:
            absolute = (relative + each * row_B1).reshape(-1)
            return torch.where(absolute < 0, last, absolute)

        senders, receivers = (
            counted(ends, N // B, N - 1) for ends in (slots.senders, slots.receivers)
        )
        graph_of_node = counted(slots.graph_of_node, 1, B)
        places = senders, receivers, graph_of_node, graph_of_node[senders]
        nodes_ND = self.node_embedding(slots.node_features)
        edges_ED = self.edge_embedding(slots.edge_features)
        state = nodes_ND, edges_ED, nodes_ND.new_zeros(B + 1, self.tasks)
        for step in range(self.depth):
            state = self.get_submodule(f"block_{step}")(state, places, dropout_rate)
        return scaled(self.head(state[2][:B]), self.style.output_scale)


def _total(values: torch.Tensor, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The sums of the values that go to each row of another array."""
    zeros = values.new_zeros(len(like), values.shape[1])
    return zeros.index_add_(0, rows, values)


build = GraphNetwork

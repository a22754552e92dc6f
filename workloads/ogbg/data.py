"""The rows of the ogbg workload: built-in molecules, or the folder of an OGB data set."""

from pathlib import Path

import numpy as np

from algoperf.data.formats import ogb
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data
from workloads.ogbg import generator
from workloads.parts.graphs import EDGE_FEATURES, NODE_FEATURES, GraphRows, Graphs, Room


def load(
    source: str,
    nodes_per_row: int | None = None,
    seed: int = 0,
    validation_seed: int | None = None,
) -> Data:
    """Return graphs with their labels.

    Args:
        source: 'builtin' or a folder as `algoperf.data.formats.ogb` reads it.
        nodes_per_row: The node slots of a row of a batch (`workloads.parts.graphs.Room`); None:
            what the training graphs need on average.
        seed: The seed of the built-in molecules.
        validation_seed: As of `generator.generate`.

    Returns:
        For each split, 'inputs', int32, the graphs in slots, 'targets', float32 (rows, tasks), 1 or
        0, also where a label is missing, and 'weights', 0 there.

    Raises:
        UserError: The folder cannot be read, or a split has no graph.
    """
    if source == "builtin":
        splits = {}
        for split in SPLITS:
            drawn = generator.generate(split, seed, validation_seed)
            splits[split] = (drawn.graphs, drawn.labels_GT)
    else:
        splits = _read(Path(source))
    train = splits["train"][0]
    room = Room(nodes_per_row) if nodes_per_row else average_room(train)
    graphs = [each for each, _ in splits.values()]
    largest = Room.holding(
        int(max(each.nodes.max() for each in graphs)),
        int(2 * max(each.bonds.max() for each in graphs)),
    )
    rows = {split: GraphRows(*content, room, largest) for split, content in splits.items()}
    labels_GT = splits["train"][1]
    notes = {
        "nodes_per_row": room.nodes,
        "edges_per_row": room.edges,
        "missing_labels": float(np.isnan(labels_GT).mean()),
    }
    return Data(rows, model={"tasks": labels_GT.shape[1]}, notes=notes)


def average_room(graphs: Graphs) -> Room:
    """Return the room of a row in a batch of as many average graphs as rows."""
    return Room.holding(int(np.ceil(graphs.nodes.mean())), int(np.ceil(2 * graphs.bonds.mean())))


def _read(folder: Path) -> dict[str, tuple[Graphs, np.ndarray]]:
    content = ogb.read(folder, NODE_FEATURES, EDGE_FEATURES)
    everything = Graphs(*content[:5])
    splits = {}
    for split, numbers in content.splits.items():
        if len(numbers) == 0:
            raise UserError(f"{folder / 'split' / 'scaffold'}: no graph in the {split} split")
        splits[split] = (everything.chosen(numbers), content.labels[numbers])
    return splits

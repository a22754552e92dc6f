"""The rows of the ogbg workload: built-in molecules, the folder of an OGB data set, or one of
MoleculeNet's CSV files.
"""

from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.formats import molecules, ogb
from algoperf.errors import UserError
from algoperf.workload import SPLITS, Data
from workloads.ogbg import generator
from workloads.parts.graphs import EDGE_FEATURES, NODE_FEATURES, GraphRows, Graphs, Room


def load(
    source: str,
    nodes_per_row: int | None = None,
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return graphs with their labels.

    Args:
        source: 'builtin' or a folder, as `algoperf.data.formats.ogb` or `molecules` reads it.
        nodes_per_row: The node slots of a row of a batch (`workloads.parts.graphs.Room`); None:
            what the training graphs need on average.
        seed: The seed of the built-in molecules.
        skip_bad_rows: Whether SMILES that are no molecule are left out and counted.
        validation_seed: As of `generator.generate`.

    Returns:
        For each split, 'inputs', int32, the graphs in slots, 'targets', float32 (rows, tasks), 1 or
        0, also where a label is missing, and 'weights', 0 there.

    Raises:
        UserError: The folder cannot be read, or a split has no graph.
    """
    read_notes: dict[str, Any] = {}
    if source == "builtin":
        splits = {}
        for split in SPLITS:
            drawn = generator.generate(split, seed, validation_seed)
            splits[split] = (drawn.graphs, drawn.labels_GT)
    else:
        splits, read_notes = _read(Path(source), skip_bad_rows)
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
        **read_notes,
    }
    return Data(rows, model={"tasks": labels_GT.shape[1]}, notes=notes)


def average_room(graphs: Graphs) -> Room:
    """Return the room of a row in a batch of as many average graphs as rows."""
    return Room.holding(int(np.ceil(graphs.nodes.mean())), int(np.ceil(2 * graphs.bonds.mean())))


def _read(
    folder: Path, skip_bad_rows: bool
) -> tuple[dict[str, tuple[Graphs, np.ndarray]], dict[str, Any]]:
    hint = ""
    if molecules.has_files(folder):
        hint = "; give train.csv, valid.csv and test.csv"
        content, notes = molecules.read(folder, skip_bad_rows)
    elif skip_bad_rows:
        raise UserError(
            f"--skip-bad-rows: the tables of an OGB data set belong together ({folder}); only a "
            "CSV file of SMILES has lines that can be left out"
        )
    else:
        content, notes = ogb.read(folder, NODE_FEATURES, EDGE_FEATURES), {}
    everything = Graphs(*content[:5])
    splits = {}
    for split, numbers in content.splits.items():
        if len(numbers) == 0:
            raise UserError(f"{folder}: no graph in the {split} split{hint}")
        splits[split] = (everything.chosen(numbers), content.labels[numbers])
    return splits, notes

"""Tox21's molecules and Criteo's clicks through the folders that the workloads read.

They are samples beside the repository, of restrictive licences; where there are none, this is
skipped.
"""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from algoperf import backends
from algoperf.data.batches import TrainingQueue
from algoperf.data.loading import load_data
from algoperf.experiments.check import parity
from algoperf.experiments.check.parity import Side
from algoperf.workload import catalogue

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real samples are not beside the repository"
)
STEPS = 30


def write_tox21(folder):
    """The sample's graphs in OGB's layout; return what is in the sample."""
    sample = dict(np.load(SHARED / "molecules" / "tox21_graphs.npz"))
    starts = np.cumsum(sample["n_node"]) - sample["n_node"]
    owner = np.repeat(np.arange(len(starts)), sample["n_edge"])
    first = sample["edge_index"][0] < sample["edge_index"][1]  # each bond once, of two edges
    tables = {
        "raw/num-node-list": sample["n_node"][:, None],
        "raw/num-edge-list": np.bincount(owner[first], minlength=len(starts))[:, None],
        "raw/node-feat": sample["node_feat"],
        "raw/edge": sample["edge_index"].T[first],
        "raw/edge-feat": sample["edge_feat"][first],
        "raw/graph-label": sample["labels"],
    }
    for number, split in enumerate(("train", "valid", "test")):
        tables[f"split/scaffold/{split}"] = np.flatnonzero(sample["split"] == number)[:, None]
    for name, rows in tables.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            csv.writer(file).writerows(rows.tolist())
    return sample


@pytest.fixture(scope="module")
def tox21(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tox21")
    sample = write_tox21(folder)
    definition = catalogue.find("ogbg")
    return sample, load_data(definition, definition.scales["mini"], str(folder))


def test_tox21_s_graphs_are_the_sample_s(tox21):
    sample, data = tox21
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 5276,
        "validation": 659,
        "test": 660,
    }
    assert data.model == {"tasks": 12}
    for number, split in enumerate(("train", "validation", "test")):
        rows, own = data.splits[split], sample["split"] == number
        np.testing.assert_array_equal(rows.graphs.nodes, sample["n_node"][own])
        np.testing.assert_array_equal(2 * rows.graphs.bonds, sample["n_edge"][own])
        owner = np.repeat(own, sample["n_node"])
        np.testing.assert_array_equal(rows.graphs.node_features, sample["node_feat"][owner])
        batch = rows.take(np.arange(len(rows)))
        labels = sample["labels"][own]
        np.testing.assert_array_equal(batch["weights"], ~np.isnan(labels))
        np.testing.assert_array_equal(batch["targets"], np.nan_to_num(labels))
    assert data.notes["missing_labels"] == pytest.approx(
        np.isnan(sample["labels"][sample["split"] == 0]).mean()
    )


def losses(definition, data, framework, batch_size):
    """Those of adamw's first steps."""
    backend = backends.load(framework)
    bound = backend.workload(definition, definition.scales["mini"], "folder", data)
    queue = TrainingQueue(data.splits["train"], batch_size, seed=0)
    rows = [next(queue) for _ in range(STEPS)]
    queue.close()
    return parity._train(Side(backend, bound), rows, 1.0)


def assert_falls_alike(definition, data, batch_size):
    ours, theirs = (
        np.array(losses(definition, data, name, batch_size)) for name in ("jax", "pytorch")
    )
    np.testing.assert_allclose(theirs, ours, rtol=1e-2)
    for each in (ours, theirs):
        assert each[-5:].mean() < 0.9 * each[:3].mean()


@pytest.mark.slow
def test_on_tox21_the_loss_falls_alike_in_both_frameworks(tox21):
    assert_falls_alike(catalogue.find("ogbg"), tox21[1], 64)


@pytest.fixture(scope="module")
def criteo():
    definition = catalogue.find("criteo1tb")
    return load_data(definition, definition.scales["mini"], str(SHARED / "criteo_kaggle"))


def test_criteo_s_rows_are_the_sample_s(criteo):
    assert {split: len(rows) for split, rows in criteo.splits.items()} == {
        "train": 7466,
        "validation": 529,
        "test": 529,
    }
    rows = criteo.splits["train"]
    batch = rows.take(np.arange(len(rows)))
    with gzip.open(SHARED / "criteo_kaggle" / "train.txt.gz", "rt") as file:
        lines = list(csv.reader(file, delimiter="\t"))
    assert len(lines) == len(rows)
    np.testing.assert_array_equal(batch["targets"], [float(line[0]) for line in lines])
    counts = [[int(cell) if cell else -1 for cell in line[1:14]] for line in lines]
    np.testing.assert_array_equal(batch["inputs"][:, :13], counts)
    assert (np.array(counts) == -1).mean() > 0.05  # empty cells, but for some that are -1
    for column in range(26):  # a table's row for each text, and the same for the same
        row_of_text = {}
        for line, row in zip(lines, batch["inputs"][:, 13 + column].tolist(), strict=True):
            assert row_of_text.setdefault(line[14 + column], row) == row


@pytest.mark.slow
def test_on_criteo_s_rows_the_loss_falls_alike_in_both_frameworks(criteo):
    assert_falls_alike(catalogue.find("criteo1tb"), criteo, 256)

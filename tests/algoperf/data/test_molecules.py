"""CSV files of SMILES: graphs, labels and splits, and damage that is named."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algoperf.data.formats import molecules
from algoperf.data.loading import load_data
from algoperf.data.select import skip_bad_rows
from algoperf.errors import UserError
from algoperf.workload import SPLITS, catalogue

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "molecules"
# Ethanol, benzene, methane, and pyridine with its methyl: atoms and bonds counted by hand.
HEADER = "toxic,id,smiles,weight,active"
LINES = ["1.0,a,CCO,46.1,0", ",b,c1ccccc1,78.1,1", "0.0,c,C,16.0,", "1,d,Cc1ccccn1,93.1,1"]


def write(folder, lines=LINES, name="all.csv", header=HEADER):
    folder.mkdir(exist_ok=True)
    content = "".join(f"{line}\n" for line in [header, *lines]).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    return folder


@pytest.mark.parametrize("name", ["all.csv", "all.csv.gz"])
def test_a_file_is_read(tmp_path, name):
    content, notes = molecules.read(write(tmp_path, name=name))
    assert content.nodes.tolist() == [3, 6, 1, 7]
    assert content.bonds.tolist() == [2, 6, 0, 7]
    # The first feature is the atomic number less 1.
    assert content.node_features[:, 0].tolist() == [5, 5, 7, *[5] * 6, 5, *[5] * 6, 6]
    assert content.ends[:2].tolist() == [[0, 1], [1, 2]]
    assert content.bond_features[:2, 0].tolist() == [0, 0]  # single bonds
    assert content.bond_features[2:8, 0].tolist() == [3] * 6  # aromatic ones
    nan = np.nan
    np.testing.assert_array_equal(content.labels, [[1, 0], [nan, 1], [0, nan], [1, 1]])
    assert notes == {"tasks": ["toxic", "active"], "bad_rows": {}}
    assert sorted(row for part in content.splits.values() for row in part) == [0, 1, 2, 3]


def test_no_scaffold_is_in_two_splits():
    scaffolds = ["x"] * 12 + ["a", "b", "c", "c", "d", "e", "f", "g"]
    splits = molecules.scaffold_split(scaffolds)
    # 16 rows at the most train: x, c, and the last of those that come once; 2 more validate.
    assert splits == {
        "train": [*range(12), 14, 15, 19, 18],
        "validation": [17, 16],
        "test": [13, 12],
    }


def test_files_of_splits_are_taken_as_they_are(tmp_path):
    for name, line in zip(("train", "valid", "test"), LINES, strict=False):
        write(tmp_path, [line], f"{name}.csv")
    content, _ = molecules.read(tmp_path)
    splits = {split: rows.tolist() for split, rows in content.splits.items()}
    assert splits == {"train": [0], "validation": [1], "test": [2]}


def test_the_workload_reads_and_counts(tmp_path):
    definition = catalogue.find("ogbg")
    scale = definition.scales["mini"]
    with pytest.raises(UserError, match=r"validation split; give train\.csv"):
        load_data(definition, scale, str(write(tmp_path)))
    lines = [*LINES[::2] * 16, *LINES[1::2] * 4]  # of three scaffolds
    write(tmp_path, [*lines, "0,e,C1CC,1.0,1"])
    with pytest.raises(UserError, match=r"all\.csv:42: 'C1CC' is no molecule that rdkit can read"):
        load_data(definition, scale, str(tmp_path))
    data = load_data(definition, skip_bad_rows(definition, scale), str(tmp_path))
    assert data.notes["bad_rows"] == {"train": {"no molecule": 1}}
    assert [len(data.splits[split]) for split in SPLITS] == [32, 4, 4]
    assert data.model == {"tasks": 2}
    # At mini a row has room for an average graph: of 2 atoms, and one to spare.
    assert (data.notes["nodes_per_row"], data.notes["edges_per_row"]) == (3, 6)
    full = load_data(
        definition, skip_bad_rows(definition, definition.scales["full"]), str(tmp_path)
    )
    assert (full.notes["nodes_per_row"], full.notes["edges_per_row"]) == (26, 58)


# 2,2'-dichloro-6,6'-dimethylbiphenyl, whose bond between the rings has a side: no feature of OGB's.
ATROPISOMER = "Cc1cccc(Cl)c1-c1c(C)cccc1Cl |wU:7.6|"


def test_a_molecule_without_a_graph_is_named_or_counted(tmp_path):
    write(tmp_path, [*LINES, f"1,e,{ATROPISOMER},1.0,1"])
    with pytest.raises(UserError, match=r"all\.csv:6: no graph can be made of 'Cc1c.*STEREOATR"):
        molecules.read(tmp_path)
    content, notes = molecules.read(tmp_path, skip_bad_rows=True)
    assert notes["bad_rows"] == {"train": {"no graph": 1}}
    assert content.nodes.tolist() == [3, 6, 1, 7]
    assert sorted(row for part in content.splits.values() for row in part) == [0, 1, 2, 3]


MISTAKES = {
    "a column twice": (
        {"header": "toxic,id,smiles,active,active"},
        r"all.csv: column 'active' twice in its first line",
    ),
    "no column": ({"header": "toxic,id,mol,weight,active"}, r"all.csv: no column 'smiles'; it has"),
    "no label": ({"lines": ["2,a,CCO,4,x"]}, r"no column of labels.*: toxic, id, weight, active"),
    "no row": ({"lines": []}, r"no column of labels"),
    "a cell too few": ({"lines": ["1,a,CCO,4"]}, r"all.csv:2: 4 fields, expected 5"),
    "an empty molecule": ({"lines": ["1,a,,4,0"]}, r"all.csv:2: '' is no molecule"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, case):
    changes, message = MISTAKES[case]
    with pytest.raises(UserError, match=message):
        molecules.read(write(tmp_path, **changes))


def test_other_files_are_named(tmp_path):
    write(tmp_path, name="train.csv")
    write(tmp_path, name="extra.csv")
    with pytest.raises(UserError, match=r"2 CSV files \(extra, train\); expected one"):
        molecules.read(tmp_path)
    for name in ("valid.csv", "test.csv"):
        write(tmp_path, name=name, header="toxic,id,smiles,weight,other")
    with pytest.raises(UserError, match=r"valid.csv: other columns than the other files'"):
        molecules.read(tmp_path)


def test_the_tables_of_ogb_are_not_skipped_in(tmp_path):
    definition = catalogue.find("ogbg")
    scale = skip_bad_rows(definition, definition.scales["mini"])
    with pytest.raises(UserError, match="--skip-bad-rows: the tables of an OGB data set belong"):
        load_data(definition, scale, str(tmp_path))


def test_reading_asks_no_index_and_loads_no_framework(tmp_path):
    write(tmp_path)
    script = (
        "import sys, threading; from pathlib import Path\n"
        "from algoperf.data.formats import molecules\n"
        "molecules.read(Path(sys.argv[1]))\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not {'outdated', 'requests', 'torch', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside the repository")
def test_tox21_s_graphs_are_the_sample_s(tmp_path):
    sample = np.load(SHARED / "tox21_graphs.npz")
    (tmp_path / "tox21.csv.gz").symlink_to(SHARED / "tox21.csv.gz")
    content, notes = molecules.read(tmp_path)
    np.testing.assert_array_equal(content.nodes, sample["n_node"])
    np.testing.assert_array_equal(2 * content.bonds, sample["n_edge"])
    np.testing.assert_array_equal(content.node_features, sample["node_feat"])
    np.testing.assert_array_equal(content.bond_features, sample["edge_feat"][::2])
    np.testing.assert_array_equal(content.ends, sample["edge_index"].T[::2])
    np.testing.assert_array_equal(content.labels, sample["labels"])
    assert notes["tasks"] == sample["tasks"].tolist()
    sizes = {split: len(rows) for split, rows in content.splits.items()}
    assert sizes == {"train": 5276, "validation": 659, "test": 660}

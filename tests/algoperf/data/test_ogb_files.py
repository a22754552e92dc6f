"""The folder of an OGB data set: read whole, and refused by file and line."""

import gzip

import numpy as np
import pytest

from algoperf.data.formats import ogb
from algoperf.errors import UserError

TABLES = {
    "raw/num-node-list": ["3", "1", "2"],
    "raw/num-edge-list": ["2", "0", "1"],
    "raw/node-feat": [f"{row},0,{200 + row}" for row in range(6)],
    "raw/edge": ["0,1", "2,1", "1,0"],
    "raw/edge-feat": ["0,1", "2,0", "3,1"],
    "raw/graph-label": ["1.0,nan", ",0", "0,1"],
    "split/scaffold/train": ["0"],
    "split/scaffold/valid": ["2"],
    "split/scaffold/test": ["1"],
}


def write(folder, compressed=True, **changes):
    """The tables; `changes` are other lines by the file's last name, None for no file."""
    for name, lines in TABLES.items():
        lines = changes.get(name.rsplit("/", 1)[-1].replace("-", "_"), lines)
        path = folder / f"{name}.csv{'.gz' if compressed else ''}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if lines is not None:
            content = "".join(f"{line}\n" for line in lines).encode()
            path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
def test_the_tables_are_read(tmp_path, compressed):
    content = ogb.read(write(tmp_path, compressed), 3, 2)
    assert content.nodes.tolist() == [3, 1, 2]
    assert content.bonds.tolist() == [2, 0, 1]
    assert content.node_features.tolist() == [[row, 0, 200 + row] for row in range(6)]
    assert content.bond_features.tolist() == [[0, 1], [2, 0], [3, 1]]
    assert content.ends.tolist() == [[0, 1], [2, 1], [1, 0]]
    assert content.node_features.dtype == np.uint8
    np.testing.assert_array_equal(content.labels, [[1, np.nan], [np.nan, 0], [0, 1]])
    splits = {split: numbers.tolist() for split, numbers in content.splits.items()}
    assert splits == {"train": [0], "validation": [2], "test": [1]}


def test_a_single_task_may_be_missing(tmp_path):
    content = ogb.read(write(tmp_path, graph_label=["1", "", "0"]), 3, 2)
    np.testing.assert_array_equal(content.labels, [[1], [np.nan], [0]])


DAMAGE = {
    "no file": ({"edge": None}, r"raw/edge.csv.gz: no such file; expected the folder of an OGB"),
    "no number": ({"edge": ["0,1", "2,x", "1,0"]}, r"edge.csv.gz, line 2: .*'x'"),
    "a date": ({"edge_feat": ["2020-01-01,1"] * 3}, r"edge-feat.csv.gz, line 1: .*'2020-01-01'"),
    "an empty cell": ({"edge": ["0,1", "2,", "1,0"]}, r"edge.csv.gz, line 2: "),
    "a float": ({"edge_feat": ["0,1", "2,0", "3,1.5"]}, r"edge-feat.csv.gz, line 3: .*'1.5'"),
    "more columns": ({"edge": ["0,1", "2,1", "1,0,7"]}, r"edge.csv.gz, line 3: 3 columns, exp"),
    "other columns": ({"node_feat": ["1,2"] * 6}, r"node-feat.csv.gz, line 1: 2 columns, exp"),
    "fewer nodes": ({"node_feat": ["1,2,3"] * 5}, r"node-feat.csv.gz: 5 lines, expected 6 "),
    "fewer labels": ({"graph_label": ["1", "0"]}, r"graph-label.csv.gz: 2 lines, expected 3 "),
    "another graph's node": ({"edge": ["0,1", "2,3", "1,0"]}, r"edge.csv.gz, line 2: 3, expected "),
    "below 0": ({"node_feat": ["1,2,3"] * 5 + ["1,-2,3"]}, r"node-feat.csv.gz, line 6: -2, exp"),
    "another label": ({"graph_label": ["1,0", "0,2", "0,1"]}, r"label.csv.gz, line 2: the label 2"),
    "bonds below 0": ({"num_edge_list": ["4", "-2", "1"]}, r"edge-list.csv.gz, line 2: -2, expect"),
    "bonds below 0 in all": (
        {"num_edge_list": ["-1", "2", "1"], "edge": ["0,1"] * 2, "edge_feat": ["0,0"] * 2},
        r"num-edge-list.csv.gz, line 1: -1, expected 0 to",
    ),
    "nodes below 0": ({"num_node_list": ["8", "-4", "2"]}, r"node-list.csv.gz, line 2: -4, expect"),
    "a graph in two splits": (
        {"train": ["0", "1"], "test": ["1"]},
        r"test.csv.gz, line 1: graph 1 is in .*train.csv.gz already; a graph is in one split, once",
    ),
    "a graph twice in a split": (
        {"valid": ["2", "1", "2"], "test": []},
        r"valid.csv.gz, line 3: graph 2 is in .*valid.csv.gz already; a graph",
    ),
    "a date as a label": (
        {"graph_label": ["2020-01-01", "1", "0"]},
        r"graph-label.csv.gz, line 1: .*2020",
    ),
    "a date everywhere": ({"graph_label": ["2020-01-01"] * 3}, r"graph-label.csv.gz, line 1: "),
    "no such graph": ({"valid": ["3"]}, r"valid.csv.gz, line 1: 3, expected 0 to 2"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_with_the_line(tmp_path, kind):
    changes, message = DAMAGE[kind]
    with pytest.raises(UserError, match=message):
        ogb.read(write(tmp_path, **changes), 3, 2)


def test_bytes_that_are_no_text_are_named_with_the_line(tmp_path):
    path = write(tmp_path, compressed=False) / "raw" / "edge.csv"
    path.write_bytes(b"0,1\n\xff,1\n1,0\n")
    with pytest.raises(UserError, match=r"edge.csv, line 2: "):
        ogb.read(tmp_path, 3, 2)
    path.write_bytes(b"\xef\xbb\xbf0,1\n2,x\n1,0\n")
    with pytest.raises(UserError, match=r"edge.csv, line 2: .*'x'"):
        ogb.read(tmp_path, 3, 2)
    path.write_bytes(b"\xef\xbb\xbf0,1\n2,1\n1,0\n")
    assert ogb.read(tmp_path, 3, 2).ends.tolist() == [[0, 1], [2, 1], [1, 0]]


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = write(tmp_path) / "raw" / "node-feat.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match=r"node-feat.csv.gz.*damaged .*download it again"):
        ogb.read(tmp_path, 3, 2)

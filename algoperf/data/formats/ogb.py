"""The folder of a data set of graphs as OGB's archives unpack it (Hu et al. 2020).

`raw/` has a line for each graph in `num-node-list.csv.gz`, `num-edge-list.csv.gz` and
`graph-label.csv.gz`, and the lines of all graphs one after another in `node-feat.csv.gz`,
`edge.csv.gz` (a bond's two nodes, counted in their graph from 0) and `edge-feat.csv.gz`.
`split/scaffold/` has the numbers of the graphs of each split. Files may be without `.gz`.
"""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.errors import UserError

SPLIT_FILES = {"train": "train", "validation": "valid", "test": "test"}
MOST_PARTS = 2**31  # nodes or bonds of a graph


class Content(NamedTuple):
    """All graphs of a folder, one after another, and which of them each split has.

    Attributes:
        nodes: Nodes of each graph, (G,).
        bonds: Lines of `edge` that each graph has, (G,).
        node_features: Of all nodes.
        bond_features: Of all bonds.
        ends: The two nodes of each bond, counted in its graph.
        labels: (G, T), NaN where one is missing.
        splits: The graphs of each split.
    """

    nodes: NDArray[np.int64]
    bonds: NDArray[np.int64]
    node_features: NDArray[Any]
    bond_features: NDArray[Any]
    ends: NDArray[Any]
    labels: NDArray[np.float32]
    splits: dict[str, NDArray[np.int64]]


def read(folder: Path, node_features: int, edge_features: int) -> Content:
    """Return the graphs of a folder.

    Args:
        folder: What has `raw` and `split`.
        node_features: How many numbers describe a node.
        edge_features: How many describe a bond.

    Raises:
        UserError: A file is missing or damaged, the files contradict each other, or a graph is in
            two splits or twice in one. The message names the file, and the line where one is at
            fault.
    """
    raw = folder / "raw"
    nodes = _integers(raw, "num-node-list", 1)[:, 0]
    bonds = _integers(raw, "num-edge-list", 1)[:, 0]
    # Counts come first: sums of negative ones may be right.
    for name, counts in (("num-node-list", nodes), ("num-edge-list", bonds)):
        _check_range(_path(raw, name), counts, MOST_PARTS)
    labels = _labels(raw)
    features = _integers(raw, "node-feat", node_features)
    ends = _integers(raw, "edge", 2)
    bond_features = _integers(raw, "edge-feat", edge_features)
    for name, count, expected, of_what in (
        ("num-edge-list", len(bonds), len(nodes), "a graph each in num-node-list"),
        ("graph-label", len(labels), len(nodes), "a graph each in num-node-list"),
        ("node-feat", len(features), int(nodes.sum()), "the sum of num-node-list"),
        ("edge", len(ends), int(bonds.sum()), "the sum of num-edge-list"),
        ("edge-feat", len(bond_features), int(bonds.sum()), "the sum of num-edge-list"),
    ):
        if count != expected:
            raise UserError(
                f"{_path(raw, name)}: {count} lines, expected {expected} ({of_what}); "
                "unpack the archive again"
            )
    for name, values, limit in (
        ("edge", ends, np.repeat(nodes, bonds)[:, None]),
        ("node-feat", features, 2**16),
        ("edge-feat", bond_features, 2**16),
    ):
        _check_range(_path(raw, name), values, limit)
    splits = {}
    for split, file in SPLIT_FILES.items():
        numbers = _integers(folder / "split" / "scaffold", file, 1)[:, 0]
        _check_range(_path(folder / "split" / "scaffold", file), numbers, len(nodes))
        splits[split] = numbers
    _check_once(folder, splits)
    return Content(nodes, bonds, small(features), small(bond_features), small(ends), labels, splits)


def _path(folder: Path, name: str) -> Path:
    """The file of a name, compressed or not."""
    paths = [folder / f"{name}.csv.gz", folder / f"{name}.csv"]
    found_path = next((path for path in paths if path.is_file()), None)
    if found_path is None:
        raise UserError(
            f"{paths[0]}: no such file; expected the folder of an OGB data set, with raw/ and "
            "split/scaffold/, or one with CSV files that have a column of SMILES"
        )
    return found_path


def _table(path: Path, kind: Any, columns: int | None) -> NDArray[Any]:
    """A file's numbers, without a header line; an empty file has no line."""
    from pyarrow import ArrowException, csv

    options = csv.ReadOptions(autogenerate_column_names=True)
    try:
        table = csv.read_csv(str(path), options, csv.ParseOptions(ignore_empty_lines=False))
        names = table.column_names
        arrays = [_numbers(table[name], kind) for name in names]
    except (ArrowException, OSError, EOFError, ValueError) as error:
        if "Empty CSV" in str(error):
            return np.empty((0, columns or 0), kind)
        raise UserError(_fault(path, kind, columns) or f"{path}: damaged: {error}") from error
    if columns is not None and len(arrays) != columns:
        raise UserError(f"{path}, line 1: {len(arrays)} columns, expected {columns}")
    return np.stack(arrays, axis=1)


def _numbers(column: Any, kind: Any) -> NDArray[Any]:
    """A column as numbers; empty cells are NaN, which integers have none of."""
    import pyarrow

    values = column.combine_chunks()
    is_float = np.dtype(kind).kind == "f"
    if pyarrow.types.is_null(values.type) and is_float:
        return np.full(len(values), np.nan, kind)
    if values.null_count and not is_float:
        raise ValueError("an empty cell")
    wanted = pyarrow.from_numpy_dtype(np.dtype(kind))
    numbers: NDArray[Any] = values.cast(wanted).to_numpy(zero_copy_only=False).astype(kind)
    return numbers


def _fault(path: Path, kind: Any, columns: int | None) -> str | None:
    """Where a file cannot be read, line by line."""
    parse = float if np.dtype(kind).kind == "f" else int
    number = 0
    try:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", errors="backslashreplace") as file:
            for number, line in enumerate(file, start=1):
                cells = line.rstrip("\r\n").split(",")
                columns = columns or len(cells)
                if len(cells) != columns:
                    return f"{path}, line {number}: {len(cells)} columns, expected {columns}"
                for cell in cells:
                    if cell or parse is int:
                        parse(cell)
    except ValueError as error:
        return f"{path}, line {number}: {error}"
    except (OSError, EOFError) as error:
        return f"{path}, after line {number}: damaged ({error}); download it again"
    return None


def _integers(folder: Path, name: str, columns: int) -> NDArray[np.int64]:
    return _table(_path(folder, name), np.int64, columns)


def _labels(raw: Path) -> NDArray[np.float32]:
    """Labels, (G, T): 0, 1, or NaN where a cell is empty or 'nan'."""
    path = _path(raw, "graph-label")
    labels = _table(path, np.float64, None).astype(np.float32)
    wrong = ~(np.isnan(labels) | (labels == 0) | (labels == 1))
    if wrong.any():
        line = int(wrong.any(1).argmax())
        value = labels[line][wrong[line]][0]
        raise UserError(f"{path}, line {line + 1}: the label {value:g}, expected 0, 1 or none")
    return labels


def _check_range(path: Path, values: NDArray[np.int64], limit: Any) -> None:
    wrong = (values < 0) | (values >= limit)
    if wrong.any():
        line = int(wrong.reshape(len(wrong), -1).any(1).argmax())
        value = values[line][wrong[line]] if values.ndim > 1 else values[line : line + 1]
        most = int(np.broadcast_to(limit, values.shape)[line].max()) - 1
        raise UserError(f"{path}, line {line + 1}: {int(value[0])}, expected 0 to {most}")


def _check_once(folder: Path, splits: dict[str, NDArray[np.int64]]) -> None:
    """Raise UserError where a graph is in two splits, or twice in one."""
    paths: dict[int, Path] = {}
    for split, numbers in splits.items():
        path = _path(folder / "split" / "scaffold", SPLIT_FILES[split])
        for line, number in enumerate(numbers.tolist(), start=1):
            if number in paths:
                raise UserError(
                    f"{path}, line {line}: graph {number} is in {paths[number]} already; a graph "
                    "is in one split, once"
                )
            paths[number] = path


def small(values: NDArray[np.int64]) -> NDArray[Any]:
    """Return the same numbers, none below 0, in as few bytes as they need."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))

"""Molecules as MoleculeNet has them (Wu et al. 2018): a CSV file with a column of SMILES.

The packages ogb and rdkit make a graph of each, with the features that OGB's data sets have, so
that nothing of chemistry is written here. Labels are the columns in which every cell is 0, 1 or
empty; the others (names, measurements) are left out. The folder has one file, which is split by
scaffold, or one for each split: `train`, `valid` and `test`, `.csv` or `.csv.gz`.
"""

import collections
import dataclasses
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats import ogb, sources
from algoperf.errors import UserError

SMILES = "smiles"
SUFFIXES = (".csv", ".csv.gz")
LABELS = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "": np.nan}
TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.1
BAD, NO_GRAPH = "no molecule", "no graph"  # what lines are counted under


class Row(NamedTuple):
    """A line of a file.

    Attributes:
        line: The file and the line, for messages.
        smiles: The molecule.
        cells: The other columns, by name.
    """

    line: str
    smiles: str
    cells: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Chemistry:
    """What is taken of ogb and rdkit."""

    parse: Any
    graph: Any
    scaffold: Any
    quiet: Any


def has_files(folder: Path) -> bool:
    """Return whether the folder has CSV files at all."""
    return any(_files(folder))


def read(folder: Path, skip_bad_rows: bool = False) -> tuple[ogb.Content, dict[str, Any]]:
    """Return the molecules of a folder, and notes.

    Args:
        folder: What has the CSV file, or one for each split.
        skip_bad_rows: Whether lines whose SMILES is no molecule, or one that OGB's features cannot
            describe, are left out; the notes count them by split and reason as 'bad_rows'.

    Raises:
        UserError: ogb or rdkit is not installed; there is another number of files; a file has no
            column of SMILES or of labels, one column twice, or the files have other labels; a line
            is damaged. The message names the file, and the line where one is at fault.
    """
    chemistry = _chemistry()
    paths = _by_split(folder)
    rows: dict[str, list[Row]] = {name: list(_rows(path)) for name, path in paths.items()}
    tasks = _tasks(folder, [row for each in rows.values() for row in each])
    graphs: list[Mapping[str, Any]] = []
    labels: list[list[float]] = []
    scaffolds: list[str] = []
    bad: dict[str, dict[str, int]] = {}
    numbers: dict[str, list[int]] = {name: [] for name in rows}
    with chemistry.quiet():
        for name, row in ((name, row) for name, each in rows.items() for row in each):
            try:
                graph, scaffold = _made(chemistry, row, has_scaffold=len(rows) == 1)
            except _BadLineError as error:
                if not skip_bad_rows:
                    raise
                reasons = bad.setdefault(name, {})
                reasons[error.reason] = reasons.get(error.reason, 0) + 1
                continue
            numbers[name].append(len(graphs))
            graphs.append(graph)
            labels.append([LABELS[row.cells[task].strip()] for task in tasks])
            scaffolds.append(scaffold)
    if not graphs:
        raise UserError(f"{folder}: no molecule")
    splits: Mapping[str, Sequence[int]] = numbers
    if len(rows) == 1:
        splits = scaffold_split(scaffolds)
    by_split = {split: np.array(part, np.int64) for split, part in splits.items()}
    return _content(graphs, labels, by_split), {"tasks": tasks, "bad_rows": bad}


class _BadLineError(UserError):
    """A line that `--skip-bad-rows` leaves out, counted under `reason`."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(f"{message}; mend or remove the line, or give --skip-bad-rows")
        self.reason = reason


def _made(chemistry: Chemistry, row: Row, *, has_scaffold: bool) -> tuple[Mapping[str, Any], str]:
    """The graph of a line and, where it is needed, the scaffold."""
    molecule = chemistry.parse(row.smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise _BadLineError(
            f"{row.line}: {row.smiles[:60]!r} is no molecule that rdkit can read", BAD
        )
    try:
        scaffold = chemistry.scaffold(mol=molecule) if has_scaffold else ""
        return chemistry.graph(row.smiles), scaffold
    except (ValueError, RuntimeError) as error:  # ogb knows no bond with an axis, for example.
        raise _BadLineError(
            f"{row.line}: no graph can be made of {row.smiles[:60]!r} ({error})", NO_GRAPH
        ) from error


def scaffold_split(scaffolds: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each split, so that no scaffold is in two (Wu et al. 2018, as DeepChem).

    The most frequent scaffolds are in the training split, as many as stay within 80 % of the rows;
    then the validation split is filled up to 90 %, and the rest are tested on. Of scaffolds that
    are as frequent, the one that comes last in the file is taken first.

    Args:
        scaffolds: Each row's.
    """
    rows_of: dict[str, list[int]] = collections.defaultdict(list)
    for row, scaffold in enumerate(scaffolds):
        rows_of[scaffold].append(row)
    total = len(scaffolds)
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for rows in sorted(rows_of.values(), key=lambda rows: (len(rows), rows[0]), reverse=True):
        if len(train) + len(rows) <= TRAIN_SHARE * total:
            train += rows
        elif len(train) + len(validation) + len(rows) <= (TRAIN_SHARE + VALIDATION_SHARE) * total:
            validation += rows
        else:
            test += rows
    return {"train": train, "validation": validation, "test": test}


def _files(folder: Path) -> list[Path]:
    return sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}"))


def _by_split(folder: Path) -> dict[str, Path]:
    """The file of each split; of the only file, if there is one."""
    files = {path.name.removesuffix(".gz").removesuffix(".csv"): path for path in _files(folder)}
    if len(files) == 1:
        return {"train": next(iter(files.values()))}
    missing = [name for name in ogb.SPLIT_FILES.values() if name not in files]
    if missing:
        raise UserError(
            f"{folder}: {len(files)} CSV files ({', '.join(files)}); expected one, which is split "
            f"by scaffold, or {', '.join(ogb.SPLIT_FILES.values())}"
        )
    return {split: files[name] for split, name in ogb.SPLIT_FILES.items()}


def _rows(path: Path) -> Iterator[Row]:
    header: list[str] | None = None
    for number, cells in sources.read_csv(path, None):
        if header is None:
            header = cells
            if SMILES not in header:
                raise UserError(f"{path}: no column {SMILES!r}; it has: {', '.join(header)[:200]}")
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise UserError(f"{path}: column {twice!r} twice in its first line; remove one")
            continue
        named = dict(zip(header, cells, strict=True))
        yield Row(f"{path}:{number}", named.pop(SMILES).strip(), named)


def _tasks(folder: Path, rows: Sequence[Row]) -> list[str]:
    """The columns of labels, in the order of the file."""
    columns = list(rows[0].cells) if rows else []
    other = next((row for row in rows if list(row.cells) != columns), None)
    if other is not None:
        raise UserError(f"{other.line.rpartition(':')[0]}: other columns than the other files'")
    tasks = [
        name for name in columns
        if {row.cells[name].strip() for row in rows} <= set(LABELS)
        and any(row.cells[name].strip() for row in rows)
    ]  # fmt: skip
    if not tasks:
        raise UserError(
            f"{folder}: no column of labels, in which every cell is 0, 1 or empty; the columns "
            f"are: {', '.join(columns)[:200]}"
        )
    return tasks


def _content(
    graphs: Sequence[Mapping[str, Any]],
    labels: Sequence[Sequence[float]],
    splits: dict[str, NDArray[np.int64]],
) -> ogb.Content:
    """The arrays of all molecules, one after another; ogb has each bond twice, one way and back."""
    bonds = np.array([graph["edge_index"].shape[1] // 2 for graph in graphs], np.int64)
    return ogb.Content(
        nodes=np.array([graph["num_nodes"] for graph in graphs], np.int64),
        bonds=bonds,
        node_features=ogb.small(np.concatenate([graph["node_feat"] for graph in graphs])),
        bond_features=ogb.small(np.concatenate([graph["edge_feat"][::2] for graph in graphs])),
        ends=ogb.small(np.concatenate([graph["edge_index"].T[::2] for graph in graphs])),
        labels=np.array(labels, np.float32),
        splits=splits,
    )


def _chemistry() -> Chemistry:
    # ogb's import starts a thread that asks the package index for a newer version, if it can import
    # the package outdated.
    is_hidden = sys.modules.setdefault("outdated", None) is None  # type: ignore[arg-type]
    try:
        graph = importlib.import_module("ogb.utils.mol").smiles2graph
        chem = importlib.import_module("rdkit.Chem")
        scaffolds = importlib.import_module("rdkit.Chem.Scaffolds.MurckoScaffold")
        blocked = importlib.import_module("rdkit.rdBase").BlockLogs
    except ImportError as error:
        raise UserError(
            "a file of SMILES needs the packages ogb and rdkit; install them with: pip install "
            "'algoperf[molecules]'"
        ) from error
    finally:
        if is_hidden:
            del sys.modules["outdated"]
    return Chemistry(chem.MolFromSmiles, graph, scaffolds.MurckoScaffoldSmiles, blocked)

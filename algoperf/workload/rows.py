"""The rows of a split as everything here asks for them: how many, what is in one, a batch of some.

`algoperf.data.rows` has the kinds whose rows are not in memory.
"""

import dataclasses
import hashlib
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NamedTuple, Protocol, overload

import numpy as np

from algoperf.errors import UserError

Arrays = Mapping[str, np.ndarray]
FINGERPRINT_DIGITS = 16
# In a packed batch (see `Packing`): which of its rows are rows of the split.
IS_ROW = "is_row"
# Set the random streams of changed rows and batches apart from each other and from the order's.
OF_ROW, OF_BATCH = 0xA6, 0xA7


class Field(NamedTuple):
    """One thing that is in every row: the shape it has in one row, and its type."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Rows(Protocol):
    """The rows of one split.

    Any thread may call `take`, several at a time. `is_slow` says that a batch takes long enough
    (decoding, a network) to be taken ahead of its turn by other threads.
    """

    @property
    def is_slow(self) -> bool:
        """Whether batches are to be taken ahead by threads."""
        ...

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row, by name; among it 'inputs' and 'targets'."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that differ where rows differ; found without reading a terabyte."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return a batch of these rows, in that order: new arrays, by name, rows first."""
        ...


class Packing(Protocol):
    """How rows whose sizes differ, such as graphs, share the room of a batch of fixed shapes.

    Rows of a kind that is packed have one as their attribute `packing`. Their own `take` gives each
    row room for the largest, and means the same to a model.
    """

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row of a packed batch, by name, without `IS_ROW`."""
        ...

    def __call__(self, indices: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        """Return a batch of as many of these rows, from the first, as there is room for.

        Args:
            indices: At most `batch_size` rows.
            batch_size: The rows of the batch. Those beyond the split's have the weight 0, and
                `IS_ROW`, a field of it, is False.

        Raises:
            UserError: The first of them has no room alone.
        """
        ...


def packing_of(rows: Rows) -> Packing | None:
    """Return how rows are packed; None for rows that are not."""
    packing: Packing | None = getattr(rows, "packing", None)
    return packing


def lengths_of(rows: Rows) -> Arrays | None:
    """Return how long the 'inputs' and the 'targets' of each row are, (N,) each; None where rows
    have to be read to know it.
    """
    lengths: Arrays | None = getattr(rows, "lengths", None)
    return lengths


class ArrayRows:
    """Rows that lie in memory as one array for each name, with the rows along its first axis.

    The arrays can be read as those of a dict: `rows["targets"]`, `rows.items()`, `{**rows}`. But
    `len(rows)` is the number of rows, as for all kinds of rows.

    Args:
        arrays: The arrays by name; they are not copied.

    Raises:
        UserError: The arrays differ in their numbers of rows.
    """

    is_slow = False

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = dict(arrays)
        counts = {name: len(array) for name, array in self._arrays.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UserError(f"the arrays of a split differ in their numbers of rows: {listed}")
        self._count = next(iter(counts.values()), 0)

    def __len__(self) -> int:
        return self._count

    @property
    def fields(self) -> Mapping[str, Field]:
        """What is in a row, by name."""
        return {name: Field(array.shape[1:], array.dtype) for name, array in self._arrays.items()}

    @property
    def fingerprint(self) -> str:
        """Of names, types, shapes and bytes of every array."""
        digest = hashlib.sha256()
        for part in self.described(""):
            digest.update(part)
        return digest.hexdigest()[:FINGERPRINT_DIGITS]

    def described(self, prefix: str) -> Iterator[bytes]:
        """Yield what a fingerprint is of, array by array: its name, type and shape, its bytes."""
        for name, array in sorted(self._arrays.items()):
            yield f"{prefix}{name}:{array.dtype.str}:{array.shape}".encode()
            yield np.ascontiguousarray(array).tobytes()

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return copies of these rows."""
        return {name: array[indices] for name, array in self._arrays.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def keys(self) -> KeysView[str]:
        """The names of the arrays."""
        return self._arrays.keys()

    def items(self) -> ItemsView[str, np.ndarray]:
        """The names and the arrays."""
        return self._arrays.items()

    def values(self) -> ValuesView[np.ndarray]:
        """The arrays."""
        return self._arrays.values()

    @overload
    def get(self, name: str) -> np.ndarray | None: ...

    @overload
    def get(self, name: str, default: np.ndarray) -> np.ndarray: ...

    def get(self, name: str, default: np.ndarray | None = None) -> np.ndarray | None:
        """The array of that name, else the default."""
        return self._arrays.get(name, default)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The rows of one training batch, and what their random changes are drawn from.

    Attributes:
        rows: Which rows the batch of all ranks has, (B,).
        epochs: In which epoch each of them is drawn, (B,), counted from 0.
        seed: The seed of the order of the rows.
        own: The part of the batch that this process trains on.
    """

    rows: np.ndarray
    epochs: np.ndarray
    seed: int
    own: slice

    def row_generator(self, position: int) -> np.random.Generator:
        """What the changes of one row are drawn from: a function of seed, epoch and row alone.

        Args:
            position: Where the row stands in the batch of all ranks.
        """
        return _generator(self.seed, OF_ROW, self.epochs[position], self.rows[position])

    def batch_generator(self) -> np.random.Generator:
        """What changes of the whole batch are drawn from, the same on all ranks."""
        return _generator(self.seed, OF_BATCH, self.epochs[0], self.rows[0])


def _generator(seed: int, stream: int, epoch: int, row: int) -> np.random.Generator:
    sequence = np.random.SeedSequence([seed, stream, int(epoch), int(row)])
    return np.random.Generator(np.random.Philox(sequence))


class Augmentation(Protocol):
    """Random changes of training rows, such as crops: the same for a seed in both frameworks.

    Evaluation sees the rows themselves. Any thread may call it, several at a time.
    """

    def fields(self, rows: Rows) -> Mapping[str, Field]:
        """What is in a row that was changed, by name."""
        ...

    def __call__(self, rows: Rows, drawn: Drawn) -> dict[str, np.ndarray]:
        """Return the own rows of a batch, changed; it depends on nothing but the arguments."""
        ...


def source_row(rows: Rows, index: int) -> Mapping[str, Any]:
    """Return one row as its source has it, before it is brought to the shape of all rows.

    An image is then as large as its file says. Rows of a kind that knows no other form are taken
    as they are.
    """
    own = getattr(rows, "source_row", None)
    if own is not None:
        row: Mapping[str, Any] = own(index)
        return row
    return {name: array[0] for name, array in rows.take(np.array([index])).items()}


def as_rows(rows: Rows | Arrays) -> Rows:
    """Return rows of any kind as they are, and a plain mapping of arrays as `ArrayRows`."""
    if isinstance(rows, Mapping):
        return ArrayRows(rows)
    return rows


def in_memory(rows: Rows | Arrays, purpose: str) -> ArrayRows:
    """Return rows whose arrays can be read whole.

    Args:
        rows: Rows of any kind, or a mapping of arrays.
        purpose: What needs them, as the message is to name it.

    Raises:
        UserError: The rows are of another kind.
    """
    rows = as_rows(rows)
    if not isinstance(rows, ArrayRows):
        kind = type(rows).__name__
        raise UserError(f"{purpose} needs all rows in memory; those of this workload are {kind}")
    return rows

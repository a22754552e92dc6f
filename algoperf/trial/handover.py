"""Memory that a trial's two processes share: training rows one way, parameters the other.

Both are plain bytes in one block each, so that nothing of a submission's objects crosses over. The
block is anonymous memory, or an unlinked file where the system has no such memory, and reaches the
trainer as it is started.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from typing import Any

import numpy as np

from algoperf.trial.judgement import Signature
from algoperf.workload.rows import ArrayRows

ALIGNED_TO = 64  # bytes, at which NumPy and XLA both take arrays without copying them
COUNTERS = 1  # numbers before the parameters, of which the first is the step


@dataclasses.dataclass(frozen=True)
class Part:
    """One array in a block: where its bytes are, and what they are."""

    start: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return math.prod(self.shape) * _type(self.dtype).itemsize


Layout = Mapping[str, Part]


def lay_out(signature: Signature, start: int = 0) -> tuple[dict[str, Part], int]:
    """Place arrays one after another in a block.

    Args:
        signature: The shape and the type of each, by name.
        start: The first byte that may be used.

    Returns:
        Where each is, and how many bytes the block needs.
    """
    layout = {}
    for name, (shape, dtype) in signature.items():
        start = -(-start // ALIGNED_TO) * ALIGNED_TO
        layout[name] = part = Part(start, tuple(shape), dtype.rpartition(".")[2])
        start += part.size
    return layout, start


class Block:
    """A block of memory for the arrays of a layout, in each of the processes that share it.

    Args:
        context: Starts the process that it is shared with.
        layout: Where each array is,
        size: and how many bytes they need.
    """

    def __init__(self, context: ForkServerContext, layout: Layout, size: int) -> None:
        self.layout = layout
        self._bytes: Any = context.RawArray("B", size + ALIGNED_TO)

    @property
    def memory(self) -> np.ndarray:
        """All its bytes, from the first one that is aligned; writing is seen by the others."""
        whole = np.frombuffer(self._bytes, np.uint8)
        return whole[-whole.ctypes.data % ALIGNED_TO :]

    def bytes_of(self) -> dict[str, np.ndarray]:
        """Return the bytes of each array by name, in the block."""
        memory = self.memory
        return {
            name: memory[part.start : part.start + part.size] for name, part in self.layout.items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return each array by name, in the block."""
        return {
            name: own.view(_type(self.layout[name].dtype)).reshape(self.layout[name].shape)
            for name, own in self.bytes_of().items()
        }


class Handover:
    """Where a trainer puts its parameters, and how many steps it has made, for its referee.

    Args:
        context: Starts the trainer.
        signature: The shape and the type of each parameter and running statistic, by name.
    """

    def __init__(self, context: ForkServerContext, signature: Signature) -> None:
        self.signature = signature
        layout, size = lay_out(signature, COUNTERS * 8)
        self._block = Block(context, layout, size)

    @property
    def counters(self) -> np.ndarray:
        """The counters, of which the first is the step."""
        return self._block.memory[: COUNTERS * 8].view(np.int64)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the bytes of each parameter by name, in the shared memory."""
        return self._block.bytes_of()

    def copy(self, other: "Handover") -> None:
        """Take the parameters of another one of the same signature."""
        given = other.parameters()
        for name, own in self.parameters().items():
            own[...] = given[name]

    def checksum(self) -> int:
        """Return a checksum of the bytes of all parameters."""
        return zlib.crc32(self._block.memory[COUNTERS * 8 :].data)


class SharedRows:
    """The training rows of a trial, which both processes read in the same memory.

    Args:
        context: Starts the trainer.
        rows: The rows.
    """

    def __init__(self, context: ForkServerContext, rows: ArrayRows) -> None:
        signature = {name: (array.shape, str(array.dtype)) for name, array in rows.items()}
        layout, size = lay_out(signature)
        self._block = Block(context, layout, size)
        self.restore(rows)
        self._checksum = self._sum()

    def have_changed(self) -> bool:
        """Return whether somebody has written into the memory, which both processes can."""
        return self._sum() != self._checksum

    def restore(self, rows: ArrayRows) -> None:
        """Write the rows into the memory."""
        for name, array in self._block.arrays().items():
            array[...] = rows[name]

    def _sum(self) -> int:
        return zlib.crc32(self._block.memory.data)

    def rows(self) -> ArrayRows:
        """Return the rows, as read-only arrays."""
        arrays = self._block.arrays()
        for array in arrays.values():
            array.flags.writeable = False
        return ArrayRows(arrays)


def _type(name: str) -> np.dtype[Any]:
    """Return NumPy's type of that name; those that it lacks as whole numbers of their size."""
    try:
        return np.dtype(name)
    except TypeError:
        return np.dtype({"bfloat16": np.uint16}[name])

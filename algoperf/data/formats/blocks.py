"""Rows of files that are read in blocks, such as pieces of text or row groups of parquet."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from algoperf.data.order import Blocks
from algoperf.data.rows import BlockRows, ReadBlock
from algoperf.workload import Field


@dataclasses.dataclass(frozen=True)
class BlockFile:
    """A file, and how its blocks are read.

    Attributes:
        path: The file.
        sizes: The rows of each block.
        reader: Returns what reads a block by its number; several threads call that at a time. It
            is called anew for each part of the rows, since what it returns may read a file on from
            where it is.
        is_sequential: Whether a block can be read only after those before it.
    """

    path: Path
    sizes: Sequence[int]
    reader: Callable[[], ReadBlock]
    is_sequential: bool = False


def rows(
    files: Sequence[BlockFile], fields: Mapping[str, Field], window_rows: int, settings: str = ""
) -> BlockRows:
    """Return the rows of some files, one after another.

    Args:
        files: The files.
        fields: What is in a row, by name.
        window_rows: About how many rows are mixed with each other, and so held at a time.
        settings: What the rows depend on beside the files, for fingerprints.
    """
    counts = [len(file.sizes) for file in files]
    first_block = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(files)), counts)
    runs = [
        first_block[index : index + 1]
        if file.is_sequential
        else first_block[index] + np.arange(count)
        for index, (file, count) in enumerate(zip(files, counts, strict=True))
    ]

    def reader() -> ReadBlock:
        reads = [file.reader() for file in files]

        def read(block: int) -> dict[str, np.ndarray]:
            index = int(owner[block])
            return reads[index](block - int(first_block[index]))

        return read

    blocks = Blocks(
        np.array([size for file in files for size in file.sizes], np.int64),
        np.concatenate(runs).astype(np.int64),
        window_rows,
    )
    return BlockRows(blocks, fields, reader, _fingerprint(files, settings))


def _fingerprint(files: Sequence[BlockFile], settings: str) -> str:
    """Of the files' names, sizes and numbers of rows; files may be moved."""
    listed = [f"{each.path.name}:{each.path.stat().st_size}:{sum(each.sizes)}" for each in files]
    text = "\n".join([*listed, *([settings] if settings else [])])
    return hashlib.sha256(text.encode()).hexdigest()

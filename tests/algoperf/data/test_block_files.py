"""Rows of files that are read in blocks."""

from pathlib import Path

import numpy as np

from algoperf.data.formats import blocks
from algoperf.workload import Field


def test_each_part_of_the_rows_has_a_reader_of_its_own(tmp_path: Path) -> None:
    """A reader may be anywhere in a file, so that two parts would have each other begin anew."""
    path = tmp_path / "a"
    path.write_text("")
    opened: list[list[int]] = []

    def reader():
        read: list[int] = []
        opened.append(read)

        def block(number: int) -> dict[str, np.ndarray]:
            read.append(number)
            return {"row": 10 * number + np.arange(3)}

        return block

    fields = {"row": Field((), np.dtype(np.int64))}
    whole = blocks.rows([blocks.BlockFile(path, [3, 3], reader)], fields, window_rows=3)
    first, last = whole.between(0, 3), whole.between(3, 6)
    assert last.take(np.array([2, 0]))["row"].tolist() == [12, 10]
    assert first.take(np.array([1]))["row"].tolist() == [1]
    assert opened == [[], [0], [1]]

"""From the columns of click logs to what a model sees: counts, and rows of a table of embeddings.

An input is 39 whole numbers, int32: 13 counts, -1 where there is none, of which the model takes the
logarithm; and for each of the 26 categories its row of a table that all columns share. A category
is a number of up to 64 bits. It is mixed with its column's own salt, hashed by pandas' `hash_array`
(the finaliser of splitmix64, Steele et al. 2014), and the remainder by the table's rows is its row.
No float is on the way, which would not tell large numbers apart. An empty cell is a category of its
own in each column.
"""

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats.criteo_columns import CATEGORIES, COUNTS, Parsed
from algoperf.workload import Field

HASH_SEED = 0
FIELDS = {
    "inputs": Field((COUNTS + CATEGORIES,), np.dtype(np.int32)),
    "targets": Field((), np.dtype(np.float32)),
}


def hashed(numbers_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64-bit hashes."""
    from pandas.util import hash_array

    hashes: NDArray[np.uint64] = hash_array(numbers_N)
    return hashes


def table_rows(
    categories_CN: NDArray[np.uint64], rows: int, seed: int = HASH_SEED
) -> NDArray[np.int32]:
    """Return the table's row of each category, (columns, N).

    Args:
        categories_CN: The categories, a column each of the 26.
        rows: The rows of the table.
        seed: Another seed lets others meet in a row.
    """
    columns = np.arange(len(categories_CN), dtype=np.uint64)
    salts_C = hashed(columns + np.uint64(seed * CATEGORIES + 1))
    mixed_CN = categories_CN ^ salts_C[:, None]
    hashes_CN = hashed(mixed_CN.reshape(-1)).reshape(mixed_CN.shape)
    return (hashes_CN % np.uint64(rows)).astype(np.int32)


def rows_of(parsed: Parsed, rows: int) -> dict[str, np.ndarray]:
    """Return 'inputs', int32 (N, 39), and 'targets', float32 (N,), of some columns.

    Args:
        parsed: The columns, see `algoperf.data.formats.criteo_columns`.
        rows: The rows of the table of embeddings.
    """
    inputs_NI = np.empty((len(parsed["labels"]), COUNTS + CATEGORIES), np.int32)
    inputs_NI[:, :COUNTS] = parsed["counts"]
    inputs_NI[:, COUNTS:] = table_rows(parsed["categories"], rows).T
    return {"inputs": inputs_NI, "targets": parsed["labels"].astype(np.float32)}

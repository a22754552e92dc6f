"""How fast a day of click logs is read, in how much memory, against pandas; and what is resumed.

    python tests/benchmarks/criteo_reading.py FOLDER [--rows 20000000] [--rounds 3]

The first run writes FOLDER/day_0, and a small day_1 to hold out. Then, in turns: the loader takes
batches of 65,536 rows in a shuffled order, and pandas reads as many rows of the same file in order,
with the same hash. Last, a queue that is taken up in the middle and two ranks' parts are compared
with what one queue gives.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from algoperf.data.batches import TrainingQueue
from workloads.criteo1tb import data
from workloads.parts import clicks

BATCH, TABLE, CHUNK = 65_536, 2**22, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000, help="of the day")
    parser.add_argument("--read", type=int, default=1_000_000, help="rows of a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("day_0", arguments.rows), ("day_1", 10_000)):
        if not (arguments.folder / name).exists():
            write(arguments.folder / name, rows)
    started_s = time.perf_counter()
    train = data.load(str(arguments.folder), TABLE).splits["train"]
    print(f"{len(train)} rows indexed in {time.perf_counter() - started_s:.1f} s")
    ours, theirs = [], []
    batches = max(1, arguments.read // BATCH)
    for _ in range(arguments.rounds):
        # A queue of its own for each round, so that none is given blocks that another has read.
        queue = TrainingQueue(data.load(str(arguments.folder), TABLE).splits["train"], BATCH, 0)
        started_s = time.process_time()
        for _ in range(batches):
            next(queue)
        ours.append(batches * BATCH / (time.process_time() - started_s))
        position = queue.position()
        queue.close()
        started_s = time.process_time()
        read = by_pandas(arguments.folder / "day_0", max(CHUNK, arguments.read // 5))
        theirs.append(read / (time.process_time() - started_s))
        print(f"rows a second of processor time: {ours[-1]:,.0f}, pandas {theirs[-1]:,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"ratio of medians {np.median(ours) / np.median(theirs):.2f}; peak memory {peak:.2f} GiB")
    queue = TrainingQueue(train, BATCH, seed=0)
    for _ in range(batches):
        next(queue)
    assert queue.position()["offset"] == position["offset"]
    expected = [next(queue) for _ in range(3)]
    queue.close()
    resumed = TrainingQueue(data.load(str(arguments.folder), TABLE).splits["train"], BATCH, seed=0)
    resumed.go_to(position)
    for batch in expected:
        again = next(resumed)
        assert all(np.array_equal(batch[name], again[name]) for name in batch)
    resumed.close()
    print("resumed in the middle: the same bytes")
    ranks = [TrainingQueue(train, BATCH, seed=0, shard=(rank, 2)) for rank in range(2)]
    for rank in ranks:
        rank.go_to(position)
    for batch in expected:
        parts = [next(rank) for rank in ranks]
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    for rank in ranks:
        rank.close()
    print("two ranks' parts: disjoint, and together the whole")


def by_pandas(path: Path, rows: int) -> int:
    """Read, hash and count rows as pandas does."""
    names = ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
    kinds = dict.fromkeys(names[14:], str)
    chunks = pd.read_csv(
        path, sep="\t", header=None, names=names, dtype=kinds, chunksize=CHUNK, nrows=rows
    )
    count = 0
    for chunk in chunks:
        counts = chunk[names[1:14]].fillna(-1).to_numpy(np.int32)
        numbers = [
            chunk[name].map(lambda text: int(text, 16), na_action="ignore") for name in names[14:]
        ]
        missing = np.stack([column.isna().to_numpy() for column in numbers])
        categories = np.stack([column.fillna(0).to_numpy(np.uint64) for column in numbers])
        categories[missing] = 2**64 - 1
        parsed = {
            "labels": chunk["label"].to_numpy(np.int8), "counts": counts, "categories": categories
        }  # fmt: skip
        count += len(clicks.rows_of(parsed, TABLE)["inputs"])
    return count


def write(path: Path, rows: int) -> None:
    """Write random rows of the form of Criteo's, an eighth of their cells empty."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            counts = (rng.random((count, 13)) ** 4 * 5000).astype(np.int64).astype(str)
            names = np.char.mod("%08x", rng.integers(0, 2**32, (count // 10 + 1, 26)))
            names = names[rng.integers(0, len(names), count)]
            cells = np.concatenate([counts, names], axis=1).astype(object)
            cells[rng.random(cells.shape) < 0.125] = ""
            labels = rng.integers(0, 2, count).astype(str)
            lines = ("\t".join((label, *row)) for label, row in zip(labels, cells, strict=True))
            file.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()

"""Print the share of padding in the training batches of a workload, with and without sortish
sampling, over one epoch.

    python tests/benchmarks/sortish_padding.py [--workload NAME] [--data FOLDER] [--long]

'full length': every batch as long as the longest row may be. 'buckets': what a run does.
'sortish(...)': `input_queue.sortish(window, noise, multiple)`. 'positions' are those of a batch,
'shapes' the pairs of lengths that occur, each of which JAX compiles a step for. --long takes the
lengths and buckets of the full scale, with mini's tokenizer.
"""

import argparse
import dataclasses
import operator
from collections.abc import Callable

from algoperf import workload
from algoperf.data import batches
from algoperf.data.formats import sources
from algoperf.data.loading import load_data
from algoperf.data.tokenizers import PAD_ID
from algoperf.workload import catalogue

GRID = [(16, 4, 8), *((window, 1, multiple) for multiple in (8, 4) for window in (4, 16, 64))]
Next = Callable[[batches.TrainingQueue], dict[str, batches.np.ndarray]]


def measure(
    arrays: batches.Arrays, scale: workload.Scale, seed: int, take: Next, buckets: bool = True
) -> tuple[float, float, int]:
    """Return (share of padding, positions a batch, shapes) of an epoch's batches."""
    lengths = scale.buckets if buckets else scale.buckets[-1:]
    cut = batches.make_buckets(arrays, lengths, PAD_ID)
    assert cut is not None, "this workload feeds rows of one length"
    queue = batches.TrainingQueue(arrays, scale.batch_size, seed, buckets=cut)
    count = batches.row_count(arrays) // scale.batch_size
    shapes = set()
    for _ in range(count):
        batch = take(queue)
        shapes.add((batch["inputs"].shape, batch["targets"].shape))
    return 1 - cut.real_share, cut.counts[1] / count, len(shapes)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="xsum")
    parser.add_argument("--data", help="'builtin' or a folder (default: the workload's own)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="rows as long as at the full scale")
    arguments = parser.parse_args()
    definition = catalogue.find(arguments.workload)
    kind, source = sources.resolve(definition, definition.scales["mini"], arguments.data)
    scale = definition.scales["mini"].on(kind)
    if arguments.long:
        full = definition.scales["full"]
        longer = {key: full.data[key] for key in ("max_source", "max_target")}
        cut = {"buckets": full.buckets, "batch_size": full.batch_size}
        scale = dataclasses.replace(scale, **cut, data={**scale.data, **longer})
    arrays = load_data(definition, scale, source).splits["train"]
    rows: list[tuple[str, Next, bool]] = [("full length", next, False), ("buckets", next, True)]
    for window, noise, multiple in GRID:
        name = f"sortish({window}, {noise}, {multiple})"
        rows.append((name, operator.methodcaller("sortish", window, noise, multiple), True))
    print(f"{definition.name}, {kind}, batches of {scale.batch_size}, {arguments.seeds} seeds")
    print(f"{'':30} {'padding':>9} {'positions':>10} {'shapes':>7}")
    for name, take, buckets in rows:
        found = [measure(arrays, scale, seed, take, buckets) for seed in range(arguments.seeds)]
        padding, positions, shapes = (
            sum(values) / len(found) for values in zip(*found, strict=True)
        )
        print(f"{name:30} {100 * padding:8.2f}% {positions:10.0f} {shapes:7.1f}")


if __name__ == "__main__":
    main()

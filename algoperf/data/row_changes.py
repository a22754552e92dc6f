"""Changes of training rows, drawn by a fixed seed: the same rows in both frameworks and whatever
the seed of training. The rows that a score is measured on stay what they are.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from algoperf.data import order, select
from algoperf.data.order import Blocks
from algoperf.data.rows import OtherTargets
from algoperf.workload import ArrayRows, Data, Rows
from algoperf.workload.rows import in_memory

TRAIN = "train"
SEED = 0


def train_fraction(data: Data, fraction: float) -> Data:
    """Keep that share of the training rows, in their order."""
    count = _count(data)
    most = round(fraction * count)
    if count > order.LARGEST_PERMUTATION:
        kept = order.Order(count, SEED).take_all(most)
    else:
        kept = _generator(data).permutation(count)[:most]
    note = {"fraction": fraction, "seed": SEED}
    return select.keep(data, np.sort(kept), "train_fraction", note)


def label_noise(data: Data, share: float) -> Data:
    """Let that share of the training rows have one another's targets, passed on in a ring; of rows
    that are read in blocks in a ring within each block, so that a row is read with its giver.
    """
    count = _count(data)
    chosen = _generator(data).permutation(count)[: round(share * count)]
    giver = np.arange(count)
    train = data.splits[TRAIN]
    blocks: Blocks | None = getattr(train, "blocks", None)
    if blocks is None:
        giver[chosen] = np.roll(chosen, 1)
    else:
        block_of_row = blocks.block_of(chosen)
        by_block = np.argsort(block_of_row, kind="stable")
        chosen, block_of_row = chosen[by_block], block_of_row[by_block]
        givers = np.roll(chosen, 1)
        is_first = np.diff(block_of_row, prepend=-1) != 0
        givers[is_first] = chosen[np.diff(block_of_row, append=-1) != 0]
        giver[chosen] = givers
    if isinstance(train, ArrayRows):
        noisy = {key: array[giver] for key, array in train.items() if key in OtherTargets.KEYS}
        changed: Rows = ArrayRows({**train, **noisy})
    else:
        changed = OtherTargets(train, giver)
    text = data.text
    if text is not None:
        references = [text.references[TRAIN][row] for row in giver.tolist()]
        text = dataclasses.replace(text, references={**text.references, TRAIN: references})
    notes = {**data.notes, "label_noise": {"share": share, "rows": len(chosen), "seed": SEED}}
    splits = {**data.splits, TRAIN: changed}
    return dataclasses.replace(data, splits=splits, notes=notes, text=text)


def class_imbalance(data: Data, ratio: float) -> Data:
    """Keep the training rows of the k-th of C classes at the rate ratio^(k / (C - 1)), so that the
    last is `ratio` times as frequent as the first was (Cui et al. 2019, section 5.1). Of one class
    alone all rows are kept.
    """
    labels = in_memory(data.splits[TRAIN], "the axis class_imbalance")["targets"]
    names = np.unique(labels)
    generator = _generator(data)
    kept: list[NDArray[np.int64]] = []
    steps = max(len(names) - 1, 1)
    for rank, name in enumerate(names):
        own = generator.permutation(np.flatnonzero(labels == name))
        kept.append(own[: max(1, round(len(own) * ratio ** (rank / steps)))])
    note = {"ratio": ratio, "seed": SEED}
    return select.keep(data, np.sort(np.concatenate(kept)), "class_imbalance", note)


CHANGES: Mapping[str, Callable[[Data, float], Data]] = {
    "train_fraction": train_fraction,
    "label_noise": label_noise,
    "class_imbalance": class_imbalance,
}


def change(data: Data, changes: Mapping[str, float]) -> Data:
    """Return the data with all changes, in the order of `CHANGES`."""
    for name, function in CHANGES.items():
        if name in changes:
            data = function(data, changes[name])
    return data


def _count(data: Data) -> int:
    return len(data.splits[TRAIN])


def _generator(data: Data) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([SEED, _count(data)]))

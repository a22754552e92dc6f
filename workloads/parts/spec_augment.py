"""SpecAugment (Park et al. 2019): bins and frames of an utterance's features that training sees as
zeros.

They are drawn in NumPy for each row and epoch from the run's seed, so that both frameworks hide the
same; the models set them to 0. Lengths are uniform up to the longest, and so are places.

Legend: B rows, K masks.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from algoperf.workload import Drawn, Field, Rows


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Draws the field 'masks' of training rows: the first position of each mask, and the one after
    its last; those of bins come before those of frames.

    Attributes:
        frequency_masks: How many masks of bins an utterance has.
        time_masks: How many of frames.
        bins: How many bins there are.
        most_bins: The most that a mask hides.
        most_time: The largest share of the utterance's frames that a mask hides.
        hop: Samples from a frame to the next.
    """

    frequency_masks: int
    time_masks: int
    bins: int
    most_bins: int
    most_time: float
    hop: int

    def fields(self, rows: Rows) -> Mapping[str, Field]:
        """What is in a row: as before, but of other masks."""
        return {**rows.fields, "masks": Field((self.count, 2), np.dtype(np.int16))}

    @property
    def count(self) -> int:
        """The number K of masks."""
        return self.frequency_masks + self.time_masks

    def __call__(self, rows: Rows, drawn: Drawn) -> dict[str, np.ndarray]:
        """Return the own rows of a batch, with masks."""
        batch = rows.take(drawn.rows[drawn.own])
        positions = range(len(drawn.rows))[drawn.own]
        batch["masks"] = np.stack(
            [
                self.masks(-(-int(length) // self.hop), drawn.row_generator(position))
                for position, length in zip(positions, batch["lengths"], strict=True)
            ]
        )
        return batch

    def masks(self, frames: int, generator: np.random.Generator) -> NDArray[np.int16]:
        """Return the masks of an utterance of so many frames, (K, 2)."""
        shares_K2 = generator.random((self.count, 2))
        is_of_bins_K = np.arange(self.count) < self.frequency_masks
        sizes_K = np.where(is_of_bins_K, self.bins, frames)
        longest_K = np.where(is_of_bins_K, self.most_bins, self.most_time * frames)
        lengths_K = np.floor(longest_K * shares_K2[:, 0])
        first_K = np.floor((sizes_K - lengths_K + 1) * shares_K2[:, 1])
        return np.stack([first_K, first_K + lengths_K], 1).astype(np.int16)

"""Which keys a query sees under sparse attention: those of a sliding window, and a few global ones.

A query at position t sees the keys of (t - window, t], and the first `global_tokens` of its row
(Beltagy et al. 2020, arXiv:2004.05150, of a decoder). Queries are taken in blocks. A block needs
the keys of itself and of a few blocks before it, so that time and memory grow with length x window
and not with length x length.

Legend: N blocks, C queries of a block, J keys of a block's neighbourhood, G global keys.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Window:
    """The window of sparse attention, and the blocks that it is computed in.

    Attributes:
        length: The number of positions.
        size: The keys that a query sees, its own among them.
        global_tokens: The first keys, which every query sees besides.
    """

    length: int
    size: int
    global_tokens: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every query sees all keys up to its own."""
        return self.size >= self.length

    @property
    def block(self) -> int:
        """The queries of a block, half a window: a block then reads one and a half windows of keys,
        and larger blocks compute more that is masked.
        """
        return max(1, -(-self.size // 2))

    @property
    def before(self) -> int:
        """How many blocks before its own a block sees."""
        return -(-(self.size - 1) // self.block)

    @property
    def blocks(self) -> int:
        """How many blocks the queries fill; the last may be filled up."""
        return -(-self.length // self.block)

    @property
    def missing(self) -> int:
        """How many positions fill up the last block."""
        return self.blocks * self.block - self.length

    @property
    def block_in_turn(self) -> int:
        """The queries of a block where blocks follow one another: a quarter of a window, so that
        less is masked, unless a window is small.
        """
        return max(32, -(-self.size // 4))

    def sees(self, queries: Any, keys: Any) -> Any:
        """Return whether queries at some positions see keys at others, in either framework."""
        is_near_or_global = (keys > queries - self.size) | (keys < self.global_tokens)
        return (keys <= queries) & is_near_or_global

    def visible(self, arange: Callable[[int], Any]) -> tuple[Any, Any]:
        """Return what the queries see, in either framework.

        Args:
            arange: Returns the framework's array of the numbers below its argument.

        Returns:
            Booleans (N, C, J) for the keys of a block and of those before it, in their order, and
            (N, C, G) for the global keys. A key of both is seen once, in the window.
        """
        starts_N11 = (arange(self.blocks) * self.block)[:, None, None]
        queries_NC1 = starts_N11 + arange(self.block)[None, :, None]
        neighbours = arange((self.before + 1) * self.block)[None, None]
        keys_N1J = starts_N11 - self.before * self.block + neighbours
        is_near = (keys_N1J <= queries_NC1) & (keys_N1J > queries_NC1 - self.size)
        is_far = arange(self.global_tokens)[None, None] <= queries_NC1 - self.size
        return is_near & (keys_N1J >= 0), is_far

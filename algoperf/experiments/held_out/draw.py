"""Draw variants by seed.

The draws depend on nothing but a hash, so they are the same on every machine and with every
version of every library.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from algoperf.workload import Scale, axes
from algoperf.workload.axes import Changes


def name_of(base: str, seed: int, attempt: int) -> str:
    """Return the name under which a draw is run."""
    return f"{base}_s{seed}_{attempt}"


def draw(base: str, scale: Scale, seed: int, attempt: int, fewest: int, most: int) -> Changes:
    """Return the changes of one draw.

    Every number of axes from `fewest` to `most` is equally likely, and so are the axes, and then
    the values, that the scale offers.

    Args:
        base: The name of the base workload.
        scale: The scale at which the changes must change something.
        seed: The seed.
        attempt: The number of the draw.
        fewest: The smallest number of axes.
        most: The largest number of axes; at most as many as the scale offers.
    """
    offered = axes.offered(scale)

    def pick(purpose: str, choices: Sequence[Any]) -> Any:
        return choices[_number(f"{seed}/{base}/{attempt}/{purpose}") % len(choices)]

    count = pick("axes", range(fewest, min(most, len(offered)) + 1))
    left, changes = sorted(offered), {}
    for number in range(count):
        axis = pick(f"axis {number}", left)
        left.remove(axis)
        changes[axis] = pick(f"value {number}", offered[axis])
    return changes


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])

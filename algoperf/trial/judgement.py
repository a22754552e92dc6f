"""Check a trial while its clock stands still.

The checks are for numbers that are not finite, and for parameters whose shape or type changed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Signature = Mapping[str, Sequence[Any]]  # The shape and the type of each parameter, by its name.


class NotFinite:
    """A record of the values that were not finite.

    Attributes:
        seen: For each value by its name: the 'first_step' and the 'last_step' at which it was not
            finite, and how many 'times'.
    """

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, int]] = {}

    def is_finite(self, name: str, step: int, value: float) -> bool:
        """Return whether a value is finite, and record it if it is not.

        Args:
            name: The value's name, as 'loss'.
            step: The step that it belongs to.
            value: The value.
        """
        if math.isfinite(value):
            return True
        record = self.seen.setdefault(name, {"first_step": step, "last_step": step, "times": 0})
        record["last_step"] = step
        record["times"] += 1
        return False


def difference(before: Signature, after: Signature) -> str | None:
    """Return a description of the first parameter whose shape or type has changed, or None.

    Args:
        before: The shape and type of each parameter at first, by name.
        after: The same now.
    """
    for name in (*before, *after):
        if before.get(name) != after.get(name):
            return f"{name} was {_shape(before.get(name))}, is {_shape(after.get(name))}"
    return None


def _shape(signature: Sequence[Any] | None) -> str:
    return "absent" if signature is None else f"{signature[1]}{list(signature[0])}"

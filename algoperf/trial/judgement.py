"""What is judged of a trial while its clock stands still: numbers that are not finite, and
parameters of another shape or type.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Signature = Mapping[str, Sequence[Any]]  # name -> (shape, type)


class NotFinite:
    """What was not finite, by name: `first_step` and `last_step` at which it was seen, and how many
    `times`.
    """

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, int]] = {}

    def is_finite(self, name: str, step: int, value: float) -> bool:
        """Whether the value is finite; it is noted where it is not."""
        if math.isfinite(value):
            return True
        found = self.seen.setdefault(name, {"first_step": step, "last_step": step, "times": 0})
        found["last_step"] = step
        found["times"] += 1
        return False


def difference(before: Signature, after: Signature) -> str | None:
    """The first parameter that is not what it was, in words; None where all are."""
    for name in (*before, *after):
        if before.get(name) != after.get(name):
            return f"{name} was {_shape(before.get(name))}, is {_shape(after.get(name))}"
    return None


def _shape(signature: Sequence[Any] | None) -> str:
    return "absent" if signature is None else f"{signature[1]}{list(signature[0])}"

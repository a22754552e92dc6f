"""What a value is that was read from JSON, which the reader did not write."""

import sys
from typing import TypeGuard


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that a float can hold: no boolean, NaN, infinity (which `json`
    reads too) or integer of too many digits.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max

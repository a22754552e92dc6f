"""The errors that are no fault of the program, and checks of values that a user or a file gave."""

import difflib
import sys
from collections.abc import Sequence
from typing import TypeGuard


class UserError(ValueError):
    """A user's mistake: one line that names what was given, what is allowed, and what to do."""


class UnreadableRowError(Exception):
    """A row could not be decoded, or not to what was declared; the message names it.

    It is no UserError, which would undo a trial: one bad row fails it where it comes, and what was
    measured before stays.
    """


def choose(what: str, given: str, allowed: Sequence[str]) -> str:
    """Check that a name is one of those allowed.

    Args:
        what: What the name is of, for the message: "framework", "scale of digits".
        given: The name that the user gave.
        allowed: All names that exist, in the order in which the message lists them.

    Returns:
        The name itself.

    Raises:
        UserError: The name is not allowed; the message has near matches and all choices.
    """
    if given in allowed:
        return given
    near = difflib.get_close_matches(given, allowed, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"unknown {what} {given!r}{hint} (one of: {', '.join(allowed)})")


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Whether a value read from JSON is a number that a float can hold.

    Booleans, NaN, the infinities (which `json` reads too) and integers of too many digits are not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max

"""What is judged of a trial while its clock stands still: numbers that are not finite, parameters
of another shape or type, errors.
"""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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


def cause_of(error: BaseException) -> str:
    """One line that says what went wrong; memory that ran out is named as such in
    every framework.
    """
    said = (str(error).strip().splitlines() or [""])[0]
    text = ": ".join(filter(None, (type(error).__name__, said)))[:300]
    exhausted = ("out of memory", "resource_exhausted", "can't allocate memory")
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in exhausted):
        return f"out of memory ({text})"
    return text


def last_frame(
    error: BaseException, is_own: Callable[[Path], bool]
) -> traceback.FrameSummary | None:
    """The last frame of an error's traceback in the submission's files, if any is."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((each for each in reversed(frames) if is_own(Path(each.filename))), None)


def place_of(error: BaseException, is_own: Callable[[Path], bool]) -> str:
    """Where in the submission's files an error arose, as ' (file.py:3)'; with the line itself where
    the error says nothing; '' where none of its files is involved.
    """
    last = last_frame(error, is_own)
    if last is None:
        return ""
    line = "" if str(error).strip() else f": {last.line}"
    return f" ({Path(last.filename).name}:{last.lineno}{line})"

"""What went wrong and where, of an error that a submission raised."""

import traceback
from collections.abc import Callable
from pathlib import Path


def cause_of(error: BaseException) -> str:
    """One line that says what went wrong; memory that ran out is named as such in
    every framework.
    """
    first_line = (str(error).strip().splitlines() or [""])[0]
    text = ": ".join(filter(None, (type(error).__name__, first_line)))[:300]
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

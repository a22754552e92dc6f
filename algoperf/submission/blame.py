"""Say what went wrong, and where, when a submission raises an error."""

import traceback
from collections.abc import Callable
from pathlib import Path

from algoperf.submission import requirements


def cause_of(error: BaseException) -> str:
    """Return the cause of an error in one line of at most some 300 characters.

    It is the error's type and the first line of its message. Lack of memory is named 'out of
    memory', whichever framework reports it, and of a missing package it is said how to get it.
    """
    first_line = (str(error).strip().splitlines() or [""])[0]
    text = ": ".join(filter(None, (type(error).__name__, first_line)))[:300]
    exhausted = ("out of memory", "resource_exhausted", "can't allocate memory")
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in exhausted):
        return f"out of memory ({text})"
    remedy = requirements.remedy(error) if isinstance(error, ImportError) else ""
    return f"{text} ({remedy})" if remedy else text


def last_frame(
    error: BaseException, is_own: Callable[[Path], bool]
) -> traceback.FrameSummary | None:
    """Return the last frame of an error's traceback that is in the submission's files, or None.

    Args:
        error: The error.
        is_own: Returns whether a file is one of the submission's.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return next((each for each in reversed(frames) if is_own(Path(each.filename))), None)


def place_of(error: BaseException, is_own: Callable[[Path], bool]) -> str:
    """Return where in the submission's files an error was raised, as ' (file.py:3)'.

    Where the error has no message, the source line is added. The text is empty if none of the
    submission's files is involved.

    Args:
        error: The error.
        is_own: Returns whether a file is one of the submission's.
    """
    last = last_frame(error, is_own)
    if last is None:
        return ""
    line = "" if str(error).strip() else f": {last.line}"
    return f" ({Path(last.filename).name}:{last.lineno}{line})"


def crash(error: BaseException, submission: str) -> dict[str, str]:
    """Return what is said of an error that no trial has recorded.

    Args:
        error: The error.
        submission: The submission's main file.

    Returns:
        Its 'cause', in one line with its place, and its 'traceback'.
    """
    folder = Path(submission).parent
    where = place_of(error, lambda file: file.parent == folder)
    return {
        "cause": cause_of(error) + where,
        "traceback": "".join(traceback.format_exception(error)),
    }

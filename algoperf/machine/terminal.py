"""Standard output and error that outlive the terminal, or the reader of the pipe, they lead to."""

import errno
import io
import os
import sys
from collections.abc import Container
from typing import Any, TextIO

HUNG_UP = frozenset({errno.EIO})  # What a write to a terminal that is gone ends in.
UNREAD = HUNG_UP | {errno.EPIPE}  # The same, and a write to a pipe that nobody reads any more.


class LastingFile(io.FileIO):
    """An open descriptor to write to; what nobody can receive any more is dropped.

    Args:
        descriptor: The descriptor, which stays open.
        lost: The numbers of the errors after which nobody can.
    """

    def __init__(self, descriptor: int, lost: Container[int | None]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._lost = lost

    def write(self, data: Any) -> int:
        """Write some bytes, and return how many were written or dropped."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._lost:
                raise
            return memoryview(data).nbytes


def outlive(*, output: Container[int | None], errors: Container[int | None]) -> None:
    """Let what this process prints end nothing once nobody can read it any more.

    Args:
        output: The numbers of the errors that are overlooked on standard output,
        errors: and on standard error.
    """
    sys.stdout = _lasting(sys.stdout, output)
    sys.stderr = _lasting(sys.stderr, errors)


def _lasting(stream: TextIO, lost: Container[int | None]) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # None, or what a caller put in its place.
        return stream
    try:
        descriptor = stream.fileno()
    except OSError:  # It leads to memory.
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(LastingFile(descriptor, lost)),
        encoding=stream.encoding,
        errors=stream.errors,
        # The stream may have led elsewhere when it was made, as a trial's standard output did.
        line_buffering=stream.line_buffering or os.isatty(descriptor),
    )

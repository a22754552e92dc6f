"""Processes of one machine that meet at a path, and ask numbers of one another through sockets."""

import contextlib
import json
import time
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

LOOK_S = 0.01  # How often a process looks for the first one, until that is there.
LEAVING_S = 1.0  # For another process to end.


class Meeting:
    """What a process asks of those that it trains with (`algoperf.backends.ranks.Ranks`): each of
    the others has a line to rank 0.

    A question that another process does not answer any more raises ConnectionError.

    Args:
        rank: The number of this process, from 0.
        count: How many there are; making one waits for all.
        path: Where they meet: at most 107 bytes, in a folder that nobody else may enter, where
            nothing is.
    """

    def __init__(self, rank: int, count: int, path: str) -> None:
        self.rank, self.count = rank, count
        self._agreement_s = 0.0
        self._lines = [_line(rank, path)] if rank else _lines(count, path)

    def largest(self, value: int) -> int:
        """Return the largest of what the processes give."""
        began_s = time.perf_counter()
        values = self.gathered(int(value))
        self._agreement_s += time.perf_counter() - began_s
        return int(max(values))

    def from_first(self, value: Any) -> Any:
        """Return what rank 0 gives."""
        if self.rank:
            return self._hear()[0]
        self._tell(value)
        return value

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process gives, plain values as JSON has them, by rank."""
        if self.rank:
            self._tell(value)
            values: list[Any] = self._hear()[0]
        else:
            values = [value, *self._hear()]
            self._tell(values)
        return values

    def wait(self) -> None:
        """Return once every process has come here."""
        self.gathered(None)

    def communication_s(self) -> dict[str, float | None]:
        """Return what this process has spent on the others; how long gradients travel XLA does not
        tell.
        """
        return {"agreement_s": self._agreement_s, "gradients_s": None}

    def leave(self) -> None:
        """Return, in rank 0 when the others have ended, or are about to."""
        for line in self._lines if self.rank == 0 else ():
            with contextlib.suppress(EOFError, OSError):
                if line.poll(LEAVING_S):
                    line.recv_bytes()

    def _tell(self, value: Any) -> None:
        content = json.dumps(value).encode()
        with _in_words():
            for line in self._lines:
                line.send_bytes(content)

    def _hear(self) -> list[Any]:
        with _in_words():
            return [json.loads(line.recv_bytes()) for line in self._lines]


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise ConnectionError("connection closed by another process of the trial") from error


def _line(rank: int, path: str) -> Connection:
    """Return the line of another process than rank 0 to that."""
    while True:
        try:
            line: Any = Client(path, "AF_UNIX")
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(LOOK_S)
        else:
            line.send_bytes(str(rank).encode())
            return line  # type: ignore[no-any-return]


def _lines(count: int, path: str) -> list[Connection]:
    """Return the lines of rank 0 to the others, by rank."""
    with Listener(path, "AF_UNIX", backlog=count) as listener:
        lines: dict[int, Any] = {}
        for _ in range(1, count):
            line = listener.accept()
            lines[int(line.recv_bytes())] = line
    return [lines[rank] for rank in sorted(lines)]

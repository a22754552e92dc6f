"""The processes that train one trial together, one on each device.

What a step does for all of them (adding gradients up) is the framework's; here is what the loop
around it asks: what all of them do next. A trial of one process is a group of one, `ALONE`.
"""

import dataclasses
from typing import Any, Protocol

OPTIMIZER, PARAMETERS = "optimizer", "parameters"
SHARDS = ("none", OPTIMIZER, PARAMETERS)


class Ranks(Protocol):
    """A group of processes that train together, seen from one of them.

    Attributes:
        rank: The number of this process, from 0.
        count: How many processes there are.
        shard: What their devices divide among them: `OPTIMIZER`, the optimizer's state, or
            `PARAMETERS`, with their gradients and state; None for nothing.
        hand_over_parts: Whether what is evaluated may lie in parts of all processes, so that each
            of them takes part where it is written (`Backend.write`).
    """

    @property
    def rank(self) -> int: ...  # noqa: D102

    @property
    def count(self) -> int: ...  # noqa: D102

    @property
    def shard(self) -> str | None: ...  # noqa: D102

    @property
    def hand_over_parts(self) -> bool: ...  # noqa: D102

    def largest(self, value: int) -> int:
        """Return the largest of what the processes give; each of them gives a number."""
        ...

    def from_first(self, value: Any) -> Any:
        """Return what rank 0 gives, plain values as JSON has them; what others give is ignored."""
        ...

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process gives, by rank."""
        ...

    def wait(self) -> None:
        """Return once every process has come here."""

    def communication_s(self) -> dict[str, float | None]:
        """Return what this process has spent on the others so far, in seconds.

        Returns:
            'agreement_s', in which it waited for them as they agree on what follows a step, which
            is shortest in the slowest process; and 'gradients_s', of a step on average, in which
            its gradients travelled. None for what nothing measures.
        """
        ...

    def leave(self) -> None:
        """Return when this process may end, which has nothing left to do or to ask."""


@dataclasses.dataclass(frozen=True)
class Alone:
    """The group of one; its devices may be several, in JAX."""

    rank: int = 0
    count: int = 1
    shard: str | None = None
    hand_over_parts: bool = False

    def largest(self, value: int) -> int:
        """Return the number."""
        return value

    def from_first(self, value: Any) -> Any:
        """Return the value."""
        return value

    def gathered(self, value: Any) -> list[Any]:
        """Return a list of the value."""
        return [value]

    def wait(self) -> None:
        """Return."""

    def communication_s(self) -> dict[str, float | None]:
        """Return nothing: there are no others."""
        return {}

    def leave(self) -> None:
        """Return."""


ALONE = Alone()

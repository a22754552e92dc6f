"""Keep training scalars from the step that computes them until they are written."""

from collections.abc import Callable, Mapping
from typing import Any


class ScalarBuffer:
    """A buffer of training scalars that are still on the device.

    A trial's `workload.metrics_logger` is one. It does not wait for the device, so that logging
    costs the submission no time.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Any]]] = []

    def append_scalar_metrics(self, metrics: Mapping[str, Any], global_step: int, **_: Any) -> None:
        """Keep the scalars of a step until `take` is called.

        Args:
            metrics: The scalars by name, as numbers or as arrays on the device.
            global_step: The step.
        """
        self._rows.append((global_step, dict(metrics)))

    def take(self, fetch: Callable[[Any], Any]) -> list[tuple[int, dict[str, float]]]:
        """Return the rows that were kept, and forget them.

        Args:
            fetch: Copies scalars by name from the device to the host.

        Returns:
            The step and its scalars by name, for each row.
        """
        rows, self._rows = self._rows, []
        return [
            (step, {name: float(value) for name, value in fetch(metrics).items()})
            for step, metrics in rows
        ]

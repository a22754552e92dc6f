"""Training scalars between the step that computes them and the drain after which they
are written.
"""

from collections.abc import Callable, Mapping
from typing import Any


class ScalarBuffer:
    """Training scalars as they were handed over, still on the device; `workload.metrics_logger` is
    one.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Any]]] = []

    def append_scalar_metrics(self, metrics: Mapping[str, Any], global_step: int, **_: Any) -> None:
        """Keep scalars by name until the next drain."""
        self._rows.append((global_step, dict(metrics)))

    def take(self, fetch: Callable[[Any], Any]) -> list[tuple[int, dict[str, float]]]:
        """Return and forget the rows, fetched from the device."""
        rows, self._rows = self._rows, []
        return [
            (step, {name: float(value) for name, value in fetch(metrics).items()})
            for step, metrics in rows
        ]

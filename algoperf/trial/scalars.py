"""Keep training scalars from the step that computes them until they are written."""

import functools
import numbers
import operator
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from algoperf.run_folder.state_kinds import is_kind


class ScalarBuffer:
    """A buffer of training scalars that are still on the device.

    A trial's `workload.metrics_logger` is one. It does not wait for the device, so that logging
    costs the submission no time.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Any]]] = []

    def append_scalar_metrics(
        self,
        metrics: Mapping[str, Any],
        global_step: int,
        own: Collection[str] = (),
        **_: Any,
    ) -> None:
        """Keep the scalars of a step until `take` is called, as they are now.

        Args:
            metrics: The scalars by name: numbers, or arrays of one value, which may be on the
                device. Arrays are copied there, without waiting for it.
            global_step: The step.
            own: Names of arrays that nobody else holds, so that they need no copy.

        Raises:
            TypeError: A value is something else, or an array of a type of the submission's own:
                what is read while the submission's clock stands still must not run its code.
        """
        values = {
            str(name): _as_now(str(name), value, copies=name not in own)
            for name, value in metrics.items()
        }
        self._rows.append((int(operator.index(global_step)), values))

    def take(self, fetch: Callable[[Any], Any]) -> list[tuple[int, dict[str, float]]]:
        """Return the rows that were kept, and forget them.

        Args:
            fetch: Copies scalars by name from the device to the host.

        Returns:
            The step and its scalars by name, for each row.
        """
        rows, self._rows = self._rows, []
        return [
            (
                step,
                {name: float(np.asarray(value).item()) for name, value in fetch(metrics).items()},
            )
            for step, metrics in rows
        ]


def _as_now(name: str, value: Any, copies: bool) -> Any:
    """Return a number, or an array of one value; a copy of it, if asked for."""
    kind = type(value)
    copy: Callable[[], Any] | None = None
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    if kind is np.ndarray:
        copy = value.copy if value.dtype.kind in "biuf" else None
    elif is_kind(value, "torch", "Tensor"):
        torch: Any = sys.modules["torch"]
        if kind in (torch.Tensor, torch.nn.Parameter) and not value.is_complex():
            value = value.detach()
            copy = value.clone
    elif is_kind(value, "jax", "Array") and kind is _jax_array_type():
        copy = value.copy if sys.modules["jax"].numpy.isrealobj(value) else None
    if copy is None:
        raise TypeError(
            f"the logged {name!r} is a {kind.__qualname__}; expected a number, or a NumPy, JAX or "
            "PyTorch array of one value"
        )
    size = int(np.prod(value.shape))
    if size != 1:
        raise TypeError(f"the logged {name!r} has {size} values; expected one")
    return copy() if copies else value


@functools.cache
def _jax_array_type() -> type:
    """Return the type of JAX's own arrays; a value that jit traces is of another."""
    jax: Any = sys.modules["jax"]
    return type(jax.device_put(np.float32(0)))

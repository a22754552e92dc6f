"""Keep training scalars from the step that computes them until they are written."""

import functools
import numbers
import operator
import sys
from collections.abc import Callable, Mapping
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

    def append_scalar_metrics(self, metrics: Mapping[str, Any], global_step: int, **_: Any) -> None:
        """Keep the scalars of a step until `take` is called, as they are now.

        Args:
            metrics: The scalars by name: numbers, or arrays of one value, which may be on the
                device. Arrays are copied there, without waiting for it.
            global_step: The step.

        Raises:
            TypeError: A value is something else, or an array of a type of the submission's own:
                what is read while the submission's clock stands still must not run its code.
        """
        self.append_own({}, metrics, global_step)

    def append_own(
        self, own: Mapping[str, Any], metrics: Mapping[str, Any], global_step: int
    ) -> None:
        """Keep a step's scalars, of which this library computed some and nobody else holds them.

        Args:
            own: Arrays of the library's own, which are not copied.
            metrics: As for `append_scalar_metrics`, which raises the same.
            global_step: The step.
        """
        values = {str(name): _as_now(str(name), value) for name, value in metrics.items()}
        self._rows.append((int(operator.index(global_step)), {**own, **values}))

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


def _as_now(name: str, value: Any) -> Any:
    """Return a copy of an array of one value, or a number."""
    kind = type(value)
    copied: Any = None
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    if kind is np.ndarray:
        copied = value.copy() if value.dtype.kind in "biuf" else None
    elif is_kind(value, "torch", "Tensor"):
        torch: Any = sys.modules["torch"]
        if kind in (torch.Tensor, torch.nn.Parameter) and not value.is_complex():
            copied = value.detach().clone()
    elif is_kind(value, "jax", "Array") and kind is _jax_array_type():
        is_number = sys.modules["jax"].numpy.isrealobj(value)
        copied = value.copy() if is_number else None
    if copied is None:
        raise TypeError(
            f"the logged {name!r} is a {kind.__qualname__}; expected a number, or a NumPy, JAX or "
            "PyTorch array of one value"
        )
    size = int(np.prod(copied.shape))
    if size != 1:
        raise TypeError(f"the logged {name!r} has {size} values; expected one")
    return copied


@functools.cache
def _jax_array_type() -> type:
    """Return the type of JAX's own arrays; a value that jit traces is of another."""
    jax: Any = sys.modules["jax"]
    return type(jax.device_put(np.float32(0)))

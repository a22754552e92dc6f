"""The energy counters of NVIDIA GPUs, read through `nvidia-ml-py` where that is installed."""

import importlib
import os
from typing import Any

ENERGY = "NVML's total energy counter, of the GPUs that the process may use"


class EnergyCounter:
    """Counts what the GPUs that this process may use take.

    `source` says what counts, or why nothing does. Of a machine with GPUs of several kinds, NVML's
    numbers are CUDA's only with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        self.source = self._open(os.environ.get("CUDA_VISIBLE_DEVICES"))

    def _open(self, visible: str | None) -> str:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return "not counted: nvidia-ml-py is not installed"
        try:
            nvml.nvmlInit()
            self._handles = [
                nvml.nvmlDeviceGetHandleByUUID(name)
                if isinstance(name, str)
                else nvml.nvmlDeviceGetHandleByIndex(name)
                for name in named(visible, nvml.nvmlDeviceGetCount())
            ]
            self._nvml = nvml
            return ENERGY if self._read_j() is not None else "not counted: no GPU is visible"
        except nvml.NVMLError as error:
            self._nvml = None
            return f"not counted: NVML says {str(error)!r}"

    def joules(self) -> float | None:
        """Joules since the driver was loaded, all GPUs together; None where nothing counts, which
        `source` then explains.
        """
        if self._nvml is None:
            return None
        try:
            return self._read_j()
        except self._nvml.NVMLError as error:
            self.source = f"not counted: NVML says {str(error)!r}"
            return None

    def _read_j(self) -> float | None:
        read = self._nvml.nvmlDeviceGetTotalEnergyConsumption  # in millijoules
        return sum(read(handle) for handle in self._handles) / 1000 if self._handles else None


def named(visible: str | None, count: int) -> list[int | str]:
    """The GPUs, by number or by UUID, that CUDA_VISIBLE_DEVICES leaves of `count`.

    As CUDA reads it: all where it is not set, and nothing from the first one on that is not there.
    """
    if visible is None:
        return list(range(count))
    parts: list[int | str] = []
    for name in (each.strip() for each in visible.split(",")):
        if name.isdigit() and int(name) < count:
            parts.append(int(name))
        elif name.startswith(("GPU-", "MIG-")):
            parts.append(name)
        else:
            break
    return parts

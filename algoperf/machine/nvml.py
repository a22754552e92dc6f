"""Read the energy counters of NVIDIA GPUs through `nvidia-ml-py`, where that is installed."""

import importlib
import os
from typing import Any

ENERGY = "NVML's total energy counter, of the GPUs that the process may use"


class EnergyCounter:
    """Reads the energy used by the GPUs that this process may use.

    On a machine with GPUs of several kinds, NVML numbers them as CUDA does only if the environment
    has CUDA_DEVICE_ORDER=PCI_BUS_ID.

    Attributes:
        source: The name of the counter, or the reason why nothing is counted.
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
        """Return the energy in joules since the driver was loaded, summed over the GPUs.

        Returns:
            None where nothing is counted; `source` then says why.
        """
        if self._nvml is None:
            return None
        try:
            return self._read_j()
        except self._nvml.NVMLError as error:
            self.source = f"not counted: NVML says {str(error)!r}"
            return None

    def _read_j(self) -> float | None:
        read = self._nvml.nvmlDeviceGetTotalEnergyConsumption  # It returns millijoules.
        return sum(read(handle) for handle in self._handles) / 1000 if self._handles else None


def named(visible: str | None, count: int) -> list[int | str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES selects, by number or by UUID.

    It follows CUDA's rules: the list ends at the first entry that names no GPU of the machine.

    Args:
        visible: The variable's value; None, where it is not set, selects all.
        count: The number of GPUs in the machine.
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

"""What machine this is, and how much memory a process took."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

TRACKED_PACKAGES = (
    "algoperf",
    "numpy",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "torch",
    "tokenizers",
    "datasets",
)


def describe() -> dict[str, Any]:
    """Processor, threads that this process may use, accelerators; read without a framework."""
    return {
        "cpu": _cpu_name(),
        "threads": thread_count(),
        "accelerators": _accelerators(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a result may depend on, as installed."""
    installed = {"python": platform.python_version()}
    for name in TRACKED_PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def thread_count() -> int:
    """The processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_environment() -> dict[str, str]:
    """Environment that pins the numeric libraries' threads to `thread_count`, set
    before they load.
    """
    count = str(thread_count())
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    return dict.fromkeys(names, count)


def peak_process_memory_bytes() -> int:
    """The most resident memory that this process held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would include the parent's size at the fork
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _accelerators() -> list[str]:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]

"""Describe this machine: its hardware, installed packages and threads, and the memory in use."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from algoperf.errors import UserError

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
LOOK_S = 0.1  # How long the cores are watched before the least busy ones are taken.


def describe() -> dict[str, Any]:
    """Return a description of the machine, read without loading a framework.

    Returns:
        A dict of 'cpu' (the processor's name), 'threads' (how many processor cores this process may
        use), 'accelerators' (the names of NVIDIA's GPUs; empty without any) and 'system' (operating
        system and architecture).
    """
    return {
        "cpu": _cpu_name(),
        "threads": thread_count(),
        "accelerators": _accelerators(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that a result may depend on.

    A package of `TRACKED_PACKAGES` that is not installed is left out.
    """
    installed = {"python": platform.python_version()}
    for name in TRACKED_PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


# As tests/benchmarks/busy_machine.py has it: this many cost nothing on a quiet machine.
SPINS = 10_000


def thread_count() -> int:
    """Return the number of processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_threads(threads: int) -> None:
    """Raise UserError where this process cannot be given so many cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--threads: this system gives a process no cores of its own")
    if threads > thread_count():
        raise UserError(f"--threads {threads}: this process may use only {thread_count()} cores")


@contextlib.contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Let this thread, and the processes that it starts, use so many cores while in the block.

    They are the least busy ones, so that runs beside each other do not share them.

    Args:
        threads: The number of cores; None changes nothing.
    """
    if threads is None:
        yield
        return
    check_threads(threads)
    before = os.sched_getaffinity(0)
    if threads < len(before):
        load = psutil.cpu_percent(LOOK_S, percpu=True)
        by_load = sorted(before, key=lambda core: (load[core] if core < len(load) else 0.0, core))
        os.sched_setaffinity(0, by_load[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def thread_environment(threads: int | None = None) -> dict[str, str]:
    """Return the environment variables that pin the threads of the numeric libraries.

    They must be set before the libraries load. Where it has OMP_NUM_THREADS alone, MKL's variable
    must not be another, since PyTorch follows that one (findings/torch_mkl_threads_win.sh).

    Args:
        threads: Their number; None for the one that the user's environment has for any of them,
            else `thread_count`.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    if threads is not None:
        return dict.fromkeys(names, str(threads))
    pinned = (os.environ[name] for name in names if os.environ.get(name))
    return dict.fromkeys(names, next(pinned, str(thread_count())))


def waiting_environment() -> dict[str, str]:
    """Return the environment variables that say how long threads of OpenMP spin as they wait.

    GNU's runtime, which PyTorch's wheels bring, lets a thread that waits for another one spin for
    some milliseconds, and keeps it from the core that the other one may need. It must be set before
    the library loads. What the user's environment says of waiting is left alone.
    """
    if any(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        return {}
    return {"GOMP_SPINCOUNT": str(SPINS)}


def peak_process_memory_bytes() -> int:
    """Return the largest resident memory that this process has had so far, in bytes."""
    peak_bytes = _high_water_bytes("self")
    if peak_bytes is not None:  # It is preferred: ru_maxrss includes the parent's size at the fork.
        return peak_bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def process_memory_bytes(process_id: int | None = None) -> int:
    """Return the resident memory of a process, in bytes; None is this one."""
    return int(psutil.Process(process_id).memory_info().rss)


def peak_memory_of_bytes(process_id: int) -> int:
    """Return the largest resident memory that another process has had so far, in bytes; where the
    system does not tell, what it has now; 0 if it has ended.
    """
    peak_bytes = _high_water_bytes(str(process_id))
    if peak_bytes is not None:
        return peak_bytes
    with contextlib.suppress(psutil.Error):
        return process_memory_bytes(process_id)
    return 0


def _high_water_bytes(process: str) -> int | None:
    """Return the VmHWM of a process as Linux has it; None where it does not tell, or has none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


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

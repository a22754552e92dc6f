"""Which settings outside of a command line move a trial's clock: variables and caches.

They are recorded with a trial's settings where they are set, and only results that share them are
compared.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from algoperf.machine import launchers

# Variables that change how fast the numeric libraries compute, by how their names begin:
# OpenMP's and its runtimes', the math libraries', XLA's and JAX's, CUDA's and what builds on it,
# PyTorch's, the allocator's and the loader's.
FAMILIES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "DNNL_"),
    *("ONEDNN_", "XLA_", "JAX_", "CUDA_", "CUBLAS_", "CUDNN_", "NCCL_", "TORCH_"),
    *("TF_XLA_", "TF_GPU_", "TF_CUDNN_", "TF_FORCE_"),  # TF_ alone is Terraform's, too.
    *("TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "TRITON_", "MALLOC_", "JEMALLOC_"),
    *("TCMALLOC_", "LD_PRELOAD", "NVIDIA_TF32_OVERRIDE"),
)
# Of these, what says where something is, what version it has or what is written, and the numbers of
# threads, which are recorded as the frameworks have them.
NOT_SPEED = frozenset(
    {
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_DISPLAY_ENV"),
        *("OMP_DISPLAY_AFFINITY", "JAX_TRACEBACK_FILTERING", "JAX_LOGGING_LEVEL"),
        *("JAX_LOG_COMPILES", "TORCH_LOGS", "TORCH_SHOW_CPP_STACKTRACES"),
        *("CUDA_DEVICE_ORDER", "CUDA_ARCH_LIST", "TORCH_CUDA_ARCH_LIST", "NCCL_DEBUG"),
    }
)
NOT_SPEED_ENDS = ("_HOME", "_PATH", "_ROOT", "_VERSION", "_URL")
SET = "set"  # What is recorded of a folder: that there is one, since its name moves no clock.
DEVICES = "CUDA_VISIBLE_DEVICES"
JAX_CACHE = "JAX_COMPILATION_CACHE_DIR"
WARM, COLD = "warm", "cold"


def settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that move the clock, by name; those that are set.

    Args:
        variables: The environment.

    Returns:
        The value of each. Of one that names a folder (`_DIR`) it is `SET`, and of
        CUDA_VISIBLE_DEVICES how many devices it leaves: which ones they are is no setting.
    """
    return {
        name: _recorded(name, value)
        for name, value in sorted(variables.items())
        if name == DEVICES or (value != "" and _is_for_speed(name))
    }


def compilation_cache(framework: str, variables: Mapping[str, str]) -> str | None:
    """Return whether a trial that starts now finds compiled programs of earlier ones.

    Args:
        framework: 'jax' or 'pytorch'.
        variables: The environment.

    Returns:
        `WARM` or `COLD` where the environment names a cache of the framework's programs, by whether
        its folder holds anything; None where it names none.
    """
    folder = variables.get(JAX_CACHE, "")
    if framework != "jax" or not folder:
        return None
    try:
        return WARM if any(Path(folder).iterdir()) else COLD
    except OSError:
        return COLD if "://" not in folder else WARM  # A folder elsewhere cannot be looked into.


def xla_threads(variables: Mapping[str, str], cores: int) -> int:
    """Return how many threads XLA computes with on a processor.

    Args:
        variables: The environment.
        cores: The cores that the process may use.

    Returns:
        NPROC where it is a number above 0, as XLA reads it when it loads, else `cores`.
    """
    text = variables.get("NPROC", "")
    return int(text) if text.isdecimal() and int(text) > 0 else cores


def _is_for_speed(name: str) -> bool:
    return name.startswith(FAMILIES) and name not in NOT_SPEED and not name.endswith(NOT_SPEED_ENDS)


def _recorded(name: str, value: str) -> str:
    if name == DEVICES:
        named = [part for part in value.split(",") if part.strip() not in ("", "-1", "NoDevFiles")]
        return f"{len(named)} device{'' if len(named) == 1 else 's'}"
    return SET if name.endswith("_DIR") else value


def of_this_process() -> dict[str, str]:
    """Return the `settings` of this process."""
    return settings(launchers.without(os.environ))

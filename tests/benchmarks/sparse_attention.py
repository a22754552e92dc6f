"""Time and peak memory of sparse attention against full attention, forward and backward.

    python tests/benchmarks/sparse_attention.py [--frameworks jax,pytorch] [--rounds 3]
        [--length 4096] [--window 256] [--global-tokens 4] [--width 512] [--heads 8]

Each kind is measured in a process of its own, one after the other, in turns; times are processor
seconds of a pass on one thread, after one to warm up, so that what else runs hardly counts. Peaks
are what the process takes above what it had before. 'full' is what the models use: in PyTorch a
fused kernel that keeps no scores; 'math' is PyTorch without it, which keeps them, as under dropout.
Ratios are those of the rounds' medians.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"jax": ("full", "sparse"), "pytorch": ("full", "math", "sparse")}
PASSES = 3


def peak_mib() -> float:
    """The most memory that this process has held (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parts(given: argparse.Namespace) -> list[np.ndarray]:
    """Queries, keys and values."""
    rng = np.random.default_rng(0)
    shape = (1, given.heads, given.length, given.width // given.heads)
    return [rng.standard_normal(shape, np.float32) for _ in range(3)]


def jax_pass(given: argparse.Namespace, window: int | None) -> Callable[[], Any]:
    """Forward and backward pass, compiled."""
    import jax

    from workloads.parts.window_jax import attend_causally

    def loss(arrays: list[Any]) -> Any:
        mixed = attend_causally(*arrays, window, given.global_tokens if window else 0)
        return (mixed * mixed).sum()

    arrays = list(map(jax.numpy.asarray, parts(given)))
    call = jax.jit(jax.value_and_grad(loss)).lower(arrays).compile()
    return lambda: jax.block_until_ready(call(arrays))


def torch_pass(given: argparse.Namespace, window: int | None, math: bool) -> Callable[[], Any]:
    """Forward and backward pass."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from workloads.parts.window_torch import attend_causally

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(array).requires_grad_() for array in parts(given)]

    def run() -> Any:
        with sdpa_kernel(SDPBackend.MATH) if math else contextlib.nullcontext():
            mixed = attend_causally(*tensors, window, given.global_tokens if window else 0)
            loss = mixed.square().sum()
        return torch.autograd.grad(loss, tensors)

    return run


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Return processor seconds of a pass, and MiB above what was there before the first."""
    window = given.window if given.kind == "sparse" else None
    if given.framework == "jax":
        run = jax_pass(given, window)
    else:
        run = torch_pass(given, window, given.kind == "math")
    before = peak_mib()
    run()
    peak = peak_mib() - before
    started_s = time.process_time()
    for _ in range(PASSES):
        run()
    return {"seconds": (time.process_time() - started_s) / PASSES, "mib": peak}


def child(framework: str, kind: str, options: list[str]) -> dict[str, float]:
    """What a process of its own measures."""
    threads = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, __file__, *options, "--framework", framework, "--kind", kind],
        env={**os.environ, **threads, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Print a line for each kind of each framework."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("length", 4096), ("window", 256), ("global-tokens", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("width", 512), ("heads", 8), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--frameworks", default="jax,pytorch")
    parser.add_argument("--framework")
    parser.add_argument("--kind")
    given = parser.parse_args()
    if given.kind:
        print(json.dumps(measure(given)))
        return
    for framework in given.frameworks.split(","):
        results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS[framework]}
        for _ in range(given.rounds):
            for kind, measured in results.items():
                measured.append(child(framework, kind, sys.argv[1:]))
        medians = {
            kind: {key: statistics.median(each[key] for each in measured) for key in measured[0]}
            for kind, measured in results.items()
        }
        for kind, median in medians.items():
            ratios = ", ".join(
                f"{key} {medians['sparse'][key] / value:.2f}" for key, value in median.items()
            )
            print(
                f"{framework:8} {kind:7} {median['seconds']:7.3f} s {median['mib']:8.0f} MiB"
                + ("" if kind == "sparse" else f"; sparse over it: {ratios}"),
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What it takes to hand the parameters of a large model to the referee: seconds, and memory.

    python tests/benchmarks/handover_cost.py --framework pytorch

A language model of GPT-2 small's size (124,439,808 numbers, 498 MB), which nobody trains, in two
processes as of a trial: one copies its parameters to the shared memory, as a trainer does at the
end of a stretch (`FarReferee.take`), the other makes parameters of them that it can evaluate, as a
referee does. Printed: the seconds from the one's begin to the other's end, by the system's
monotonic clock, for the first handover and for those that follow (median, least, most); by how much
the two processes grew in all for it, in copies of the model (proportional set size, so that what
they share counts once); and how much more each held at its peak in a later handover. The exit code
is 1 where a later handover takes `LIMIT_S` or more, or `COPIES` or more are held.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

LIMIT_S, COPIES = 1.0, 1.1


def held_bytes(name: str = "Pss") -> int:
    """Return how much memory this process holds, its part of what it shares included."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def peak_over_now_bytes(do: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a function returns, and how much more was held meanwhile than is at its end."""
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    returned = do()
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
    return returned, 1024 * (sizes["VmHWM"] - sizes["VmRSS"])


def language_model(framework: str, ranks: Any = None) -> tuple[Any, Any]:
    """Return a backend of `ranks`, of this process alone where there are none, and the language
    model, bound to its workload.
    """
    from algoperf import backends, workload
    from algoperf.backends.ranks import ALONE
    from algoperf.workload import Data, catalogue

    backend = backends.load(framework, ranks=ranks or ALONE)
    definition = catalogue.find("lm")
    scale = definition.scales["full"]
    rows = {name: np.zeros((8, 64), np.int32) for name in ("inputs", "targets")}
    model = {"vocab_size": 50257, "pad_id": 50256}
    data = Data(dict.fromkeys(workload.SPLITS, rows), model=model)
    return backend, backend.workload(definition, scale, "hub", data)


def make(framework: str) -> tuple[Any, Any, Any]:
    """Return a backend, and the first parameters and model state of the language model."""
    backend, bound = language_model(framework)
    params, model_state = bound.init_model_fn(backend.random_state((0, 0)))
    backend.drain(params)
    return backend, params, model_state


def train(framework: str, line: Connection, shared: Any) -> None:
    """Hand the parameters over as often as is asked: the trainer's part."""
    from algoperf.trial.trainer import FarReferee

    backend, params, model_state = make(framework)
    line.send(held_bytes())
    far = FarReferee(line)
    far.attend(
        backend=backend,
        view=SimpleNamespace(first=lambda tree: tree, first_state=lambda state: state),
        handover=shared,
        ledger=None,  # type: ignore[arg-type]
        guard=None,  # type: ignore[arg-type]
        check=lambda: None,
    )
    handed = SimpleNamespace(
        evaluated=lambda: (params, model_state), trained=lambda: (params, model_state)
    )
    while line.recv():
        began_s = time.perf_counter()
        _, extra = peak_over_now_bytes(lambda: far.take(handed))
        line.send((began_s, extra, held_bytes()))


def main() -> int:
    """Measure and report."""
    from algoperf.trial import handover, refereed

    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--framework", choices=("jax", "pytorch"), required=True)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    backend, *own = make(arguments.framework)
    signature = backend.signature(*own)
    size = 4 * sum(math.prod(shape) for shape, _ in signature.values())
    before = held_bytes()
    shared = handover.Handover(context, signature)
    line, far_end = context.Pipe()
    process = context.Process(target=train, args=(arguments.framework, far_end, shared))
    process.start()
    far_end.close()
    before += line.recv()
    bench: Any = SimpleNamespace(instruments=SimpleNamespace(backend=backend))
    seconds, extras = [], []
    for _ in range(arguments.times + 1):
        received = refereed._Received(bench, shared, (own[0], own[1]))
        line.send(True)
        began_s, far_extra, far_held = line.recv()
        evaluated, extra = peak_over_now_bytes(received.evaluated)
        backend.drain(*evaluated)
        seconds.append(time.perf_counter() - began_s)
        extras.append(max(far_extra, extra))
    copies = (held_bytes() + far_held - before) / size
    line.send(False)
    process.join()
    later_s = seconds[1:]
    more = max(extras[1:]) / size
    print(
        f"{arguments.framework}: {size // 4:,} numbers, {size / 1e6:.0f} MB; the first handover "
        f"{seconds[0]:.2f} s, {len(later_s)} more {statistics.median(later_s):.2f} s "
        f"({min(later_s):.2f} to {max(later_s):.2f}); {copies:.2f} copies more in memory, "
        f"{more:.2f} more at the peak; load {os.getloadavg()[0]:.1f}"
    )
    return 0 if statistics.median(later_s) < LIMIT_S and copies + more < COPIES else 1


if __name__ == "__main__":
    sys.exit(main())

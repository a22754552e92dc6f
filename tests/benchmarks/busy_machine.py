"""What busy processes beside a trial cost it, for several ways in which PyTorch's threads wait.

    python tests/benchmarks/busy_machine.py --workload xsum --steps 25 --pairs 20

Each policy is a process of its own that holds a loaded workload and trains it for blocks of steps
when it is asked, one process at a time. A round asks each of them for one block alone and one
beside as many busy loops as there are cores, in alternating order. Printed for each policy: the
median and the least seconds of a block alone; the median ratio over the first policy's block of
the same round, alone (what the policy costs), with its quartiles; the same of a block beside the
loops over its own alone; and the share of its time that a block alone lost to others.
Where that is more than a few percent the machine was not quiet, and the numbers mean little.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from algoperf.machine import hardware

SLICE = "BUSY_MACHINE_SLICE_NS"  # asked of Linux for the child's threads, which wait less for it
# PyTorch's wheels for the processor bring GNU's OpenMP (libgomp); the last line is for Intel's.
POLICIES = {
    "as it comes": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 5000": {"GOMP_SPINCOUNT": "5000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "passive short slices": {"OMP_WAIT_POLICY": "passive", SLICE: "100000"},
    "spin 1000 short slices": {"GOMP_SPINCOUNT": "1000", SLICE: "100000"},
    "spin 5000 short slices": {"GOMP_SPINCOUNT": "5000", SLICE: "100000"},
    "spin 10000 short slices": {"GOMP_SPINCOUNT": "10000", SLICE: "100000"},
    "spin 30000": {"GOMP_SPINCOUNT": "30000"},
    "spin 100000": {"GOMP_SPINCOUNT": "100000"},
    "pinned": {"OMP_PROC_BIND": "true"},
    "blocktime 0": {"KMP_BLOCKTIME": "0"},
}

# It ends with whoever started it, however that one ends.
LOOP = """
import os
starter = os.getppid()
while os.getppid() == starter:
    for _ in range(100_000):
        pass
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", default="xsum")
    parser.add_argument("--steps", type=int, default=25, help="of a block")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--policies", default=",".join(POLICIES), help="names, with commas")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        return _child(given.workload, given.steps)
    names = given.policies.split(",")
    words = [sys.executable, __file__, "--child", "--workload", given.workload]
    words += ["--steps", str(given.steps)]
    blocks: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        children = {name: stack.enter_context(_started(words, POLICIES[name])) for name in names}
        for round_number in range(given.pairs):
            for is_busy in (False, True) if round_number % 2 else (True, False):
                with busy_loops(hardware.thread_count() if is_busy else 0):
                    order = names if round_number % 2 else names[::-1]
                    for name in order:
                        blocks.setdefault((name, is_busy), []).append(_ask(children[name]))
            _show(names, blocks, given.steps)
    return None


def _child(workload: str, steps: int) -> None:
    if SLICE in os.environ:
        _ask_for_slices(int(os.environ[SLICE]))
    import torch

    from algoperf.machine import load
    from algoperf.spec import ForwardPassMode
    from algoperf.trial import own_loop

    loaded = own_loop.load(workload, "pytorch")
    model, state = loaded.init()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def block() -> None:
        for _ in range(steps):
            batch = next(loaded.batches)
            logits, _ = loaded.workload.model_fn(
                model, batch, state, ForwardPassMode.TRAIN, loaded.rng(0), True
            )
            loss = loaded.workload.mean_loss(batch["targets"], logits, batch.get("weights"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    block()
    print(torch.get_num_threads(), flush=True)
    with load.Gauges() as gauges:
        for _ in sys.stdin:
            counted = load.Load(gauges.read)
            began_s = time.perf_counter()
            with counted.timed(time.perf_counter):
                block()
            print(time.perf_counter() - began_s, counted.report()["lost_share"], flush=True)


def _ask_for_slices(slice_ns: int) -> None:
    """Have Linux (6.12 and later) give this process its turns sooner and for a shorter time."""
    import ctypes
    import platform
    import struct

    number = {"x86_64": 314, "aarch64": 274}[platform.machine()]
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
    attributes = struct.pack("=IIQiIQQQ", 48, 0, 0, 0, 0, slice_ns, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, attributes, 0):
        raise OSError(ctypes.get_errno(), "sched_setattr")


@contextlib.contextmanager
def _started(words: Sequence[str], policy: dict[str, str]) -> "Iterator[subprocess.Popen[str]]":
    environment = {**hardware.thread_environment(), **os.environ, **policy}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        yield child
        child.stdin.close()


def _ask(child: "subprocess.Popen[str]") -> tuple[float, float]:
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    block_s, share = child.stdout.readline().split()
    return float(block_s), float(share)


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run so many processes that only compute, while in the block."""
    words = [sys.executable, "-c", LOOP]
    loops = [subprocess.Popen(words) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _show(
    names: Sequence[str],
    blocks: dict[tuple[str, bool], list[tuple[float, float]]],
    steps: int,
) -> None:
    print(f"{len(blocks[names[0], False])} pairs of blocks of {steps} steps")
    for name in names:
        alone, busy = ([each[0] for each in blocks[name, is_busy]] for is_busy in (False, True))
        first = [each[0] for each in blocks[names[0], False]]
        lost = statistics.median(share for _, share in blocks[name, False])
        print(
            f"{name:12} alone {statistics.median(alone):6.2f} s (least {min(alone):.2f}), "
            f"x{_spread(alone, first)} of {names[0]!r}; beside loops x{_spread(busy, alone)}; "
            f"lost alone {lost:.0%}",
            flush=True,
        )


def _spread(times_s: Sequence[float], over_s: Sequence[float]) -> str:
    ratios = sorted(a / b for a, b in zip(times_s, over_s, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
    return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()

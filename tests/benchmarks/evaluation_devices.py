"""What an evaluation takes on one device and divided among several, in turns.

    python tests/benchmarks/evaluation_devices.py WORKLOAD [--devices 2] [--times 5]

Of PyTorch, on the validation rows at mini scale, with the parameters that a trial begins with. One
device is this process with all threads; of several each has its share of them. Printed are seconds
by the wall and of all processors together, of each pair, and the median and range of the ratios.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def timed(measure: Callable[[], Any]) -> tuple[float, float]:
    """Return the wall seconds and the processor seconds of a call."""
    from algoperf.machine import processor_time

    wall_s, cpu_s = time.perf_counter(), processor_time.total_s()
    measure()
    return time.perf_counter() - wall_s, processor_time.total_s() - cpu_s


def main() -> int:
    """Measure, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    from algoperf.trial import handover
    from algoperf.trial.bench import Bench
    from algoperf.trial.evaluate import Evaluator
    from algoperf.trial.plan import PROCESS, TrialPlan

    threads = torch.get_num_threads()
    plan = TrialPlan(
        workload=arguments.workload,
        scale="mini",
        data="builtin",
        source_kind="builtin",
        framework="pytorch",
        submission=str(ROOT / "reference_algorithms" / "nadamw.py"),
        out="runs",
        experiment="benchmark",
        study=0,
        trial=1,
        seed=1,
        referee=PROCESS,
        devices=arguments.devices,
    )
    bench = Bench(plan)
    share = torch.get_num_threads()
    bound, subject = bench.bound, bench.subject
    one = Evaluator(
        bench.instruments.backend,
        bound.workload,
        subject.definition,
        bound.data,
        subject.scale,
    )
    bench.start_evaluators()
    own = bench.initialise(1)
    bench.warm_up(*own)
    shared = handover.Handover(bench.context, bench.signature)
    bench.instruments.backend.write(*own, shared.parameters())
    values: dict[int, dict[str, float]] = {}

    def on_one() -> None:
        torch.set_num_threads(threads)
        values[1] = one("validation", *own)

    def on_several() -> None:
        torch.set_num_threads(share)
        bench.spread(shared)
        values[arguments.devices] = bench.evaluator("validation", *own)

    ratios = []
    for _ in range(arguments.times):
        (wall_s, cpu_s), (several_wall_s, several_cpu_s) = timed(on_one), timed(on_several)
        ratios.append((several_wall_s / wall_s, several_cpu_s / cpu_s))
        print(
            f"one: {wall_s:.2f} s wall, {cpu_s:.2f} s CPU; {arguments.devices}: "
            f"{several_wall_s:.2f} s wall, {several_cpu_s:.2f} s CPU"
        )
    for name, each in zip(("wall", "CPU"), zip(*ratios, strict=True), strict=True):
        print(f"{name}: {statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})")
    apart = max(abs(values[1][name] - values[arguments.devices][name]) for name in values[1])
    print(f"the largest difference of a metric: {apart:g}")
    bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

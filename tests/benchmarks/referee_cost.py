"""What a trial costs beside its clock, in this checkout and in another one, in alternating order.

    git worktree add ../before COMMIT
    python tests/benchmarks/referee_cost.py --before ../before --pairs 3

The cost of a trial is its wall time, from the moment at which the starter turns to it until its
result is there and its processes have ended, without the submission's clock and the evaluations:
starting processes, imports, data, models, compiling what evaluates, files. The first trial of each
study is not counted. Each checkout runs one study of `pairs` + 1 trials of two steps in a process
of its own, that waits before each trial until it is told; the two take turns. Printed for each
workload and framework: the median cost of a trial in both, and the median ratio of a pair with the
least and the most. The exit code is 1 where a median ratio is over `LIMIT`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.4
# Either checkout's library runs this; a line of JSON for each trial, and one is read before it.
RUNNER = """
import dataclasses, json, sys, time
import reference_algorithms
from algoperf.study import study
from algoperf.submission import loading
from algoperf.trial.plan import TrialPlan

workload, framework, out, trials = sys.argv[1:]
path = reference_algorithms.path("adamw")
settings = dict(
    workload=workload, scale="mini", data="builtin", source_kind="builtin", framework=framework,
    submission=str(path), out=out, experiment="cost", study=0, trial=1, seed=0, max_steps=2,
)
if "referee" in {field.name for field in dataclasses.fields(TrialPlan)}:
    settings["referee"] = "process"
began_s = None

def turn():
    global began_s
    sys.stdin.readline()
    began_s = time.perf_counter()

def observe(plan, event):
    if event["event"] == "result":
        wall_s = time.perf_counter() - began_s
        result = event["result"]
        row = dict(wall_s=wall_s, ledger=result["ledger"], error=result["error"])
        print(json.dumps(row), flush=True)
        turn()

turn()
study.run(
    TrialPlan(**settings), loading.inspect(path), study.Slice(1, 1, int(trials)), observe
)
"""


class Study:
    """A study of a checkout, whose trials begin when they are told to."""

    def __init__(self, checkout: Path, workload: str, framework: str, out: Path, trials: int):
        arguments = [workload, framework, str(out), str(trials)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", RUNNER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )

    def trial(self) -> dict[str, Any]:
        """Run the next trial; return its wall time and its ledger."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        row: dict[str, Any] = json.loads(self._process.stdout.readline())
        if row["error"] is not None:
            raise SystemExit(f"a trial failed: {row['error']['cause']}")
        return row

    def end(self) -> None:
        """Leave the study, after its last trial."""
        self._process.communicate()


def cost_s(row: dict[str, Any]) -> float:
    """Return what a trial took beside its clock and its evaluations, in seconds."""
    ledger = row["ledger"]
    return float(row["wall_s"] - ledger["submission_s"] - ledger["evaluation_s"])


def compare(checkouts: Sequence[Path], workload: str, framework: str, pairs: int) -> float:
    """Measure and print one workload in one framework; return the median ratio."""
    with tempfile.TemporaryDirectory() as folder:
        studies = [
            Study(each, workload, framework, Path(folder) / str(number), pairs + 1)
            for number, each in enumerate(checkouts)
        ]
        for each in studies:
            each.trial()
        costs: list[list[float]] = [[], []]
        for pair in range(pairs):
            for which in (0, 1) if pair % 2 else (1, 0):
                costs[which].append(cost_s(studies[which].trial()))
        for each in studies:
            each.end()
    ratios = [now / before for before, now in zip(*costs, strict=True)]
    ratio = statistics.median(ratios)
    before_s, now_s = (statistics.median(values) for values in costs)
    print(
        f"{workload} {framework}: {before_s:.2f} s before, {now_s:.2f} s now, ratio {ratio:.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs)",
        flush=True,
    )
    return ratio


def main() -> int:
    """Measure and report."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--before", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workload", default="ag_news,xsum", help="names, with commas")
    parser.add_argument("--framework", default="jax,pytorch", help="names, with commas")
    arguments = parser.parse_args()
    checkouts = [arguments.before.resolve(), ROOT]
    ratios = [
        compare(checkouts, workload, framework, arguments.pairs)
        for workload in arguments.workload.split(",")
        for framework in arguments.framework.split(",")
    ]
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    return 0 if max(ratios) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

"""Time and memory of `algoperf score` on a folder of logs, beside the floor of reading it.

    python tests/benchmarks/scoring_speed.py LOGS --targets algoperf-0.5

The floor is a process that reads the same columns of the same files with the csv module, and does
nothing else. Both run in turn, whole processes with a warm file cache; medians, and the ratio of
each pair. `--out` adds a run with plots and page.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

FLOOR = """
import csv, pathlib, sys
wanted = {"accumulated_submission_time", "global_step"}
for path in sorted(pathlib.Path(sys.argv[1]).rglob("eval_measurements.csv")):
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [i for i, name in enumerate(header) if name in wanted or "validation/" in name]
        columns = [[] for _ in places]
        for row in rows:
            for column, place in zip(columns, places):
                column.append(float(row[place] or "nan"))
"""


def measure(command):
    """Wall seconds and peak resident bytes of a process, which must succeed."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs")
    parser.add_argument("--targets", required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--out", action="store_true")
    options = parser.parse_args()
    floor = [sys.executable, "-c", FLOOR, options.logs]
    score = [sys.executable, "-m", "algoperf", "score", options.logs, "--targets", options.targets]
    measure(floor), measure(score)  # warm the file cache
    pairs = [(measure(floor), measure(score)) for _ in range(options.pairs)]
    for name, place in (("floor", 0), ("scores", 1)):
        seconds = sorted(pair[place][0] for pair in pairs)
        memory = max(pair[place][1] for pair in pairs) / 1e6
        print(
            f"{name}: median {statistics.median(seconds):.2f} s "
            f"({seconds[0]:.2f} to {seconds[-1]:.2f}), {memory:.0f} MB"
        )
    ratios = sorted(score[0] / floor[0] for floor, score in pairs)
    print(f"ratio: median {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    if options.out:
        with tempfile.TemporaryDirectory() as folder:
            seconds, memory = measure([*score, "--out", folder])
            print(f"with plots and page: {seconds:.2f} s, {memory / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

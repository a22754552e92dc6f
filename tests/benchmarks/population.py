"""Compare tuning over a population with random search and with a grid at equal total time.

All three are studies of `--tuning-ruleset population`, whose members take turns of the same length,
so that they are charged alike; in the last two no member copies another (`--exchange-share 0`).
With the same seed the population and the random search start from the same points, rows and
parameters: until the first exchange they are one study. The grid has as many points as there are
members, evenly spaced in the logarithm of the learning rate, all else at the DEFAULTS. What is
compared is what all members took until the first of them met the target, in seconds of the
submission's clock and in steps. Runs that have ended are not run again, and what there is is told.
From the repository's root:

    taskset -c 0 nice -n 15 python tests/benchmarks/population.py DIR FILE.csv digits
    taskset -c 0 nice -n 15 python tests/benchmarks/population.py DIR FILE.csv ag_news
"""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from algoperf.run_folder import run_log, writing
from algoperf.submission import search_space
from reference_algorithms import nadamw

MEMBERS, SEEDS, FRAMEWORK = 4, 5, "pytorch"
EVERY_STEPS = {"digits": 20, "ag_news": 40}  # digits: of 120 to 180 to the target
POPULATION = "population"
ARMS = {POPULATION: 0.25, "random": 0.0, "grid": 0.0}  # the share that copies others
COLUMNS = ("workload", "arm", "seed", "reached", "submission_s", "steps", "member", "copies")
TABLE = ("workload", "arm", "reached", "total s", "total steps", "ratio in s", "ratio in steps")
EXPERIMENT = "population-tuning"
Row = dict[str, str]


def grid(path: Path) -> Path:
    """Write the points of the grid, and return their file."""
    rates = search_space.parse(nadamw.SEARCH_SPACE, "nadamw").dimensions["learning_rate"]
    points = [{"learning_rate": rates.at((k + 0.5) / MEMBERS)} for k in range(MEMBERS)]
    path.write_text(json.dumps(points))
    return path


def run(out: Path, workload: str, arm: str, seed: int) -> Row | None:
    """Run a study, unless it has ended; return its row, None where it did not come to its end."""
    folder = out / EXPERIMENT / f"{arm}-{seed}" / "study_0" / f"{workload}_{FRAMEWORK}"
    document = run_log.read_json(folder / run_log.POPULATION) or {}
    if not document.get("ended"):
        words = ["--workload", workload, "--submission", "nadamw", "--framework", FRAMEWORK]
        words += ["--tuning-ruleset", "population", "--trials", str(MEMBERS), "--threads", "1"]
        words += ["--exchange-every-steps", str(EVERY_STEPS[workload])]
        words += ["--exchange-share", str(ARMS[arm]), "--seed", str(seed), "--out", str(out)]
        words += ["--name", f"{arm}-{seed}", "--experiment", EXPERIMENT]
        if arm == "grid":
            words += ["--search-space", str(grid(out / "grid.json"))]
        subprocess.run([sys.executable, "-m", "algoperf", "run", *words], check=False)
        document = run_log.read_json(folder / run_log.POPULATION) or {}
    ended = document.get("ended")
    if not ended:
        return None
    is_reached = ended["member"] is not None
    values = {
        "reached": int(is_reached),
        "submission_s": f"{ended['submission_s']:.3f}",
        "steps": ended["steps"],
        "member": ended["member"] if is_reached else "",
        "copies": sum(len(each["copies"]) for each in document["rounds"]),
    }
    return {"workload": workload, "arm": arm, "seed": str(seed), **_texts(values)}


def _texts(values: dict[str, object]) -> Row:
    return {name: str(value) for name, value in values.items()}


def read(path: Path) -> list[Row]:
    """Return the rows of a file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def lines(rows: list[Row]) -> Iterator[str]:
    """Yield the table: medians, and the population's ratio to each other arm, seed by seed.

    The ratio is a geometric mean over the seeds at which both reached the target, with Student's
    95 % interval of its logarithm.
    """
    yield " | ".join(TABLE)
    for workload in dict.fromkeys(row["workload"] for row in rows):
        by_arm = {
            arm: {
                row["seed"]: row for row in rows if (row["workload"], row["arm"]) == (workload, arm)
            }
            for arm in ARMS
        }
        for arm, by_seed in by_arm.items():
            reached = [row for row in by_seed.values() if row["reached"] == "1"]
            cells = [f"{len(reached)}/{len(by_seed)}"]
            for column in ("submission_s", "steps"):
                values = [
                    float(row[column]) if row["reached"] == "1" else math.inf
                    for row in by_seed.values()
                ]
                cells.append(f"{np.median(values):.4g}" if values else "-")
            for column in ("submission_s", "steps"):
                is_own = arm == POPULATION
                cells.append("1" if is_own else ratio(by_arm[POPULATION], by_seed, column))
            yield " | ".join([workload, arm, *cells])


def ratio(own: dict[str, Row], other: dict[str, Row], column: str) -> str:
    """Return the geometric mean of the ratios of two arms, its 95 % interval, and of how many."""
    logs = [
        math.log(float(own[seed][column]) / float(other[seed][column]))
        for seed in own.keys() & other.keys()
        if own[seed]["reached"] == other[seed]["reached"] == "1"
    ]
    if len(logs) < 2:
        return "-"
    mean = float(np.mean(logs))
    half = float(stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs))
    low, middle, high = (math.exp(mean + part) for part in (-half, 0.0, half))
    return f"{middle:.2f} ({low:.2f}-{high:.2f}, {len(logs)} seeds)"


def main(out: Path, path: Path, workloads: list[str]) -> None:
    """Run what is missing, appending a row for each study, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(SEEDS):
        for workload in workloads:
            for arm in ARMS:
                rows = read(path)
                if any(
                    (row["workload"], row["arm"], row["seed"]) == (workload, arm, str(seed))
                    for row in rows
                ):
                    continue
                row = run(out, workload, arm, seed)
                if row is not None:
                    writing.append_rows(path, COLUMNS, [row])
    for line in lines(read(path)):
        print(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

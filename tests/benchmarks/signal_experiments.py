"""Send signals to running trials, and see that nothing is lost:

    python tests/benchmarks/signal_experiments.py --out /tmp/signals --count 200

An experiment is one `algoperf run` of digits in one of the frameworks, one or two signals (SIGTERM,
SIGUSR1, SIGHUP, SIGINT, SIGUSR2, SIGXCPU), who gets them (the starter, the trial's process, the one
and then the other, or both with all that they started, twice), the gap between the two of 0 to 500
ms, and the moment of the trial: while Python starts, while a framework is imported, in the set-up,
in a step, in an evaluation, as a row, a checkpoint or the result is written, in the last
evaluation, and between two trials. The trial is held at the moment (`ALGOPERF_HOLD_AT`) until the
first signal is sent, and not while the second one comes.

The command has to exit with 75, no trial may be recorded as failed, and the same command has to end
with the losses, the metrics and the last parameters of the run that nobody disturbed, bit for bit.

What has been done is in `experiments.jsonl` in the folder; the same command does the rest and
prints the table again. The exit code is 1 where anything was lost.
"""

import argparse
import collections
import contextlib
import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

KINDS = ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT", "SIGUSR2", "SIGXCPU")
STARTER, TRIAL, ALL = "starter", "trial", "all"
# Who gets the first signal, and who the second one.
TARGETS = (
    (STARTER, TRIAL),
    (TRIAL, STARTER),
    (ALL, ALL),
    (STARTER, STARTER),
    (TRIAL, TRIAL),
    (STARTER, None),
    (TRIAL, None),
    (ALL, None),
)
GAPS_MS = (0, 1, 5, 20, 50, 100, 250, 500)
# The moments, and where a process is held at them: None is just after it was started.
MOMENTS: dict[str, str | None] = {
    "start of Python": None,
    "imports": None,
    "set-up": "flags_0 kept",
    "a step": "step#2",
    "an evaluation": "evaluation#2",
    "writing a row": "row written#3",
    "writing a checkpoint": "checkpoint written#2",
    "after a checkpoint": "checkpoint kept#3",
    "the last evaluation": "evaluation#4",
    "writing the result": "result written",
    "after the result": "result kept",
    "between trials": "trial ended",
}
TIMEOUT_S = 300.0
SUBMISSION = """
from algoperf.run_folder import crash_points
from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS
jax_optimizer = adamw.jax_optimizer


def learning_rate(step, hyperparameters, info):  # Called in every tenth step, in JAX.
    crash_points.reach("step")
    return adamw.learning_rate(step, hyperparameters, info)


class Scheduler:
    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.state_dict, self.load_state_dict = scheduler.state_dict, scheduler.load_state_dict

    def step(self):
        crash_points.reach("step")
        self.scheduler.step()


def torch_optimizer(params, hyperparameters, info):
    optimizer, scheduler = adamw.torch_optimizer(params, hyperparameters, info)
    return optimizer, Scheduler(scheduler)
"""


@dataclass(frozen=True)
class Experiment:
    """What is sent, to whom and when."""

    number: int
    framework: str
    moment: str
    kind: str
    first: str
    second: str | None
    gap_ms: int
    delay_ms: int  # after the start of the trial's process, where it is not held

    @property
    def trials(self) -> int:
        """How many trials the study has."""
        return 2 if self.moment == "between trials" else 1


def drawn(count: int, seed: int = 0) -> list[Experiment]:
    """Return experiments in which each value of each factor comes as often as any other."""
    rng = random.Random(seed)
    columns = []
    for values in (("pytorch", "jax"), tuple(MOMENTS), KINDS, TARGETS, GAPS_MS):
        column = list(itertools.islice(itertools.cycle(values), count))
        rng.shuffle(column)
        columns.append(column)
    return [
        Experiment(
            number,
            framework,
            moment,
            kind,
            *("starter", None if targets[1] is None else "starter")
            if moment == "between trials"
            else targets,
            gap_ms,
            0 if moment == "start of Python" else rng.randrange(50, 1000),
        )
        for number, (framework, moment, kind, targets, gap_ms) in enumerate(
            zip(*columns, strict=True)
        )
    ]


def words(folder: Path, framework: str, trials: int) -> list[str]:
    """Return the command of a study."""
    points = [{"learning_rate": rate, "beta2": 0.99} for rate in (3e-3, 1e-3)][:trials]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(SUBMISSION)
    (folder / "points.json").write_text(json.dumps(points))
    return [
        *(sys.executable, "-P", "-m", "algoperf", "run", "--workload", "digits"),
        *("--submission", str(folder / "mine.py"), "--framework", framework),
        *("--search-space", str(folder / "points.json"), "--trials", str(trials)),
        *("--max-steps", "30", "--eval-every-steps", "10", "--out", str(folder / "runs")),
    ]


def trial_folders(folder: Path) -> list[Path]:
    """Return the run folders of the study in a folder."""
    return sorted(folder.glob("runs/*/mine/study_0/*/trial_*"))


def outcome(folder: Path) -> list[Any]:
    """Return all that two studies must have in common: everything but times."""
    clocks = ("accumulated", "score", "total_duration", "preemption_count")
    found: list[Any] = []
    for trial in trial_folders(folder):
        result = json.loads((trial / "result.json").read_text())
        found.append([result[name] for name in ("status", "steps", "final", "parameters_crc32")])
        for name in ("eval_measurements.csv", "measurements.csv"):
            with (trial / name).open(newline="") as file:
                for row in csv.DictReader(file):
                    found.append([each for each in row.items() if not each[0].startswith(clocks)])
    return json.loads(json.dumps(found))


def failures(folder: Path) -> list[str]:
    """Return the trials that are recorded as failed."""
    results = ((trial, trial / "result.json") for trial in trial_folders(folder))
    return [
        trial.name
        for trial, path in results
        if path.exists() and json.loads(path.read_text())["status"] == "failed"
    ]


def run(command: Sequence[str], log: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """Start a command whose output goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            process_group=0,
        )


def child_of(starter: "subprocess.Popen[bytes]") -> int:
    """Wait for the trial's process, and return its number."""
    ends_at_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends_at_s and starter.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(starter.pid).children():
                with contextlib.suppress(psutil.Error):
                    # Until it runs its own program it is a copy of the starter.
                    if "algoperf.trial.process" in " ".join(child.cmdline()):
                        return child.pid
        time.sleep(0.001)
    raise TimeoutError("no trial was started")


def send(kind: str, who: str, starter: int, trial: int) -> None:
    """Send a signal to the starter, the trial or all that they started."""
    number = signal.Signals[kind]
    if who == ALL:
        for leader in (starter, trial):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, number)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(starter if who == STARTER else trial, number)


def disturb(experiment: Experiment, folder: Path) -> int:
    """Start the study, send the signals, and return the exit code."""
    command = words(folder, experiment.framework, experiment.trials)
    hold_at, mark = MOMENTS[experiment.moment], folder / "held"
    held = {} if hold_at is None else {"ALGOPERF_HOLD_AT": hold_at}
    starter = run(command, folder / "log.txt", ALGOPERF_HOLD_FILE=str(mark), **held)
    try:
        trial = child_of(starter)
        if hold_at is None:
            time.sleep(experiment.delay_ms / 1000)
        else:
            ends_at_s = time.monotonic() + TIMEOUT_S
            while not (mark.exists() and mark.read_text()):
                if time.monotonic() > ends_at_s or starter.poll() is not None:
                    raise TimeoutError(f"the trial did not come to {experiment.moment}")
                time.sleep(0.002)
        send(experiment.kind, experiment.first, starter.pid, trial)
        mark.unlink(missing_ok=True)
        if experiment.second is not None:
            time.sleep(experiment.gap_ms / 1000)
            send(experiment.kind, experiment.second, starter.pid, trial)
        return starter.wait(TIMEOUT_S)
    finally:
        starter.kill()
        starter.wait()


def carry_out(experiment: Experiment, folder: Path, undisturbed: list[Any]) -> dict[str, Any]:
    """Make one experiment and return what came of it."""
    code = disturb(experiment, folder)
    failed = failures(folder)
    had_results = sum((trial / "result.json").exists() for trial in trial_folders(folder))
    command = words(folder, experiment.framework, experiment.trials)
    again = run(command, folder / "log.txt").wait(TIMEOUT_S)
    return {
        **asdict(experiment),
        "code": code,
        "failed": failed,
        "results": had_results,
        "again": again,
        "is_equal": again == 0 and outcome(folder) == undisturbed,
    }


def is_good(row: dict[str, Any]) -> bool:
    """Return whether nothing was lost."""
    return row["code"] == 75 and not row["failed"] and row["again"] == 0 and row["is_equal"]


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the tables: a row for each value of a factor."""

    def who(row: dict[str, Any]) -> str:
        return row["first"] if row["second"] is None else f"{row['first']}, then {row['second']}"

    factors = {
        "signal": lambda row: row["kind"],
        "who gets it": who,
        "gap": lambda row: "one signal" if row["second"] is None else f"{row['gap_ms']:3} ms",
        "moment": lambda row: row["moment"],
        "framework": lambda row: row["framework"],
        "all": lambda row: "",
    }
    for factor, value in factors.items():
        yield f"{factor:22} experiments  exit 75  recorded failed  continued equal  lost"
        groups = collections.defaultdict(list)
        for row in rows:
            groups[value(row)].append(row)
        order = {each: place for place, each in enumerate((*MOMENTS, *KINDS))}
        for name in sorted(groups, key=lambda name: (order.get(name, 0), name)):
            group = groups[name]
            stopped = sum(row["code"] == 75 for row in group)
            failed = sum(bool(row["failed"]) for row in group)
            equal = sum(row["is_equal"] for row in group)
            lost = sum(not is_good(row) for row in group)
            yield f"{name:22} {len(group):11} {stopped:8} {failed:16} {equal:16} {lost:5}"
        yield ""
    for row in rows:
        if not is_good(row):
            yield f"lost: {json.dumps(row)}"


def main() -> int:
    """Make the experiments that have not been made, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of runs and results")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=2)
    arguments = parser.parse_args()
    for kind in KINDS:  # What this script ignores, the commands that it starts would ignore, too.
        usual = signal.default_int_handler if kind == "SIGINT" else signal.SIG_DFL
        signal.signal(signal.Signals[kind], usual)
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # The runs that nobody disturbs compile for all others, which only read.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    kept = out / "experiments.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    undisturbed = {}
    for framework, trials in itertools.product(("pytorch", "jax"), (1, 2)):
        folder = out / f"undisturbed-{framework}-{trials}"
        code = run(words(folder, framework, trials), folder / "log.txt").wait(TIMEOUT_S)
        if code != 0:
            raise SystemExit(f"the undisturbed run ended with {code}: see {folder}/log.txt")
        undisturbed[framework, trials] = outcome(folder)
    done = {row["number"] for row in rows}
    todo = [each for each in drawn(arguments.count) if each.number not in done]

    def work(experiment: Experiment) -> dict[str, Any]:
        key = experiment.framework, experiment.trials
        folder = out / f"{experiment.number:03}-{time.time_ns()}"
        return carry_out(experiment, folder, undisturbed[key])

    with ThreadPoolExecutor(arguments.at_once) as pool:
        for row in pool.map(work, todo):
            rows.append(row)
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if not is_good(row):
                print(f"lost: {json.dumps(row)}", flush=True)
    rows = [row for row in rows if row["number"] < arguments.count]
    print("\n".join(table(rows)))
    return int(not all(map(is_good, rows)))


if __name__ == "__main__":
    sys.exit(main())

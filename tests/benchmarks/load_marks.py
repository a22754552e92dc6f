"""The same run alone, beside one and two busy loops, and stopped for 4 s: what is said of each.

    python tests/benchmarks/load_marks.py --workload ag_news --out load-marks

Each is `algoperf run` with evaluations by steps, so that the steps to the target are those of the
seed, whatever the machine does. Printed for each: whether it is marked as contended, the share of
its clock that others took, its time and its steps to the target.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from busy_machine import busy_loops

from algoperf.run_folder import run_log

STOP_S = 4.0
CONDITIONS = {"alone": 0, "one loop": 1, "two loops": 2, "stopped": 0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", default="ag_news")
    parser.add_argument("--framework", default="pytorch")
    parser.add_argument("--submission", default="nadamw")
    parser.add_argument("--eval-every-steps", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    for condition, loops in CONDITIONS.items():
        out = given.out / condition.replace(" ", "-")
        words = [sys.executable, "-m", "algoperf", "run", "--workload", given.workload]
        words += ["--framework", given.framework, "--submission", given.submission]
        words += ["--eval-every-steps", str(given.eval_every_steps), "--out", str(out)]
        with busy_loops(loops), subprocess.Popen(words, stdout=subprocess.DEVNULL) as run:
            if condition == "stopped":
                threading.Thread(target=_stop_trainer, args=(out, run.pid), daemon=True).start()
            run.wait()
        (folder,) = out.glob("*/*/study_0/*/trial_1")
        result = run_log.read_result(folder) or {}
        load = result["load"]
        print(
            f"{condition:10} contended {result['contended']!s:5} "
            f"lost {load['lost_share'] or 0:6.1%} stopped {load['stopped_s'] or 0:.1f} s; "
            f"{result['status']} after {result['time_to_target_s'] or 0:.1f} s, "
            f"{result['steps_to_target']} steps",
            flush=True,
        )


def _stop_trainer(out: Path, starter: int) -> None:
    """Stop the process of the trial that uses most of the processor, while its clock runs."""
    while not [*out.glob("*/*/study_0/*/trial_1/eval_measurements.csv")]:
        time.sleep(0.1)
    time.sleep(3.0)
    spent = {}
    for process in psutil.Process(starter).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            spent[process.pid] = sum(process.cpu_times()[:2])
    trainer = max(spent, key=lambda pid: (psutil.Process(pid).ppid() in spent, spent[pid]))
    os.kill(trainer, signal.SIGSTOP)
    time.sleep(STOP_S)
    os.kill(trainer, signal.SIGCONT)


if __name__ == "__main__":
    main()
